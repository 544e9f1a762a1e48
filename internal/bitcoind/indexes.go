package bitcoind

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/index"
	"github.com/tallypost/tallypost/bitcoin/wire"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

// indexes reads which indexes there are to be.
func (c *Config) indexes(o *options.Options) error {
	c.Indexes = index.Wanted{Tx: o.Bool("txindex", false), CoinStats: o.Bool("coinstatsindex", false)}
	switch types := o.List("blockfilterindex"); {
	case !o.Has("blockfilterindex") || len(types) == 0 || o.String("blockfilterindex", "") == "0":
	default:
		for _, t := range types {
			switch t {
			case "", "1", "basic":
				c.Indexes.Filters = true
			case "0":
			default:
				return fmt.Errorf("Unknown -blockfilterindex value %s.", t)
			}
		}
	}
	if o.Bool("peerblockfilters", false) {
		if !c.Indexes.Filters {
			return errors.New("Cannot set -peerblockfilters without -blockfilterindex.")
		}
		c.P2P.Services |= wire.ServiceCompactFilters
	}
	return nil
}

// openIndexes opens the indexes that are wanted, once there is a chain.
func (n *Node) openIndexes() error {
	var err error
	n.indexes, err = index.Open(index.Config{Chain: n.chain, Dir: filepath.Join(n.cfg.DataDir, "indexes"),
		Log: n.log, Wipe: n.cfg.Storage.Reindex}, n.cfg.Indexes)
	if err != nil {
		return err
	}
	if reindexing, err := n.chain.Reindexing(); err != nil || reindexing || n.cfg.Storage.Prune == 0 {
		return err // while the files are gone through again, nobody knows what is in them
	}
	// What is told is the name of the one that is furthest behind, filters before statistics (Bitcoin Core
	// init.cpp, StartIndexBackgroundSync).
	oldest, name := bitcoin.Height(0), ""
	for _, x := range slices.Backward(n.indexes.All()) {
		if from, ok := x.Available(); !ok && (name == "" || from < oldest) {
			oldest, name = from, x.Status().Name
		}
	}
	if name == "" {
		return nil
	}
	return fmt.Errorf("%s best block of the index goes beyond pruned data. Please disable the index or reindex "+
		"(which will download the whole blockchain again)\nError: A fatal internal error occurred, see "+
		"debug.log for details: Failed to start indexes, shutting down…", name)
}
