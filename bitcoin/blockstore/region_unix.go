//go:build unix

package blockstore

import (
	"reflect"
	"syscall"
)

// newRegion returns memory of a size, all zeros.
func newRegion(size int) region {
	if size <= smallRegion {
		return region{b: make([]byte, size)}
	}
	more := 0
	if size >= hugePage {
		more = hugePage // never touched, so never taken
	}
	whole, err := syscall.Mmap(-1, 0, size+more, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return region{b: make([]byte, size)}
	}
	from := 0
	if more > 0 {
		from = int(-reflect.ValueOf(whole).Pointer() & (hugePage - 1))
	}
	r := region{b: whole[from : from+size : from+size], whole: whole}
	if more > 0 {
		wantHugePages(r.b)
	}
	return r
}

// free gives the memory back; what did not come from the system is left to the collector.
func (r *region) free() {
	if r.whole != nil {
		syscall.Munmap(r.whole)
	}
	*r = region{}
}
