//go:build !unix

package blockstore

func newRegion(size int) region { return region{b: make([]byte, size)} }

func (r *region) free() { *r = region{} }
