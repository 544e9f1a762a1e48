package blockstore

import "github.com/tallypost/tallypost/bitcoin"

// Status is what is known of a block beyond its header, which was valid or there would be no
// record.
type Status uint16

// The bits of a Status. They are stored.
const (
	HaveData    Status = 1 << iota // the block is in its file
	HaveUndo                       // so are its undo data
	Failed                         // the block is not valid, or was said to be by invalidateblock
	FailedChild                    // an ancestor is not valid
	Verified                       // the block has been connected, its scripts passed or assumed
	Assumed                        // the block is known only by the coins of a snapshot built on it
	NoWitness                      // the block came when witnesses were not looked at (before BIP 141)

	// Invalid are the reasons for which a block can not be part of the chain.
	Invalid = Failed | FailedChild
)

// Record is a block of the index.
type Record struct {
	Header bitcoin.Header
	Hash   bitcoin.Hash
	Height bitcoin.Height
	Status Status
	Txs    uint32 // 0 where the block has never been here
	File   int32
	Data   uint32 // where the block stands in its blk file
	Undo   uint32 // where its undo data stand in the rev file of the same number
}

// DataPos is where the block stands.
func (r *Record) DataPos() Pos { return Pos{r.File, r.Data} }

// UndoPos is where its undo data stand.
func (r *Record) UndoPos() Pos { return Pos{r.File, r.Undo} }

// Pos is a place in the blk or rev files: just behind the magic and the size.
type Pos struct {
	File   int32
	Offset uint32
}
