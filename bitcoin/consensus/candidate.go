package consensus

import (
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// A Candidate is a block that has passed CheckBlock, with what Connect can know of it before any
// coin is read: which inputs spend outputs of the block itself, which need coins from outside, and
// which can only fail. It does not change, and candidates may be made in any order and by many
// goroutines at once.
type Candidate struct {
	block *bitcoin.Block
	hash  bitcoin.Hash

	outside  []bitcoin.OutPoint // what is needed from outside, in order, no two alike
	sources  []source           // for each input but the coinbase's: what it spends
	firstOut []uint32           // for each transaction: the outputs before its own
	spent    bitset             // by output of the block: spent within it
	sigOps   []uint32           // for each transaction: those of GetLegacySigOpCount
}

// source tells what an input spends: a position in Candidate.outside, or the number of a
// transaction of the block with sourceInside added.
type source uint32

const (
	sourceInside  source = 1 << 31
	sourceMissing source = 1<<32 - 1 // nothing: spent by an earlier input, or never created
)

// NewCandidate judges a block by itself, as CheckBlock, and resolves its inputs.
func NewCandidate(net *bitcoin.Network, b *bitcoin.Block, skip Skip) (*Candidate, error) {
	c := &Candidate{block: b, hash: b.Hash(), sigOps: make([]uint32, len(b.Txs))}
	if err := checkBlock(net, b, c.hash, skip, c.sigOps); err != nil {
		return nil, err
	}
	c.resolve()
	return c, nil
}

// Block returns the block; it must not be changed.
func (c *Candidate) Block() *bitcoin.Block { return c.block }

// Hash returns the hash of the block.
func (c *Candidate) Hash() bitcoin.Hash { return c.hash }

// Outside returns the outpoints whose coins Connect will ask the View for, so that they can be
// fetched early. The list must not be changed.
func (c *Candidate) Outside() []bitcoin.OutPoint { return c.outside }

// resolve finds the source of each input. An output of the block can be spent by later transactions
// only, once, and only if an output with its script can be spent at all.
func (c *Candidate) resolve() {
	txs := c.block.Txs
	ins, outs := 0, 0
	c.firstOut = make([]uint32, len(txs))
	for i := range txs {
		c.firstOut[i] = uint32(outs)
		outs += len(txs[i].Out)
		ins += len(txs[i].In)
	}
	c.sources = make([]source, 0, ins-1)
	c.spent = newBitset(outs)
	outside, inside := newOutpoints(ins-1), newOutpoints(len(txs))
	inside.add(&bitcoin.OutPoint{TxID: txs[0].TxID()})
	for i := 1; i < len(txs); i++ {
		for j := range txs[i].In {
			c.sources = append(c.sources, c.source(&txs[i].In[j].PrevOut, inside, outside))
		}
		// Two equal transactions keep their first place: the second finds its inputs spent.
		if at, fresh := inside.add(&bitcoin.OutPoint{TxID: txs[i].TxID()}); !fresh {
			inside.list = append(inside.list, inside.list[at])
		}
	}
	c.outside = outside.list
}

// source resolves one input against the transactions before it and the outside.
func (c *Candidate) source(out *bitcoin.OutPoint, inside, outside *outpoints) source {
	tx := inside.find(&bitcoin.OutPoint{TxID: out.TxID})
	if tx < 0 {
		at, fresh := outside.add(out)
		if !fresh {
			return sourceMissing
		}
		return source(at)
	}
	outs := c.block.Txs[tx].Out
	if int64(out.Index) >= int64(len(outs)) || script.IsUnspendable(outs[out.Index].Script) {
		return sourceMissing
	}
	if number := c.firstOut[tx] + out.Index; !c.spent.set(number) {
		return sourceMissing
	}
	return sourceInside + source(tx)
}

// bitset is a set of small numbers.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) has(n uint32) bool { return b[n/64]>>(n%64)&1 != 0 }

// set adds n and reports whether that is new.
func (b bitset) set(n uint32) bool {
	if b.has(n) {
		return false
	}
	b[n/64] |= 1 << (n % 64)
	return true
}
