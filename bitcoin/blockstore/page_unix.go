//go:build unix

package blockstore

import "syscall"

// newPage returns memory that the collector does not count: a large cache of coins would else let
// as much garbage pile up beside it before it is collected.
func newPage() []byte {
	p, err := syscall.Mmap(-1, 0, pageBytes, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return make([]byte, pageBytes)
	}
	return p
}

// freePage gives a page back; one that did not come from the system is left to the collector.
func freePage(p []byte) { syscall.Munmap(p) }
