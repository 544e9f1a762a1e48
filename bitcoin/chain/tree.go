package chain

import (
	"math"
	"math/bits"

	"github.com/tallypost/tallypost/bitcoin"
)

// node is the position of a header in the tree. The genesis block is node 0, and a parent always
// comes before its children.
type node uint32

// none is no node.
const none node = 1<<32 - 1

// tree holds every header that was accepted, in 112 octets each and 32 more where the block has
// been here, in chunks that are never moved: no pointers for the collector to follow, no copying
// while it grows. Headers are never removed.
type tree struct {
	headers [][]header
	bodies  [][]body // chunks are nil where no block of them was ever here
	n       int
	index   hashIndex
}

// chunk is the number of headers that are allocated together.
const chunk = 4096

// header is a node of the tree. The hash of the header before is that of the parent.
type header struct {
	hash    bitcoin.Hash
	merkle  bitcoin.Hash
	work    work // of the chain up to here
	version int32
	time    uint32
	bits    uint32
	nonce   uint32
	parent  node
	skip    node // an ancestor far back, see skipHeight
	height  bitcoin.Height
	status  status
}

// body is what the tree knows of a block beyond its header.
type body struct {
	chainTxs uint64 // transactions up to here, if all blocks up to here have been here; else 0
	txs      uint32 // 0 where the block has never been here
	file     int32
	data     uint32 // where the block stands in its file
	undo     uint32 // where its undo data stand
	sequence int32  // the order of arrival, for choosing between equals: smaller wins
}

// work is a sum of work. 128 bits are enough: nobody can do 2^128 hashes, and what claims more
// would have needed them.
type work [2]uint64

func makeWork(x bitcoin.Uint256) work { return work{x[0], x[1]} }

func (w work) uint256() bitcoin.Uint256 { return bitcoin.Uint256{w[0], w[1]} }

// log2 is how work is told to people.
func (w work) log2() float64 {
	return math.Log2(float64(w[0]) + float64(w[1])*(1<<64))
}

func (w work) add(x work) (sum work) {
	var carry uint64
	sum[0], carry = bits.Add64(w[0], x[0], 0)
	sum[1], _ = bits.Add64(w[1], x[1], carry)
	return sum
}

func (w work) cmp(x work) int {
	switch {
	case w == x:
		return 0
	case w[1] < x[1] || w[1] == x[1] && w[0] < x[0]:
		return -1
	}
	return 1
}

// at returns a header of the tree.
func (t *tree) at(n node) *header { return &t.headers[n/chunk][n%chunk] }

// noBody is what body returns for blocks that have never been here. It must not be changed.
var noBody body

// body returns what is known of a block; to change it, use ownBody.
func (t *tree) body(n node) *body {
	if c := t.bodies[n/chunk]; c != nil {
		return &c[n%chunk]
	}
	return &noBody
}

// ownBody is body, with room to change it.
func (t *tree) ownBody(n node) *body {
	c := &t.bodies[n/chunk]
	if *c == nil {
		*c = make([]body, chunk)
	}
	return &(*c)[n%chunk]
}

// find returns the node of a hash, or none.
func (t *tree) find(hash *bitcoin.Hash) node { return t.index.find(t, hash) }

// add appends a header whose parent is in the tree, or the genesis block with the parent none.
func (t *tree) add(h *bitcoin.Header, hash *bitcoin.Hash, parent node) node {
	n := node(t.n)
	if t.n%chunk == 0 {
		t.headers = append(t.headers, make([]header, chunk))
		t.bodies = append(t.bodies, nil)
	}
	t.n++
	own := t.at(n)
	*own = header{
		hash:    *hash,
		merkle:  h.MerkleRoot,
		version: h.Version,
		time:    h.Time,
		bits:    h.Bits,
		nonce:   h.Nonce,
		parent:  parent,
		skip:    none,
		work:    makeWork(bitcoin.Work(h.Bits)),
	}
	if parent != none {
		before := t.at(parent)
		own.height = before.height + 1
		if before.bits == h.Bits && before.parent != none { // a subtraction instead of a division
			own.work = subWork(before.work, t.at(before.parent).work)
		}
		own.work = own.work.add(before.work)
		own.skip = t.ancestor(parent, skipHeight(own.height))
	}
	t.index.add(t, n)
	return n
}

func subWork(a, b work) (diff work) {
	var borrow uint64
	diff[0], borrow = bits.Sub64(a[0], b[0], 0)
	diff[1], _ = bits.Sub64(a[1], b[1], borrow)
	return diff
}

// header returns the header of a node as it stands on the wire.
func (t *tree) header(n node) bitcoin.Header {
	own := t.at(n)
	h := bitcoin.Header{
		Version:    own.version,
		MerkleRoot: own.merkle,
		Time:       own.time,
		Bits:       own.bits,
		Nonce:      own.nonce,
	}
	if own.parent != none {
		h.PrevBlock = t.at(own.parent).hash
	}
	return h
}

// skipHeight returns the height of the ancestor that a header of this height points to (Bitcoin
// Core chain.cpp, GetSkipHeight): any ancestor is then found in a logarithmic number of steps.
func skipHeight(height bitcoin.Height) bitcoin.Height {
	if height < 2 {
		return 0
	}
	if height&1 != 0 {
		return invertLowestOne(invertLowestOne(height-1)) + 1
	}
	return invertLowestOne(height)
}

func invertLowestOne(n bitcoin.Height) bitcoin.Height { return n & (n - 1) }

// ancestor returns the node at a height on the way from n back to the genesis block; none where
// there is none.
func (t *tree) ancestor(n node, height bitcoin.Height) node {
	if n == none || height < 0 || height > t.at(n).height {
		return none
	}
	for at := t.at(n); at.height > height; at = t.at(n) {
		skipTo, skipBefore := skipHeight(at.height), skipHeight(at.height-1)
		// The skip is taken unless the parent's would lead further.
		if at.skip != none && (skipTo == height ||
			skipTo > height && !(skipBefore < skipTo-2 && skipBefore >= height)) {
			n = at.skip
		} else {
			n = at.parent
		}
	}
	return n
}

// isAncestor reports whether a lies on the way from b to the genesis block, or is b.
func (t *tree) isAncestor(a, b node) bool {
	return a != none && t.ancestor(b, t.at(a).height) == a
}

// fork returns the last block that two branches share.
func (t *tree) fork(a, b node) node {
	if ha, hb := t.at(a).height, t.at(b).height; ha > hb {
		a = t.ancestor(a, hb)
	} else {
		b = t.ancestor(b, ha)
	}
	for a != b {
		x, y := t.at(a), t.at(b)
		if x.skip != y.skip { // equal heights have skips of equal heights
			a, b = x.skip, y.skip
		} else {
			a, b = x.parent, y.parent
		}
	}
	return a
}

// median returns the median time of a header and the ten before it (BIP 113).
func (t *tree) median(n node) uint32 {
	var times [11]uint32
	count := 0
	for ; count < len(times) && n != none; count++ {
		h := t.at(n)
		i := count
		for ; i > 0 && times[i-1] > h.time; i-- {
			times[i] = times[i-1]
		}
		times[i] = h.time
		n = h.parent
	}
	return times[count/2]
}
