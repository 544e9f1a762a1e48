package bitcoind

import (
	"context"
	"os"
	"path/filepath"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/rpc"
)

// closeStore makes what the chain has durable and gives the store back.
func (n *Node) closeStore() error {
	return firstOf(n.indexes.Close(), n.chain.Close(), n.store.Close())
}

func (n *Node) diskFiles() rpc.Files {
	return files{n.store, n.chain, n.cfg.DataDir}
}

// files tells what the store takes on disk.
type files struct {
	store *blockstore.Store
	chain *chain.Chain
	dir   string // of the data
}

// BlockBytes is as rpc.Files has it.
func (f files) BlockBytes() int64 { return f.store.Usage() }

// CoinBytes is as rpc.Files has it.
func (f files) CoinBytes() (sum int64) {
	dir := filepath.Join(f.dir, "chainstate")
	states := f.chain.Chainstates()
	if states[len(states)-1].Base != (bitcoin.Hash{}) {
		dir += "_snapshot" // where the coins of the tip are until the next start after their validation
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range list {
		if info, err := e.Info(); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// coins are the unspent outputs for calls that look through all of them.
type coins struct{ chain *chain.Chain }

// All is as rpc.Coins has it. The coins are those of the tip at the time of the call, and stay so while
// the chain goes on.
func (c coins) All(ctx context.Context, yield func(bitcoin.OutPoint, consensus.Coin) error) (bitcoin.Hash,
	error) {
	s, err := c.chain.Snapshot(ctx)
	if err != nil {
		return bitcoin.Hash{}, err
	}
	defer s.Close()
	return s.Best, s.All(ctx, func(out bitcoin.OutPoint, coin *consensus.Coin) error {
		return yield(out, *coin)
	})
}
