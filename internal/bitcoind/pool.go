package bitcoind

import (
	"context"
	"path/filepath"

	"github.com/tallypost/tallypost/bitcoin/chain"
)

func (n *Node) mempoolFile() string { return filepath.Join(n.cfg.DataDir, "mempool.dat") }

// loadMempool offers what the mempool held when the node last ended to the new one. What goes wrong is in
// the log: a node does without.
func (n *Node) loadMempool(ctx context.Context) {
	if n.cfg.PersistMempool {
		opts := chain.ImportOptions{Deltas: true, Unbroadcast: true}
		if err := n.chain.LoadMempool(ctx, n.mempoolFile(), opts); err != nil && ctx.Err() != nil {
			return // what the file has left must not be overwritten
		}
	}
	n.loaded.Store(true)
}

// saveMempool keeps the mempool for the next start, if what the last one left has been read.
func (n *Node) saveMempool() {
	if n.cfg.PersistMempool && n.loaded.Load() {
		n.chain.SaveMempool(n.mempoolFile(), n.cfg.PlainMempool) // it logs its failure
	}
}
