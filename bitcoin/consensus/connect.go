package consensus

import (
	"fmt"
	"iter"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// Diff is what a block does to the set of coins: those of Spent leave it, then those of Created
// enter it. Coins that the block itself creates and spends are in neither.
type Diff struct {
	Undo       Spent          // what the block's inputs spend, for Disconnect
	Fees       bitcoin.Amount // of all transactions
	SigOpsCost int

	candidate *Candidate
	height    bitcoin.Height
	flags     script.Flags
}

// Connect judges a block as the successor of a State by the coins that it spends, and returns the
// State after it and what it changes (Bitcoin Core validation.cpp, ConnectBlock). The block must
// have passed CheckHeader and CheckBlockAt. Its scripts have not been run: see Diff.Checks.
func Connect(s State, c *Candidate, view View) (State, *Diff, error) {
	if c.block.Header.PrevBlock != s.Hash {
		return State{}, nil, &Error{KindMissingPrev, "prev-blk-not-found", ""}
	}
	height := s.Height + 1
	diff := &Diff{candidate: c, height: height, flags: ScriptFlags(s.Network, height, c.hash)}
	if err := checkOverwrite(&s, c, view); err != nil {
		return State{}, nil, err
	}
	if err := diff.fetch(view); err != nil {
		return State{}, nil, err
	}
	if err := diff.checkTransactions(&s, view); err != nil {
		return State{}, nil, err
	}
	paid, limit := sum(c.block.Txs[0].Out), diff.Fees+Subsidy(s.Network, height)
	if paid > limit {
		return State{}, nil, invalid("bad-cb-amount",
			"coinbase pays too much (actual=%d vs limit=%d)", paid, limit)
	}
	return s.Apply(&c.block.Header, c.hash), diff, nil
}

// fetch fills in the coins that inputs spend. Where there is none the zero Coin stays: it is for
// the check of that transaction to complain, since an earlier one may be worse.
func (d *Diff) fetch(view View) error {
	c := d.candidate
	coins := make([]Coin, len(c.outside))
	if err := view.Coins(c.outside, coins); err != nil {
		return fmt.Errorf("coins of block %v: %w", c.hash, err)
	}
	d.Undo = NewSpent(len(c.sources))
	for tx, first := range c.inputs() {
		for i := range c.block.Txs[tx].In {
			switch src := c.sources[first+i]; {
			case src == sourceMissing:
			case src < sourceInside:
				d.Undo.Set(first+i, &coins[src])
			default:
				creator := int(src - sourceInside)
				out := c.block.Txs[tx].In[i].PrevOut.Index
				d.Undo.Outs[first+i] = c.block.Txs[creator].Out[out]
				d.Undo.Origins[first+i] = Origin{Height: d.height, Coinbase: creator == 0}
			}
		}
	}
	return nil
}

// inputs yields the number of each transaction but the coinbase, and that of its first input among
// all.
func (c *Candidate) inputs() iter.Seq2[int, int] {
	return func(yield func(tx, first int) bool) {
		first := 0
		for tx := 1; tx < len(c.block.Txs); tx++ {
			if !yield(tx, first) {
				return
			}
			first += len(c.block.Txs[tx].In)
		}
	}
}

// checkTransactions judges the transactions in their order, and adds up fees and signature
// operations.
func (d *Diff) checkTransactions(s *State, view View) error {
	d.SigOpsCost = int(d.candidate.sigOps[0]) * bitcoin.WitnessScale
	median := s.MedianTimePast()
	for i, first := range d.candidate.inputs() {
		tx := &d.candidate.block.Txs[i]
		spent := d.Undo.Part(first, first+len(tx.In))
		if err := d.checkAmounts(tx, spent); err != nil {
			return err
		}
		if d.height >= s.Network.CSVHeight {
			lock, err := SequenceLocks(tx, spent.Origins, view)
			if err != nil {
				return fmt.Errorf("block %v: %w", d.candidate.hash, err)
			}
			if !lock.Allows(d.height, median) {
				return invalid("bad-txns-nonfinal",
					"contains a non-BIP68-final transaction %v", tx.TxID())
			}
		}
		d.SigOpsCost += int(d.candidate.sigOps[i]) * bitcoin.WitnessScale
		d.SigOpsCost += inputSigOpsCost(tx, spent.Outs, d.flags)
		if d.SigOpsCost > MaxBlockSigOpsCost {
			return invalid("bad-blk-sigops", "too many sigops")
		}
	}
	return nil
}

func (d *Diff) checkAmounts(tx *bitcoin.Tx, spent Spent) error {
	fee, err := CheckInputs(tx, spent, d.height)
	if err != nil {
		e := err.(*Error) // of whatever kind outside a block: inside it breaks a rule
		return invalid(e.Reason, "%s in transaction %v", e.Debug, tx.TxID())
	}
	if d.Fees += fee; !d.Fees.Valid() {
		return invalid("bad-txns-accumulated-fee-outofrange",
			"accumulated fee in the block out of range")
	}
	return nil
}

// Created returns the coins that the block leaves behind, each with its outpoint. Outputs that
// nobody can spend never become coins.
func (d *Diff) Created() iter.Seq2[bitcoin.OutPoint, Coin] {
	return func(yield func(bitcoin.OutPoint, Coin) bool) {
		c := d.candidate
		for i := range c.block.Txs {
			tx, id := &c.block.Txs[i], c.block.Txs[i].TxID()
			for j := range tx.Out {
				if c.spent.has(c.firstOut[i]+uint32(j)) || script.IsUnspendable(tx.Out[j].Script) {
					continue
				}
				coin := Coin{tx.Out[j], Origin{d.height, i == 0}}
				if !yield(bitcoin.OutPoint{TxID: id, Index: uint32(j)}, coin) {
					return
				}
			}
		}
	}
}

// Spent returns the coins from before the block that it spends, each with its outpoint.
func (d *Diff) Spent() iter.Seq2[bitcoin.OutPoint, Coin] {
	return spentOutside(d.candidate, d.Undo)
}

func spentOutside(c *Candidate, undo Spent) iter.Seq2[bitcoin.OutPoint, Coin] {
	return func(yield func(bitcoin.OutPoint, Coin) bool) {
		for i, src := range c.sources {
			if src < sourceInside && !yield(c.outside[src], undo.Coin(i)) {
				return
			}
		}
	}
}

// inputSigOpsCost returns the cost of the signature operations that show only with the coins: in
// redeem scripts and in witnesses. With the legacy ones, which a Candidate knows, it is
// script.SigOpCost.
func inputSigOpsCost(tx *bitcoin.Tx, spent []bitcoin.TxOut, flags script.Flags) (cost int) {
	for i := range tx.In {
		in, to := &tx.In[i], spent[i].Script
		if flags&script.VerifyP2SH != 0 && script.IsPayToScriptHash(to) {
			cost += script.SpentSigOps(in.Script, to) * bitcoin.WitnessScale
		}
		cost += script.WitnessSigOps(in.Script, to, in.Witness, flags)
	}
	return cost
}
