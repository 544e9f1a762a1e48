package blockstore

// region is memory that the collector does not count: a large cache of coins would else let as much
// garbage pile up beside it before it is collected. Where the system can, it has large pages: a cache is
// looked into at random, and finding the page of an address would take longer than what is there.
type region struct {
	b     []byte
	whole []byte // what was asked of the system; nil where b is the collector's
}

const (
	// hugePage is the size of a large page, and what regions of that size and more are aligned to.
	hugePage = 2 << 20
	// smallRegion is what is not worth a call of the system.
	smallRegion = 64 << 10
)
