// Package miner makes blocks: it chooses transactions from the mempool, puts a coinbase before them, and,
// where the difficulty allows, finds the proof of work.
//
// A Template is a block on top of the tip that is valid but for its proof of work (Bitcoin Core
// node/miner.cpp). Whoever mines with other software asks for one by getblocktemplate.
//
// Which transactions pay best is the mempool's to say; whether the block is valid, package consensus's.
package miner

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/script"
)

const (
	// DefaultReservedWeight is kept free for header and coinbase (Core's DEFAULT_BLOCK_RESERVED_WEIGHT).
	DefaultReservedWeight = 8000
	// coinbaseSigOps are kept free for the signature checks of the coinbase's outputs.
	coinbaseSigOps = 400
)

// Options say what a block is to be like.
type Options struct {
	MaxWeight      int             // 0: consensus.MaxBlockWeight
	ReservedWeight int             // 0: DefaultReservedWeight
	MinRate        mempool.FeeRate // chunks that pay less are left out; negative: none (Core's -blockmintxfee)
	Version        int32           // 0: what the deployments ask for
	Coinbase       []byte          // output script of the reward
	NoTxs          bool            // none from the mempool
}

// Template is a block to be mined.
type Template struct {
	Block *bitcoin.Block
	// Of each transaction, coinbase apart.
	Fees       []bitcoin.Amount
	SigOpsCost []int
	Weight     int64 // with what is reserved for header and coinbase
	// Commitment is the script of the coinbase output that commits to the witnesses.
	Commitment []byte
	State      consensus.State // of the tip that it follows
}

// NewTemplate returns a block that follows the tip, with the time now.
func NewTemplate(c *chain.Chain, opts Options, now time.Time) (*Template, error) {
	if opts.MaxWeight == 0 {
		opts.MaxWeight = consensus.MaxBlockWeight
	}
	if opts.ReservedWeight == 0 {
		opts.ReservedWeight = DefaultReservedWeight
	}
	t := &Template{Block: new(bitcoin.Block), Weight: int64(opts.ReservedWeight)}
	t.Block.Txs = make([]bitcoin.Tx, 1)
	var fees bitcoin.Amount
	c.Mempool(func(p *mempool.Pool, tip *consensus.State) {
		t.State = *tip
		if opts.NoTxs {
			return
		}
		for _, e := range p.Select(mempool.Room{
			Weight:     int64(opts.MaxWeight - opts.ReservedWeight),
			SigOpsCost: consensus.MaxBlockSigOpsCost - coinbaseSigOps,
			MinRate:    max(opts.MinRate, 0),
			Height:     tip.Height + 1, Median: tip.MedianTimePast(),
		}) {
			t.Block.Txs = append(t.Block.Txs, *e.Tx)
			t.Fees = append(t.Fees, e.Fee)
			t.SigOpsCost = append(t.SigOpsCost, e.SigOpsCost)
			t.Weight += int64(e.Tx.Weight())
			fees += e.Fee
		}
	})
	net, height := c.Network(), t.State.Height+1
	h := &t.Block.Header
	h.Version = opts.Version
	if h.Version == 0 {
		h.Version = t.State.BlockVersion()
	}
	h.PrevBlock = t.State.Hash
	UpdateTime(h, &t.State, now)
	t.Block.Txs[0] = coinbase(height, fees+consensus.Subsidy(net, height), opts.Coinbase)
	t.Commit(net)
	return t, nil
}

// UpdateTime sets a header's time to now, or to the earliest that is allowed, and the difficulty that
// follows from it.
func UpdateTime(h *bitcoin.Header, s *consensus.State, now time.Time) {
	h.Time = max(uint32(now.Unix()), MinTime(s))
	h.Bits = s.NextBits(h.Time)
}

// MinTime returns the earliest time that a header after a block may have. What BIP 94 asks of the first
// block of a period, not to be much older than the one before, is kept on all networks, lest a network
// that adopts it forks off (Bitcoin Core node/miner.cpp, GetMinimumTime).
func MinTime(s *consensus.State) uint32 {
	least := s.MedianTimePast() + 1
	if (s.Height+1)%s.Network.RetargetInterval() == 0 && s.Header.Time > maxTimeWarp {
		least = max(least, s.Header.Time-maxTimeWarp)
	}
	return least
}

// maxTimeWarp is how many seconds the first block of a period may be older than the one before (BIP 94).
const maxTimeWarp = 600

// coinbase returns a coinbase for a height that pays the reward to a script. Its lock time keeps it from
// being the same as an earlier one for all time.
func coinbase(height bitcoin.Height, reward bitcoin.Amount, to []byte) bitcoin.Tx {
	return bitcoin.Tx{
		Version: 2,
		In: []bitcoin.TxIn{{
			PrevOut:  bitcoin.OutPoint{Index: math.MaxUint32},
			Script:   append(script.AppendInt(nil, int64(height)), byte(script.Op0)),
			Sequence: math.MaxUint32 - 1,
		}},
		Out:      []bitcoin.TxOut{{Value: reward, Script: to}},
		LockTime: uint32(height - 1),
	}
}

// Commit puts the commitment to the witnesses into the coinbase, in place of one that is there, and the
// Merkle root into the header. What the commitment is made with stands in the coinbase's witness, where
// there may be one (Bitcoin Core validation.cpp, GenerateCoinbaseCommitment).
func (t *Template) Commit(net *bitcoin.Network) {
	cb := t.Block.Txs[0].Clone()
	if i := consensus.WitnessCommitment(cb); i >= 0 {
		cb.Out = append(cb.Out[:i], cb.Out[i+1:]...)
	}
	t.Block.Txs[0] = *cb
	t.Commitment = consensus.CommitmentScript(consensus.CommitmentHash(t.Block, [32]byte{}))
	cb.Out = append(cb.Out, bitcoin.TxOut{Script: t.Commitment})
	if t.State.Height+1 >= net.SegwitHeight {
		cb.In[0].Witness = [][]byte{make([]byte, 32)}
	}
	t.Block.Txs[0] = *cb
	t.Block.Header.MerkleRoot, _ = t.Block.MerkleRoot()
}

// ErrTipChanged says that the tip moved on while a block was judged on top of it.
var ErrTipChanged = errors.New("the tip changed")

// Check judges a block on top of the tip by all rules but its proof of work, and those that skip leaves
// out; it changes nothing (Core's TestBlockValidity). A block that is not valid gives a *consensus.Error.
func Check(ctx context.Context, c *chain.Chain, b *bitcoin.Block, skip consensus.Skip,
	now time.Time) error {
	tip := c.Tip()
	state, ok := c.State(tip.Hash)
	if !ok || b.Header.PrevBlock != tip.Hash {
		return ErrTipChanged
	}
	if err := consensus.CheckHeaderAt(state, &b.Header, now); err != nil {
		return err
	}
	candidate, err := consensus.NewCandidate(c.Network(), b, skip)
	if err != nil {
		return err
	}
	if err := consensus.CheckBlockAt(state, b); err != nil {
		return err
	}
	_, diff, err := consensus.Connect(state, candidate, tipView{c})
	if err == nil {
		err = consensus.RunChecks(ctx, 1, diff.Checks())
	}
	if c.Tip().Hash != tip.Hash {
		return ErrTipChanged
	}
	return err
}

// tipView is what the chain has at its tip.
type tipView struct{ c *chain.Chain }

func (v tipView) Coins(outs []bitcoin.OutPoint, coins []consensus.Coin) (err error) {
	for i := range outs {
		if coins[i], err = v.c.Coin(outs[i], false); err != nil {
			return err
		}
	}
	return nil
}

func (v tipView) MedianTimePast(h bitcoin.Height) (uint32, error) {
	e, ok := v.c.AtHeight(h)
	if !ok {
		return 0, fmt.Errorf("no block at height %d", h)
	}
	return e.Median, nil
}

// Solve looks for a nonce with which the header's hash meets its target, with at most so many tries, which
// it counts down; found is false where they were used up or the context ended.
func Solve(ctx context.Context, net *bitcoin.Network, h *bitcoin.Header, tries *uint64) (found bool) {
	for *tries > 0 {
		if bitcoin.MeetsTarget(h.Hash(), h.Bits, net.PowLimit) {
			return true
		}
		if h.Nonce == math.MaxUint32 || h.Nonce%4096 == 0 && ctx.Err() != nil {
			return false
		}
		h.Nonce++
		*tries--
	}
	return false
}
