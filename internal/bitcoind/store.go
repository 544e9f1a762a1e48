package bitcoind

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/rpc"
	"github.com/tallypost/tallypost/bitcoin/script"
)

func (n *Node) storeConfig() blockstore.Config {
	return blockstore.Config{
		Network: n.cfg.Network, Dir: n.cfg.DataDir, BlocksDir: n.cfg.BlocksDir, CacheBytes: n.cfg.CacheBytes,
		NoXOR: n.cfg.NoXOR, SmallFiles: n.cfg.SmallFiles, Log: n.log,
	}
}

// closeStore makes what the chain has durable and gives the store back.
func (n *Node) closeStore() error {
	var err error
	if n.chain != nil {
		err = n.chain.Close()
	}
	return errors.Join(err, n.store.Close())
}

// coins returns what scantxoutset and gettxoutsetinfo look through. On networks for tests the chain is
// short enough to be replayed.
func (n *Node) coins() rpc.Coins {
	if n.cfg.Network.MockableTime {
		return replay{n.chain}
	}
	return nil
}

func (n *Node) diskFiles() rpc.Files {
	return files{n.store, filepath.Join(n.cfg.DataDir, "chainstate")}
}

// files tells what the store takes on disk.
type files struct {
	store *blockstore.Store
	coins string // directory
}

// BlockBytes is as rpc.Files has it.
func (f files) BlockBytes() int64 { return f.store.Usage() }

// CoinBytes is as rpc.Files has it.
func (f files) CoinBytes() (sum int64) {
	list, err := os.ReadDir(f.coins)
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

// replay finds the unspent outputs by going through all blocks.
type replay struct{ chain *chain.Chain }

// All is as rpc.Coins has it.
func (r replay) All(ctx context.Context, yield func(bitcoin.OutPoint, consensus.Coin) error) (bitcoin.Hash,
	error) {
	tip := r.chain.Tip()
	coins := map[bitcoin.OutPoint]consensus.Coin{}
	for _, e := range r.chain.Path(tip.Hash, 1, int(tip.Height)) {
		if err := ctx.Err(); err != nil {
			return tip.Hash, err
		}
		b, err := r.chain.Block(e.Hash)
		if err != nil {
			return tip.Hash, err
		}
		for i := range b.Txs {
			apply(coins, &b.Txs[i], e.Height, i == 0)
		}
	}
	outs := make([]bitcoin.OutPoint, 0, len(coins))
	for out := range coins {
		outs = append(outs, out)
	}
	slices.SortFunc(outs, func(a, b bitcoin.OutPoint) int {
		if c := bytes.Compare(a.TxID[:], b.TxID[:]); c != 0 {
			return c
		}
		return int(int64(a.Index) - int64(b.Index))
	})
	for _, out := range outs {
		if err := yield(out, coins[out]); err != nil {
			return tip.Hash, err
		}
	}
	return tip.Hash, nil
}

func apply(coins map[bitcoin.OutPoint]consensus.Coin, tx *bitcoin.Tx, h bitcoin.Height, coinbase bool) {
	for i := range tx.In {
		delete(coins, tx.In[i].PrevOut)
	}
	for i := range tx.Out {
		if !script.IsUnspendable(tx.Out[i].Script) {
			coins[bitcoin.OutPoint{TxID: tx.TxID(), Index: uint32(i)}] = consensus.Coin{Out: tx.Out[i],
				Origin: consensus.Origin{Height: h, Coinbase: coinbase}}
		}
	}
}
