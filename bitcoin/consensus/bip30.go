package consensus

import (
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// bip34ImpliesBIP30 is the height up to which BIP 34 makes transactions with an equal txid
// impossible on the known chains: the coinbases of some blocks from before it begin with greater
// heights by chance, and the first of these that could be repeated is this one (Bitcoin Core
// validation.cpp, BIP34_IMPLIES_BIP30_LIMIT).
const bip34ImpliesBIP30 = 1_983_702

// Two pairs of blocks of 2010 have equal coinbases. In each the later one, which BIP 30 would
// forbid, overwrote the coin of the earlier.
const (
	overwritten1 = "00000000000271a2dc26e7667f8419f2e15416dc6955e5a6c6cdf3f2574dd08e" // 91,722
	overwritten2 = "00000000000af0aed4792b1acee3d966af36cf5def14935db8de83d6f9306f2f" // 91,812
	overwriting2 = "00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec" // 91,842
	overwriting1 = "00000000000743f190a18c5577a3c2d2a1f610ae9601ac046a38084ccb7cd721" // 91,880
)

// IsOverwriting reports whether the block is one of the two that BIP 30 excepts.
func IsOverwriting(height bitcoin.Height, hash bitcoin.Hash) bool {
	return height == 91_842 && hash.String() == overwriting2 ||
		height == 91_880 && hash.String() == overwriting1
}

// IsOverwritten reports whether a later coinbase of the main chain took the place of this block's,
// so that its coin can never be spent and is missing when the block is taken back.
func IsOverwritten(height bitcoin.Height, hash bitcoin.Hash) bool {
	return height == 91_722 && hash.String() == overwritten1 ||
		height == 91_812 && hash.String() == overwritten2
}

// checkOverwrite refuses a transaction with outputs that are coins already (BIP 30). Where BIP 34
// holds it cannot happen, which saves looking for each output; that is known for the chains whose
// block at BIP34Height is known, not for any chain that activates BIP 34.
func checkOverwrite(s *State, c *Candidate, view View) error {
	height := s.Height + 1
	if height < bip34ImpliesBIP30 && (s.bip34 || IsOverwriting(height, c.hash)) {
		return nil
	}
	outs := c.created()
	coins := make([]Coin, len(outs))
	if err := view.Coins(outs, coins); err != nil {
		return fmt.Errorf("outputs of block %v: %w", c.hash, err)
	}
	for i := range coins {
		if !coins[i].IsSpent() {
			return invalid("bad-txns-BIP30", "tried to overwrite transaction")
		}
	}
	return nil
}

// created returns the outpoints of all outputs that can be spent.
func (c *Candidate) created() []bitcoin.OutPoint {
	var outs []bitcoin.OutPoint
	for i := range c.block.Txs {
		id := c.block.Txs[i].TxID()
		for j := range c.block.Txs[i].Out {
			if !script.IsUnspendable(c.block.Txs[i].Out[j].Script) {
				outs = append(outs, bitcoin.OutPoint{TxID: id, Index: uint32(j)})
			}
		}
	}
	return outs
}
