package bitcoind

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

// Storage is what a node is told about what it keeps on disk.
type Storage struct {
	BlocksDir     string // where blk and rev files are
	CacheBytes    int64  // for coins and databases
	Prune         int64  // see chain.Config
	HeadersOnly   bool   // likewise; ours, Core has no such mode
	SigCacheBytes int    // see chain.Config
	SmallFiles    bool
	NoXOR         bool
	Reindex       bool
	ReindexCoin   bool
	LoadBlocks    []string       // files to take blocks in from
	StopAt        bitcoin.Height // 0: never
	StopAfter     bool           // once blocks have been taken in from files
	CheckBlocks   int            // to look at again at the start
	CheckLevel    int
	CheckAll      bool // it is an error if there is no memory for that
	// ReindexAfterFailure makes the databases anew where they cannot be used, without asking.
	ReindexAfterFailure bool
}

// Defaults of Bitcoin Core (validation.h, node/caches.h), sizes in MiB.
const (
	defaultCheckBlocks = 6
	defaultCheckLevel  = 3
	defaultCache       = 450
	minCache           = 4
)

func (c *Config) storage(o *options.Options) error {
	s := &c.Storage
	if err := c.prune(o); err != nil {
		return err
	}
	s.CacheBytes = max(o.Int("dbcache", defaultCache), minCache) << 20
	s.SmallFiles, s.NoXOR = o.Bool("fastprune", false), !o.Bool("blocksxor", true)
	s.Reindex, s.ReindexCoin = o.Bool("reindex", false), o.Bool("reindex-chainstate", false)
	s.LoadBlocks = o.List("loadblock")
	s.StopAt = bitcoin.Height(max(o.Int("stopatheight", 0), 0))
	s.StopAfter = o.Bool("stopafterblockimport", false)
	s.CheckBlocks = int(o.Int("checkblocks", defaultCheckBlocks))
	s.CheckLevel = int(o.Int("checklevel", defaultCheckLevel))
	s.CheckAll = o.Has("checkblocks") || o.Has("checklevel")
	s.ReindexAfterFailure = slices.Contains(o.List("test"), "reindex_after_failure_noninteractive_yes")
	s.BlocksDir = filepath.Join(c.DataDir, "blocks")
	if dir := o.String("blocksdir", ""); dir != "" {
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			return fmt.Errorf("Specified blocks directory %q does not exist.", dir)
		}
		dir, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		s.BlocksDir = filepath.Join(dir, c.Network.DataDir, "blocks")
	}
	return c.headersOnly(o)
}

// prune reads how much disk blocks may take.
func (c *Config) prune(o *options.Options) error {
	mib := o.Int("prune", 0)
	switch {
	case mib < 0:
		return errors.New("Prune cannot be configured with a negative value.")
	case mib == 0:
		return nil
	case mib == 1:
		c.Storage.Prune = chain.PruneManual
	case mib < chain.MinPruneTarget>>20:
		return fmt.Errorf("Prune configured below the minimum of %d MiB.  Please use a higher number.",
			chain.MinPruneTarget>>20)
	default:
		c.Storage.Prune = min(mib, 1<<40) << 20
	}
	if o.Bool("txindex", false) {
		return errors.New("Prune mode is incompatible with -txindex.")
	}
	if o.Bool("reindex-chainstate", false) {
		return errors.New("Prune mode is incompatible with -reindex-chainstate. Use full -reindex instead.")
	}
	return nil
}

// headersOnly reads -headersonly, which does not go with what needs blocks.
func (c *Config) headersOnly(o *options.Options) error {
	c.Storage.HeadersOnly = o.Bool("headersonly", false)
	if !c.Storage.HeadersOnly {
		return nil
	}
	for _, name := range []string{"txindex", "blockfilterindex", "coinstatsindex", "prune", "reindex",
		"reindex-chainstate", "loadblock"} {
		if v := o.String(name, "0"); v != "0" {
			return fmt.Errorf("-headersonly keeps no blocks and cannot be used with -%s.", name)
		}
	}
	c.Storage.CacheBytes = minCache << 20 // there are no coins
	c.Storage.SigCacheBytes = 1 << 10     // and no signatures
	return nil
}
