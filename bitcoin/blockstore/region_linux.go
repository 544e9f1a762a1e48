package blockstore

import "syscall"

// wantHugePages asks for large pages. A system without them answers with an error, and nothing changes.
func wantHugePages(b []byte) { syscall.Madvise(b, syscall.MADV_HUGEPAGE) }
