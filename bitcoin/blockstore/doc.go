// Package blockstore keeps what a node has of the block chain on disk: blocks and the data to undo
// them in files like Bitcoin Core's, an index of them, and the coins behind a large cache.
//
// # Files
//
//	blocks/blk00000.dat   blocks: (magic[4] size[4] block[size])*            up to 128 MiB
//	blocks/rev00000.dat   undo data: (magic[4] size[4] data[size] hash[32])* of the same blocks
//	blocks/xor.dat        8 octets; octet i of a blk or rev file is XORed with octet i%8 of them
//	blocks/index/         Pebble: records of blocks and files
//	chainstate/           Pebble: coins, and the block as of which they are
//	chainstate_snapshot/  Pebble: likewise, built on a snapshot; base_blockhash in it has the hash of
//	                      the snapshot's block, and says that the snapshot was loaded to its end
//	.lock                 held while the store is open; another in the directory of blocks
//
// The blk, rev and xor files are Core's, byte by byte but for the zeros that Core allocates ahead;
// either program can read the other's. The two databases are not Core's.
//
// # What survives
//
// Writing a block or its undo data promises nothing. Flush makes everything before it durable, in
// an order in which a crash at any point leaves a state that can be used: first the files, then the
// index, then, in one step, the coins with the block that they belong to. So records never point
// to what is not there, and the coins never belong to a block that the index does not have. What
// was written after the last Flush may be lost, and is written over.
//
// A failed write or sync breaks the Store: after it nothing but Close may be expected to work, and
// on the next Open all is as of the last Flush. ErrBroken is in the error then, and in those of all
// later calls.
//
// All methods may be called from any goroutine, but only one may change the coins at a time.
//
// The package does not know which block is best, checks no rule but the checksums, and starts no
// goroutine that outlives a call, those of Pebble excepted.
package blockstore
