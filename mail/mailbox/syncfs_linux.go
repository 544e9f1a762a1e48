package mailbox

import (
	"os"

	"golang.org/x/sys/unix"
)

// hasSyncfs says that one call can sync a whole file system.
const hasSyncfs = true

// syncfs syncs the file system that a file is in.
func syncfs(f *os.File) error { return unix.Syncfs(int(f.Fd())) }
