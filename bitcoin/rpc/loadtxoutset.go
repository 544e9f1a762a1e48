package rpc

import (
	"context"
	"os"
	"path/filepath"

	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

// loadTxOutSet makes the coins of a file the best chain's; what comes before them is validated afterwards
// (Bitcoin Core rpc/blockchain.cpp, loadtxoutset).
func (a *API) loadTxOutSet(ctx context.Context, c call) (any, error) {
	path := c.String(0, "")
	if !filepath.IsAbs(path) {
		path = filepath.Join(a.cfg.DataDir, path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fail(jsonrpc.InvalidParameter, "Couldn't open file %s for reading.", path)
	}
	defer file.Close()
	head, err := blockstore.ReadSnapshotHead(file, a.net)
	if err != nil {
		return nil, fail(jsonrpc.DeserializationError, "Unable to parse metadata: %v", err)
	}
	base, err := a.chain.LoadSnapshot(ctx, head, file)
	if err != nil {
		return nil, fail(jsonrpc.InternalError, "Unable to load UTXO snapshot: %v. (%s)", err, path)
	}
	return object{{"coins_loaded", head.Coins}, {"tip_hash", base.Hash}, {"base_height", base.Height},
		{"path", path}}, nil
}
