package rpc

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

// dumpTxOutSet writes all coins as of the tip, or as of a block before it, to which the chain goes back for
// that long (Bitcoin Core rpc/blockchain.cpp, dumptxoutset).
func (a *API) dumpTxOutSet(ctx context.Context, c call) (any, error) {
	target, err := a.dumpTarget(c)
	if err != nil {
		return nil, err
	}
	path := c.String(0, "")
	if !filepath.IsAbs(path) {
		path = filepath.Join(a.cfg.DataDir, path)
	}
	// What was broken off is not to be taken for a whole one.
	unfinished := path + ".incomplete"
	if _, err := os.Stat(path); err == nil {
		return nil, fail(jsonrpc.InvalidParameter,
			"%s already exists. If you are sure this is what you want, move it out of the way first", path)
	}
	file, err := os.OpenFile(unfinished, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fail(jsonrpc.InvalidParameter, "Couldn't open file %s for writing.", unfinished)
	}
	defer file.Close()
	back, snapshot, err := a.snapshotAt(ctx, target)
	if err != nil {
		return nil, err
	}
	back()
	defer snapshot.Close()
	dumped, err := snapshot.Dump(ctx, file)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(unfinished, path)
	}
	if err != nil {
		return nil, fail(jsonrpc.MiscError, "Error writing %s: %v", unfinished, err)
	}
	return object{{"coins_written", dumped.Coins}, {"base_hash", target.Hash},
		{"base_height", target.Height}, {"path", path}, {"txoutset_hash", dumped.Hash},
		{"nchaintx", target.ChainTxs}}, nil
}

// dumpTarget reads which block a dump is to be of.
func (a *API) dumpTarget(c call) (chain.Entry, error) {
	kind := c.String(1, "")
	if o, ok := c.Any(2).(object); ok {
		for _, field := range o {
			if field.Name != "rollback" {
				return chain.Entry{}, fail(jsonrpc.InvalidParameter, "Unknown named parameter %s", field.Name)
			}
		}
		if at := o.Get("rollback"); at != nil {
			if kind != "" && kind != "rollback" {
				return chain.Entry{}, fail(jsonrpc.InvalidParameter,
					"Invalid snapshot type \"%s\" specified with rollback option", kind)
			}
			return a.hashOrHeight(at)
		}
	}
	switch kind {
	case "latest":
		return a.chain.Tip(), nil
	case "rollback":
		height := bitcoin.Height(0)
		for _, s := range a.net.Snapshots {
			height = max(height, s.Height)
		}
		return a.hashOrHeight(json.Number(strconv.Itoa(int(height))))
	}
	return chain.Entry{}, fail(jsonrpc.InvalidParameter, "Invalid snapshot type \"%s\" specified. Please "+
		"specify \"rollback\" or \"latest\"", kind)
}

// snapshotAt returns the coins as of a block. Where that is not the tip, the chain is taken back to it, with
// the network off so that no peer is blamed for what does not fit then; back brings everything forth again.
func (a *API) snapshotAt(ctx context.Context, target chain.Entry) (back func(),
	snapshot *blockstore.Snapshot, err error) {
	back = func() {}
	if tip := a.chain.Tip(); tip.Hash != target.Hash {
		last, pruned := a.chain.PruneHeight()
		if keep, _ := a.chain.Pruning(); keep != 0 && pruned && last >= target.Height {
			return nil, nil, fail(jsonrpc.MiscError, "Could not roll back to requested height since "+
				"necessary block data is already pruned.")
		}
		if back, err = a.rollBack(ctx, target); err != nil {
			return nil, nil, err
		}
	}
	snapshot, err = a.chain.Snapshot(ctx)
	if err == nil && snapshot.Best != target.Hash {
		snapshot.Close()
		a.log.Warn("dumptxoutset failed to roll back to requested height, reverting to tip.")
		err = fail(jsonrpc.MiscError, "Could not roll back to requested height.")
	}
	if err != nil {
		back()
		return nil, nil, err
	}
	return back, snapshot, nil
}

// rollBack takes the chain back to a block of it.
func (a *API) rollBack(ctx context.Context, target chain.Entry) (back func(), err error) {
	next, ok := a.chain.AtHeight(target.Height + 1)
	if !ok || next.Header.PrevBlock != target.Hash {
		return nil, fail(jsonrpc.MiscError, "Could not roll back to requested height.")
	}
	network := a.p2p != nil && a.p2p.Active()
	if network {
		a.p2p.SetActive(false)
	}
	if err := a.chain.Invalidate(ctx, next.Hash); err != nil {
		a.log.Warn("roll back", "err", err)
	}
	return func() {
		// Also where the caller has gone: the chain must not stay behind.
		if err := a.chain.Reconsider(context.WithoutCancel(ctx), next.Hash); err != nil {
			a.log.Error("come back from a roll back", "err", err)
		}
		if network {
			a.p2p.SetActive(true)
		}
	}, nil
}
