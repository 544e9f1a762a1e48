package consensus

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// Reversal is what taking a block back does to the set of coins: those of Removed leave it, then
// those of Restored enter it.
type Reversal struct {
	// Clean is false where the set was not as the block had left it. The reversal puts right what
	// it touches, but something else has been wrong before.
	Clean bool

	candidate *Candidate
	undo      Spent
}

// Disconnect returns what takes back the block of a State, given the Undo of its Diff and the coins
// as the block left them (Bitcoin Core validation.cpp, DisconnectBlock). The State before is for
// the caller to have kept, or to gain by applying headers. An error means that the undo data are
// not those of the block.
func Disconnect(s State, c *Candidate, undo Spent, view View) (*Reversal, error) {
	if c.hash != s.Hash {
		return nil, fmt.Errorf("disconnect block %v: the tip is %v", c.hash, s.Hash)
	}
	if len(undo.Outs) != len(c.sources) || len(undo.Origins) != len(c.sources) {
		return nil, fmt.Errorf("disconnect block %v: undo data of %d inputs, the block has %d",
			c.hash, len(undo.Outs), len(c.sources))
	}
	for i := range undo.Origins {
		if undo.Origins[i].IsSpent() || c.sources[i] == sourceMissing {
			return nil, fmt.Errorf("disconnect block %v: undo data lack the coin of input %d",
				c.hash, i)
		}
	}
	r := &Reversal{candidate: c, undo: undo}
	outputs, err := r.outputsThere(&s, view)
	if err != nil {
		return nil, err
	}
	inputs, err := r.inputsGone(view)
	if err != nil {
		return nil, err
	}
	r.Clean = outputs && r.insideMatches(s.Height) && inputs
	return r, nil
}

// outputsThere reports whether the coins that the block created are there as it created them, and
// those that it also spent are not. The two coinbases that later ones overwrote may be missing.
func (r *Reversal) outputsThere(s *State, view View) (bool, error) {
	c := r.candidate
	outs := c.created()
	coins := make([]Coin, len(outs))
	if err := view.Coins(outs, coins); err != nil {
		return false, fmt.Errorf("outputs of block %v: %w", c.hash, err)
	}
	clean, next := true, 0
	for i := range c.block.Txs {
		excepted := i == 0 && IsOverwritten(s.Height, s.Hash)
		for j := range c.block.Txs[i].Out {
			out := &c.block.Txs[i].Out[j]
			if script.IsUnspendable(out.Script) {
				continue
			}
			coin := &coins[next]
			next++
			if c.spent.has(c.firstOut[i] + uint32(j)) {
				clean = clean && coin.IsSpent()
			} else {
				clean = clean && (excepted || coin.equal(out, Origin{s.Height, i == 0}))
			}
		}
	}
	return clean, nil
}

// insideMatches reports whether what the undo data say of coins that the block created and spent is
// what the block says.
func (r *Reversal) insideMatches(height bitcoin.Height) bool {
	c := r.candidate
	for tx, first := range c.inputs() {
		for i := range c.block.Txs[tx].In {
			src := c.sources[first+i]
			if src < sourceInside {
				continue
			}
			creator := int(src - sourceInside)
			out := &c.block.Txs[creator].Out[c.block.Txs[tx].In[i].PrevOut.Index]
			coin := r.undo.Coin(first + i)
			if !coin.equal(out, Origin{height, creator == 0}) {
				return false
			}
		}
	}
	return true
}

// inputsGone reports whether the coins that are to be restored are missing, as they must be.
func (r *Reversal) inputsGone(view View) (bool, error) {
	coins := make([]Coin, len(r.candidate.outside))
	if err := view.Coins(r.candidate.outside, coins); err != nil {
		return false, fmt.Errorf("coins of block %v: %w", r.candidate.hash, err)
	}
	for i := range coins {
		if !coins[i].IsSpent() {
			return false, nil
		}
	}
	return true, nil
}

func (c *Coin) equal(out *bitcoin.TxOut, origin Origin) bool {
	return c.Origin == origin && c.Out.Value == out.Value && bytes.Equal(c.Out.Script, out.Script)
}

// Removed returns the outpoints of the coins that the block left behind.
func (r *Reversal) Removed() iter.Seq[bitcoin.OutPoint] {
	return func(yield func(bitcoin.OutPoint) bool) {
		d := Diff{candidate: r.candidate}
		for out := range d.Created() {
			if !yield(out) {
				return
			}
		}
	}
}

// Restored returns the coins from before the block that it had spent, each with its outpoint.
func (r *Reversal) Restored() iter.Seq2[bitcoin.OutPoint, Coin] {
	return spentOutside(r.candidate, r.undo)
}
