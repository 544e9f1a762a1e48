//go:build !unix

package blockstore

func newPage() []byte { return make([]byte, pageBytes) }

func freePage([]byte) {}
