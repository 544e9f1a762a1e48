// Command btcdimport has btcd's blockchain package take in a bootstrap file, for test/bench/chain.
// It is btcd's addblock with what a running btcd has and addblock lacks: a cache of coins and one of
// signatures; and it parses blocks ahead, which in btcd the connections to peers do.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/btcsuite/btcd/blockchain"
	"github.com/btcsuite/btcd/btcutil/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/btcsuite/btcd/database"
	_ "github.com/btcsuite/btcd/database/ffldb"
	"github.com/btcsuite/btcd/txscript/v2"

	"github.com/tallypost/tallypost/test/bench/chainfile"
)

var (
	mode       = flag.String("mode", "import", "import, or connect: the blocks of tail one by one")
	file       = flag.String("file", "", "bootstrap file")
	tail       = flag.String("tail", "", "file with the blocks for connect")
	dir        = flag.String("dir", "", "data directory")
	cache      = flag.Uint64("cache", 250, "MiB of cache for coins")
	checkpoint = flag.String("checkpoint", "0", "hash of a block up to which no scripts are run")
	height     = flag.Int("height", 0, "of that block")
	fast       = flag.Bool("fast", false, "check what btcd checks below a checkpoint in headers-first sync:\n"+
		"neither scripts nor amounts")
)

// cacheEntries is how many signatures, and transactions' hashes, btcd keeps by default.
const cacheEntries = 100_000

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "btcdimport:", err)
		os.Exit(1)
	}
}

type node struct {
	db     database.DB
	chain  *blockchain.BlockChain
	sigs   *txscript.SigCache
	hashes *txscript.HashCache
}

func run() error {
	n, err := open()
	if err != nil {
		return err
	}
	defer n.db.Close()
	var out struct {
		Tip            string
		Unknown, Known []time.Duration
	}
	if err := n.load(*file); err != nil {
		return err
	}
	if *mode == "connect" {
		count := 0
		err := chainfile.Blocks(*tail, func(raw []byte) error {
			count++
			if count%2 == 1 {
				took, err := n.connect(raw)
				out.Unknown = append(out.Unknown, took)
				return err
			}
			if err := n.know(raw); err != nil {
				return err
			}
			took, err := n.connect(raw)
			out.Known = append(out.Known, took)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := n.chain.FlushUtxoCache(blockchain.FlushRequired); err != nil {
		return err
	}
	out.Tip = n.chain.BestSnapshot().Hash.String()
	return json.NewEncoder(os.Stdout).Encode(out)
}

func open() (*node, error) {
	params := chaincfg.RegressionNetParams
	db, err := database.Create("ffldb", filepath.Join(*dir, "blocks_ffldb"), params.Net)
	if err != nil {
		return nil, err
	}
	n := &node{
		db:     db,
		sigs:   txscript.NewSigCache(cacheEntries),
		hashes: txscript.NewHashCache(cacheEntries),
	}
	cfg := &blockchain.Config{
		DB:               db,
		UtxoCacheMaxSize: *cache << 20,
		ChainParams:      &params,
		TimeSource:       blockchain.NewMedianTime(),
		SigCache:         n.sigs,
		HashCache:        n.hashes,
	}
	if *checkpoint != "0" {
		hash, err := chainhash.NewHashFromStr(*checkpoint)
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
		cfg.Checkpoints = []chaincfg.Checkpoint{{Height: int32(*height), Hash: hash}}
	}
	if n.chain, err = blockchain.New(cfg); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return n, nil
}

// load takes in the blocks of a file.
func (n *node) load(path string) error {
	parsed := make(chan *btcutil.Block, 8)
	failed := make(chan error, 1)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(parsed)
		failed <- chainfile.Blocks(path, func(raw []byte) error {
			b, err := btcutil.NewBlockFromBytes(raw)
			if err != nil {
				return err
			}
			select {
			case parsed <- b:
				return nil
			case <-stop:
				return errors.New("stopped")
			}
		})
	}()
	flags := blockchain.BFNone
	if *fast {
		flags = blockchain.BFFastAdd
	}
	for b := range parsed {
		if err := n.process(b, flags); err != nil {
			return err
		}
	}
	return <-failed
}

func (n *node) process(b *btcutil.Block, flags blockchain.BehaviorFlags) error {
	main, orphan, err := n.chain.ProcessBlock(b, flags)
	if err != nil {
		return err
	}
	if !main || orphan {
		return fmt.Errorf("block %v does not extend the chain", b.Hash())
	}
	return nil
}

// connect takes the time from a block's octets to the new tip.
func (n *node) connect(raw []byte) (time.Duration, error) {
	start := time.Now()
	b, err := btcutil.NewBlockFromBytes(raw)
	if err == nil {
		err = n.process(b, blockchain.BFNone)
	}
	return time.Since(start), err
}

// know verifies the transactions of a block as btcd's mempool does, which leaves their signatures in
// the cache.
func (n *node) know(raw []byte) error {
	b, err := btcutil.NewBlockFromBytes(raw)
	if err != nil {
		return err
	}
	for _, tx := range b.Transactions()[1:] {
		view, err := n.chain.FetchUtxoView(tx)
		if err != nil {
			return err
		}
		err = blockchain.ValidateTransactionScripts(tx, view, txscript.StandardVerifyFlags, n.sigs,
			n.hashes)
		if err != nil {
			return err
		}
	}
	return nil
}
