package wire

import (
	"encoding/binary"
	"errors"

	"github.com/tallypost/tallypost/bitcoin"
)

// MerkleBlock proves to a light client which of a block's transactions match its filter (BIP 37).
type MerkleBlock struct {
	Header bitcoin.Header
	PartialTree
}

// Command returns "merkleblock".
func (*MerkleBlock) Command() string { return "merkleblock" }

// Append appends the payload.
func (m *MerkleBlock) Append(dst []byte) []byte {
	return m.PartialTree.append(m.Header.Append(dst))
}

func parseMerkleBlock(d *decoder) Message {
	return &MerkleBlock{Header: d.header(), PartialTree: d.partialTree()}
}

// NewMerkleBlock returns the proof for the transactions of which match says so. The block has at
// least one transaction.
func NewMerkleBlock(block *bitcoin.Block, match func(*bitcoin.Tx) bool) *MerkleBlock {
	ids := make([]bitcoin.Hash, len(block.Txs))
	matches := make([]bool, len(block.Txs))
	for i := range block.Txs {
		ids[i], matches[i] = block.Txs[i].TxID(), match(&block.Txs[i])
	}
	return &MerkleBlock{Header: block.Header, PartialTree: NewPartialTree(ids, matches)}
}

// ParseMerkleBlock reads the payload of a merkleblock, which is also what Core's gettxoutproof
// returns.
func ParseMerkleBlock(b []byte) (*MerkleBlock, error) {
	m, err := Parse("merkleblock", b)
	if err != nil {
		return nil, err
	}
	return m.(*MerkleBlock), nil
}

// PartialTree is as much of a Merkle tree as shows that some leaves are in it: walked from the
// root, left before right, a flag for each node says whether a wanted leaf is below; where none is,
// or at a leaf, its hash follows.
type PartialTree struct {
	Leaves uint32 // in the whole tree
	Hashes []bitcoin.Hash
	Flags  []byte // a bit each, lowest first
}

func (t *PartialTree) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, t.Leaves)
	return appendVarBytes(appendHashes(dst, t.Hashes), t.Flags)
}

func (d *decoder) partialTree() PartialTree {
	return PartialTree{Leaves: d.uint32(), Hashes: d.hashes(), Flags: d.varBytes()}
}

// width returns the number of nodes at a height above the leaves.
func (t *PartialTree) width(height int) uint32 {
	return uint32((uint64(t.Leaves) + 1<<height - 1) >> height)
}

func (t *PartialTree) height() (height int) {
	for t.width(height) > 1 {
		height++
	}
	return height
}

// NewPartialTree returns the part of the tree over the ids that shows the matching ones.
func NewPartialTree(ids []bitcoin.Hash, matches []bool) PartialTree {
	b := treeBuilder{
		tree:    PartialTree{Leaves: uint32(len(ids))},
		levels:  [][]bitcoin.Hash{ids},
		matches: [][]bool{matches},
	}
	for len(b.levels[len(b.levels)-1]) > 1 {
		b.addLevel()
	}
	b.walk(b.tree.height(), 0)
	return b.tree
}

// treeBuilder has every level of the whole tree, from the leaves up: hashes, and whether a match is
// below.
type treeBuilder struct {
	tree    PartialTree
	levels  [][]bitcoin.Hash
	matches [][]bool
	flags   int
}

func (b *treeBuilder) addLevel() {
	top := len(b.levels) - 1
	below, matches := b.levels[top], b.matches[top]
	n := (len(below) + 1) / 2
	level, match := make([]bitcoin.Hash, n), make([]bool, n)
	for i := range level {
		right := min(2*i+1, len(below)-1)
		level[i] = hashPair(below[2*i], below[right])
		match[i] = matches[2*i] || matches[right]
	}
	b.levels, b.matches = append(b.levels, level), append(b.matches, match)
}

func (b *treeBuilder) walk(height int, pos uint32) {
	match := b.matches[height][pos]
	if b.flags%8 == 0 {
		b.tree.Flags = append(b.tree.Flags, 0)
	}
	if match {
		b.tree.Flags[b.flags/8] |= 1 << (b.flags % 8)
	}
	b.flags++
	if height == 0 || !match {
		b.tree.Hashes = append(b.tree.Hashes, b.levels[height][pos])
		return
	}
	b.walk(height-1, 2*pos)
	if 2*pos+1 < b.tree.width(height-1) {
		b.walk(height-1, 2*pos+1)
	}
}

// errPartialTree is the one error of Extract: which of its parts does not fit helps nobody.
var errPartialTree = errors.New("invalid partial Merkle tree")

// mostLeaves is the number of transactions that fit a block by the rule that Core uses here: 60
// octets at least, of weight 4.
const mostLeaves = 4_000_000 / (4 * 60)

// Match is a leaf that a partial tree shows.
type Match struct {
	ID    bitcoin.Hash
	Index uint32
}

// Extract returns the root that the tree computes to and the matching leaves. The caller holds the
// root against a header (Core merkleblock.cpp, ExtractMatches).
func (t *PartialTree) Extract() (root bitcoin.Hash, matches []Match, err error) {
	if t.Leaves == 0 || t.Leaves > mostLeaves || len(t.Hashes) > int(t.Leaves) ||
		len(t.Flags)*8 < len(t.Hashes) {
		return root, nil, errPartialTree
	}
	r := treeReader{tree: t}
	root = r.walk(t.height(), 0)
	if r.bad || (r.flags+7)/8 != len(t.Flags) || r.hashes != len(t.Hashes) {
		return bitcoin.Hash{}, nil, errPartialTree
	}
	return root, r.matches, nil
}

// treeReader walks a partial tree as the builder did.
type treeReader struct {
	tree          *PartialTree
	flags, hashes int // used
	matches       []Match
	bad           bool
}

func (r *treeReader) walk(height int, pos uint32) bitcoin.Hash {
	if r.flags >= 8*len(r.tree.Flags) {
		r.bad = true
		return bitcoin.Hash{}
	}
	match := r.tree.Flags[r.flags/8]>>(r.flags%8)&1 != 0
	r.flags++
	if height == 0 || !match {
		if r.hashes >= len(r.tree.Hashes) {
			r.bad = true
			return bitcoin.Hash{}
		}
		h := r.tree.Hashes[r.hashes]
		r.hashes++
		if match {
			r.matches = append(r.matches, Match{h, pos})
		}
		return h
	}
	left := r.walk(height-1, 2*pos)
	right := left
	if 2*pos+1 < r.tree.width(height-1) {
		right = r.walk(height-1, 2*pos+1)
		if right == left { // CVE-2012-2459: leaves are never equal, nor are the nodes above them
			r.bad = true
		}
	}
	return hashPair(left, right)
}

func hashPair(left, right bitcoin.Hash) bitcoin.Hash {
	var pair [64]byte
	copy(pair[:], left[:])
	copy(pair[32:], right[:])
	return bitcoin.DoubleHash(pair[:])
}
