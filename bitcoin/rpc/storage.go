package rpc

import (
	"context"
	"fmt"
	"math"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

func (a *API) storageMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "blockchain", Name: "pruneblockchain", Params: "height:I", Run: a.pruneBlockchain,
			Doc: "Attempts to delete block and undo data up to a specified height or timestamp, if eligible " +
				"for pruning. Requires -prune to be enabled at startup."},
		{Category: "blockchain", Name: "verifychain", Params: "checklevel:I? nblocks:I?",
			Run: a.verifyChain, Doc: "Verifies blockchain database."},
		{Category: "blockchain", Name: "dumptxoutset", Params: "path:s type:s? options:o? options.rollback:v?",
			Usage: `"path" ( "type" {"rollback":n,...} )`,
			Run:   a.dumpTxOutSet, Doc: "Write the serialized UTXO set to a file, as of the tip (type " +
				"latest) or of a block before it (rollback), to which the node goes back meanwhile."},
		{Category: "blockchain", Name: "loadtxoutset", Params: "path:s", Run: a.loadTxOutSet,
			Doc: "Load the serialized UTXO set from a file: the node goes on from there at once, and " +
				"validates what comes before it in the background."},
	}
}

// setPruning tells in an answer whether blocks are deleted, and from which height on they are here.
func (a *API) setPruning(o *object) {
	target, _ := a.chain.Pruning()
	o.Set("pruned", target != 0)
	if target == 0 {
		return
	}
	first := bitcoin.Height(0)
	if last, pruned := a.chain.PruneHeight(); pruned {
		first = last + 1
	}
	o.Set("pruneheight", first)
	o.Set("automatic_pruning", target != chain.PruneManual)
	if target != chain.PruneManual {
		o.Set("prune_target_size", target)
	}
}

const (
	// leastTime is what tells the time of a block from its height.
	leastTime = 1_000_000_000
	// timeWindow is by how many seconds a block's time may be before that of one under it.
	timeWindow = 2 * 60 * 60
)

func (a *API) pruneBlockchain(ctx context.Context, c call) (any, error) {
	if target, _ := a.chain.Pruning(); target == 0 {
		return nil, fail(jsonrpc.MiscError, "Cannot prune blocks because node is not in prune mode.")
	}
	height := c.Int(0, 0)
	if height < math.MinInt32 || height > math.MaxInt32 {
		return nil, fail(jsonrpc.MiscError, "JSON integer out of range")
	}
	if height < 0 {
		return nil, fail(jsonrpc.InvalidParameter, "Negative block height.")
	}
	if height > leastTime {
		e, ok := a.chain.EarliestAtLeast(height - timeWindow)
		if !ok {
			return nil, fail(jsonrpc.InvalidParameter,
				"Could not find block with at least the specified timestamp.")
		}
		height = int64(e.Height)
	}
	tip := a.chain.Tip().Height
	switch {
	case tip < a.chain.PruneAfterHeight():
		return nil, fail(jsonrpc.MiscError, "Blockchain is too short for pruning.")
	case height > int64(tip):
		return nil, fail(jsonrpc.InvalidParameter, "Blockchain is shorter than the attempted prune height.")
	case height > int64(tip)-chain.MinBlocksToKeep:
		a.log.Debug("Attempt to prune blocks close to the tip.  Retaining the minimum number of blocks.",
			"cat", "rpc")
		height = int64(tip) - chain.MinBlocksToKeep
	}
	if err := a.chain.PruneTo(ctx, bitcoin.Height(height)); err != nil {
		return nil, fail(jsonrpc.DatabaseError, "%v", err)
	}
	if last, pruned := a.chain.PruneHeight(); pruned {
		return last, nil
	}
	return -1, nil
}

// The defaults of verifychain (Bitcoin Core validation.h).
const (
	defaultCheckLevel  = 3
	defaultCheckBlocks = 6
)

func (a *API) verifyChain(ctx context.Context, c call) (any, error) {
	level, blocks := c.Int(0, defaultCheckLevel), c.Int(1, defaultCheckBlocks)
	for _, n := range []int64{level, blocks} {
		if n < math.MinInt32 || n > math.MaxInt32 {
			return nil, fail(jsonrpc.MiscError, "JSON integer out of range")
		}
	}
	result, err := a.chain.Verify(ctx, int(level), int(blocks), nil)
	if err != nil {
		return nil, fmt.Errorf("verify the chain: %w", err)
	}
	return result == chain.VerifySound, nil
}
