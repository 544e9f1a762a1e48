package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/secp"
	"github.com/tallypost/tallypost/test/bench/chainfile"
)

// What the processes are told that do the work.
var (
	childFile   = flag.String("child.file", "", "")
	childFirst  = flag.String("child.first", "", "")
	childTail   = flag.String("child.tail", "", "")
	childDir    = flag.String("child.dir", "", "")
	childAssume = flag.String("child.assume", "0", "")
	childEngine = flag.String("child.engine", "", "")
)

// node is a chain on a store.
type node struct {
	*chain.Chain
	store *blockstore.Store
}

func openNode() (*node, error) {
	net := bitcoin.Regtest()
	var err error
	// As on the main network, it is known from which block on no txid can come twice. btcd takes
	// that for granted on any network.
	if net.BIP34Hash, err = bitcoin.ParseHash(*childFirst); err != nil {
		return nil, err
	}
	store, err := blockstore.Open(blockstore.Config{Network: net, Dir: *childDir,
		CacheBytes: int64(*cache) << 20})
	if err != nil {
		return nil, err
	}
	cfg := chain.Config{Network: net, AssumeValid: new(bitcoin.Hash), Engine: secp.Decred{}}
	if *childEngine == "native" {
		cfg.Engine = secp.Native{}
	}
	if *childAssume != "0" {
		if *cfg.AssumeValid, err = bitcoin.ParseHash(*childAssume); err != nil {
			return nil, errors.Join(err, store.Close())
		}
	}
	c, err := chain.New(cfg, store)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &node{c, store}, nil
}

// close makes everything durable and prints the result.
func (n *node) close(l latencies) error {
	l.Tip = n.Tip().Hash.String()
	if err := errors.Join(n.Close(), n.store.Close()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(l)
}

// childImport takes in a file.
func childImport() error {
	n, err := openNode()
	if err != nil {
		return err
	}
	return n.profiled(func() error {
		if err := n.Import(context.Background(), *childFile); err != nil {
			return errors.Join(err, n.store.Close())
		}
		return n.close(latencies{})
	})
}

// profiled runs a function, and writes a profile of it if that is wanted.
func (n *node) profiled(f func() error) error {
	if *profile == "" {
		return f()
	}
	file, err := os.Create(*profile)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return f()
}

// childConnect takes in a file and then the blocks of its tail, one by one. The transactions of
// every other block are in the mempool before it comes.
func childConnect() error {
	n, err := openNode()
	if err != nil {
		return err
	}
	if err := n.Import(context.Background(), *childFile); err != nil {
		return errors.Join(err, n.store.Close())
	}
	return n.profiled(n.childTail)
}

// childTail takes in the blocks of the tail.
func (n *node) childTail() error {
	var l latencies
	count := 0
	err := chainfile.Blocks(*childTail, func(raw []byte) error {
		known := count%2 == 1
		count++
		if known {
			took, err := n.know(raw)
			if err != nil {
				return err
			}
			l.Accepts = append(l.Accepts, took)
		}
		took, err := n.connect(raw)
		if known {
			l.Known = append(l.Known, took)
		} else {
			l.Unknown = append(l.Unknown, took)
		}
		return err
	})
	if err != nil {
		return errors.Join(err, n.store.Close())
	}
	return n.close(l)
}

// connect takes the time from a block's octets to the new tip.
func (n *node) connect(raw []byte) (time.Duration, error) {
	start := time.Now()
	b, err := bitcoin.ParseBlock(raw)
	if err != nil {
		return 0, err
	}
	outcome, err := n.Add(context.Background(), b, chain.Source{Requested: true, WorkChecked: true})
	took := time.Since(start)
	if err == nil && (outcome != chain.Connected || n.Tip().Hash != b.Hash()) {
		err = fmt.Errorf("block %v was not connected", b.Hash())
	}
	return took, err
}

// know puts the transactions of a block into the mempool.
func (n *node) know(raw []byte) (time.Duration, error) {
	b, err := bitcoin.ParseBlock(raw)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	for i := range b.Txs[1:] {
		if _, err := n.AddTx(context.Background(), &b.Txs[i+1], chain.TxOptions{}); err != nil {
			return 0, fmt.Errorf("transaction %v: %w", b.Txs[i+1].TxID(), err)
		}
	}
	return time.Since(start), nil
}
