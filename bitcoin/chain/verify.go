package chain

import (
	"context"
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// Verification is what a verification of the last blocks came to.
type Verification uint8

// The outcomes (Bitcoin Core validation.h, VerifyDBResult).
const (
	VerifySound     Verification = iota // everything that was looked at is in order
	VerifyCorrupt                       // something is not; the log says what
	VerifyNoData                        // sound as far as there are data
	VerifyNoMemory                      // sound, but the coins did not fit into the cache
	VerifyCancelled                     // broken off
)

// Verify looks again at the last blocks of the best chain, with a thoroughness from 0 to 4: read them
// (0), check them by themselves (1), read their undo data (2), take them back in memory (3), and
// connect them again, scripts and all (4). blocks of 0 are all (Bitcoin Core validation.cpp, VerifyDB).
// The chain stands still meanwhile. progress, which may be nil, is told of each percent.
func (c *Chain) Verify(
	ctx context.Context, level, blocks int, progress func(percent int),
) (Verification, error) {
	return c.verify(ctx, level, blocks, progress, func() *chainstate { return c.main })
}

// VerifyHistory is Verify for the blocks that are validated after a snapshot of later coins was loaded; where
// there is none, all is in order.
func (c *Chain) VerifyHistory(ctx context.Context, level, blocks int) (Verification, error) {
	return c.verify(ctx, level, blocks, nil, func() *chainstate { return c.history })
}

func (c *Chain) verify(
	ctx context.Context, level, blocks int, progress func(percent int), which func() *chainstate,
) (Verification, error) {
	v := &verifier{c: c, ctx: ctx, level: min(max(level, 0), 4), progress: progress}
	result := VerifySound
	err := c.alone(ctx, func() error {
		if v.s = which(); v.s == nil {
			return nil
		}
		c.mu.Lock()
		v.active = v.s.active // not changed while we are the mover
		c.mu.Unlock()
		height := len(v.active) - 1
		if v.blocks = blocks; blocks <= 0 || blocks > height {
			v.blocks = height
		}
		var err error
		if height > 0 {
			result, err = v.run()
		}
		return err
	})
	if ctx.Err() != nil {
		return VerifyCancelled, nil
	}
	return result, err
}

// verifier goes through blocks for Verify.
type verifier struct {
	c        *Chain
	ctx      context.Context
	level    int
	blocks   int
	progress func(int)
	s        *chainstate
	active   []node

	overlay  map[bitcoin.OutPoint]consensus.Coin // coins that differ; the zero Coin is spent
	size     int64                               // octets of it, roughly
	percent  int
	reported int
	good     int // transactions
	unclean  int // height of the first block whose coins were not as it left them
	noMemory bool
	noData   bool
}

func (v *verifier) run() (Verification, error) {
	c, tip := v.c, len(v.active)-1
	c.cfg.Log.Info(fmt.Sprintf("Verifying last %d blocks at level %d", v.blocks, v.level))
	c.cfg.Log.Info("Verification progress: 0%")
	v.overlay = make(map[bitcoin.OutPoint]consensus.Coin)
	last := tip
	for height := tip; height > tip-v.blocks && height > 0; height-- {
		if v.ctx.Err() != nil {
			return VerifyCancelled, nil
		}
		v.report(tip-height, v.blocks)
		sound, err := v.back(height)
		if err != nil || !sound {
			return VerifyCorrupt, err
		}
		if v.noData {
			break
		}
		last = height
	}
	if v.unclean > 0 {
		c.cfg.Log.Error(fmt.Sprintf("Verification error: coin database inconsistencies found "+
			"(last %d blocks, %d good transactions before that)", tip-v.unclean+1, v.good))
		return VerifyCorrupt, nil
	}
	if v.noMemory {
		c.cfg.Log.Warn("Skipped verification of level >=3 (insufficient database cache size). " +
			"Consider increasing -dbcache.")
	}
	if v.level >= 4 && !v.noMemory {
		for height := last; height <= tip; height++ {
			if v.ctx.Err() != nil {
				return VerifyCancelled, nil
			}
			v.report(v.blocks+height-last, v.blocks)
			if sound, err := v.forth(height); err != nil || !sound {
				return VerifyCorrupt, err
			}
		}
	}
	c.cfg.Log.Info(fmt.Sprintf("Verification: No coin database inconsistencies in last %d blocks "+
		"(%d transactions)", tip-last+1, v.good))
	switch {
	case v.noMemory:
		return VerifyNoMemory, nil
	case v.noData:
		return VerifyNoData, nil
	}
	return VerifySound, nil
}

func (v *verifier) report(done, of int) {
	share := 100
	if v.level >= 4 {
		share = 50
	}
	percent := min(max(done*share/of, 1), 99)
	if v.progress != nil && percent != v.percent {
		v.progress(percent)
	}
	v.percent = percent
	if v.reported < percent/10 {
		v.c.cfg.Log.Info(fmt.Sprintf("Verification progress: %d%%", percent))
		v.reported = percent / 10
	}
}

// wrong logs what is wrong with a block.
func (v *verifier) wrong(what string, height int, hash bitcoin.Hash, why error) (sound bool, err error) {
	text := fmt.Sprintf("Verification error: %s at %d, hash=%v", what, height, hash)
	if why != nil {
		text += fmt.Sprintf(" (%v)", why)
	}
	v.c.cfg.Log.Error(text)
	return false, nil
}

// back reads a block and takes it back.
func (v *verifier) back(height int) (sound bool, err error) {
	c, n := v.c, v.active[height]
	c.mu.Lock()
	status, body, hash := c.tree.at(n).status, *c.tree.body(n), c.tree.at(n).hash
	c.mu.Unlock()
	if status&blockstore.HaveData == 0 && (c.cfg.Prune != 0 || v.s.base != none) ||
		n == v.s.base && status&blockstore.HaveUndo == 0 {
		c.cfg.Log.Info(fmt.Sprintf("Block verification stopping at height %d (no data). This could be "+
			"due to pruning or use of an assumeutxo snapshot.", height))
		v.noData = true
		return true, nil
	}
	raw, err := c.store.ReadBlock(blockstore.Pos{File: body.file, Offset: body.data}, hash)
	if err != nil {
		return v.wrong("ReadBlock failed", height, hash, err)
	}
	block, err := bitcoin.ParseBlock(raw)
	if err != nil {
		return v.wrong("ReadBlock failed", height, hash, err)
	}
	if v.level < 1 {
		return true, nil
	}
	candidate, err := consensus.NewCandidate(c.cfg.Network, block, 0)
	if err != nil {
		return v.wrong("found bad block", height, hash, err)
	}
	if v.level < 2 || status&blockstore.HaveUndo == 0 {
		return true, nil
	}
	undo, err := c.store.ReadUndo(blockstore.Pos{File: body.file, Offset: body.undo},
		block.Header.PrevBlock)
	if err != nil {
		return v.wrong("found bad undo data", height, hash, err)
	}
	if v.level < 3 {
		return true, nil
	}
	if used, limit := v.s.coins.CacheUsage(); v.noMemory || used+v.size > limit {
		v.noMemory = true
		return true, nil
	}
	c.mu.Lock()
	state := c.state(n)
	c.mu.Unlock()
	reversal, err := consensus.Disconnect(state, candidate, undo, v.view(n))
	if err != nil { // the undo data are not the block's, or the coins cannot be read
		return v.wrong("irrecoverable inconsistency in block data", height, hash, err)
	}
	for out := range reversal.Removed() {
		v.change(out, consensus.Coin{})
	}
	for out, coin := range reversal.Restored() {
		v.change(out, coin)
	}
	if !reversal.Clean {
		v.good, v.unclean = 0, height
	} else {
		v.good += len(block.Txs)
	}
	return true, nil
}

// forth connects a block again that was taken back.
func (v *verifier) forth(height int) (sound bool, err error) {
	c, n := v.c, v.active[height]
	hash := c.hashOf(n)
	candidate, err := c.candidate(n)
	if err != nil {
		return v.wrong("ReadBlock failed", height, hash, err)
	}
	c.mu.Lock()
	before := c.state(c.tree.at(n).parent)
	c.mu.Unlock()
	_, diff, err := consensus.Connect(before, candidate, v.view(n))
	if err == nil {
		err = c.runner.Run(v.ctx, diff.Checks())
	}
	if invalid := (*consensus.Error)(nil); errors.As(err, &invalid) {
		return v.wrong("found unconnectable block", height, hash, err)
	}
	if err != nil {
		return false, err
	}
	for out := range diff.Spent() {
		v.change(out, consensus.Coin{})
	}
	for out, coin := range diff.Created() {
		v.change(out, coin)
	}
	return true, nil
}

// change notes what becomes of a coin.
func (v *verifier) change(out bitcoin.OutPoint, coin consensus.Coin) {
	const entry = 150 // octets of a map's entry
	if old, ok := v.overlay[out]; ok {
		v.size -= int64(len(old.Out.Script)) + entry
	}
	v.overlay[out] = coin
	v.size += int64(len(coin.Out.Script)) + entry
}

func (v *verifier) view(on node) consensus.View {
	return &verifyView{view{c: v.c, s: v.s, on: on}, v.overlay}
}

// verifyView is the coins of the tip with those of the verifier over them.
type verifyView struct {
	view
	overlay map[bitcoin.OutPoint]consensus.Coin
}

// Coins is as consensus.View has it.
func (v *verifyView) Coins(outs []bitcoin.OutPoint, coins []consensus.Coin) error {
	if err := v.s.coins.Peek(outs, coins); err != nil {
		return err
	}
	for i := range outs {
		if coin, ok := v.overlay[outs[i]]; ok {
			coins[i] = coin
		}
	}
	return nil
}
