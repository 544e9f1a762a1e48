// Package index keeps what a node can be asked about its chain beyond blocks and coins: where each
// transaction is (Bitcoin Core's -txindex), the compact filters of blocks (-blockfilterindex, BIPs 157 and
// 158) and statistics of the unspent outputs as of each block (-coinstatsindex).
//
// Each index follows the chain by a cursor of its own (chain.UpdatesSince), which is stored together with
// what belongs to it in one batch: after a crash the index is as of some block that it was at, and goes on
// from there. It is made in the background while the node runs, and may be asked meanwhile: Synced tells
// whether it has caught up once, Wait waits for what is still on its way.
//
// What is kept by block survives that the block leaves the best chain: it is found by hash. An index of
// which the chain has lost the last blocks (after a crash the chain may know less than its followers) goes
// back to the last one that it knows.
//
// # Files
//
// Below Config.Dir, as Core has them: txindex, blockfilter/basic and coinstatsindex. Each has a Pebble
// database; the filters themselves stand in fltrNNNNN.dat of 16 MiB each, hash[32] size[compact] filter, and
// are synced before the record that points at them. The keys that all databases have:
//
//	'v'             format
//	'c'             hash[32] height[4]: the cursor
//	'h' height[4]   hash[32] of the block that was last taken in at this height, heights being big-endian
//
// The others are described where they are written.
package index
