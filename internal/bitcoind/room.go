package bitcoind

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// minRoom is what is to be left on a disk in any case (Bitcoin Core util/fs_helpers.cpp, CheckDiskSpace).
const minRoom = 50 << 20

// warnOfRoom tells at the first start where the disk is too small for the chain of the network as it was when
// this program was made, or for what is to be kept of it (Bitcoin Core init.cpp, AppInitMain).
func (n *Node) warnOfRoom() {
	s := &n.cfg.Storage
	if s.Reindex || s.ReindexCoin || s.HeadersOnly || n.chain.Tip().Height > 1 {
		return
	}
	need := int64(n.cfg.Network.AssumedBlocksGB) << 30
	if s.Prune > 0 {
		need = min(need, s.Prune)
	}
	usage, err := vfs.Default.GetDiskUsage(s.BlocksDir)
	if err != nil || usage.AvailBytes >= uint64(need)+minRoom {
		return // an error was told when the store was opened
	}
	n.warnAloud(fmt.Sprintf("Disk space for %q may not accommodate the block files. Approximately %d GB of data will "+
		"be stored in this directory.", s.BlocksDir, n.cfg.Network.AssumedBlocksGB))
}
