package mempool

import (
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// Entry is an unconfirmed transaction. Its fields do not change, but for those that say so; like
// the Pool it is guarded by whoever guards that.
type Entry struct {
	Tx          *bitcoin.Tx
	TxID, WTxID bitcoin.Hash
	Fee         bitcoin.Amount // paid, see Delta
	Weight      int64          // or what its signature checks count for, if that is more
	SigOpsCost  int
	Time        time.Time      // of arrival
	Height      bitcoin.Height // of the tip then
	Sequence    uint64         // of the last change of the pool before it came; see Pool.Sequence

	// Delta is added to the fee where transactions are compared; see Pool.Prioritise. It changes.
	Delta bitcoin.Amount

	coinbase bool         // spends one
	lock     lock         // changes in a reorganisation
	verified script.Flags // the rules of a block under which its scripts have passed

	parents, children []*Entry // in the pool; they change
	cluster           *cluster // changes
	rank              int      // in the cluster; changes
	unbroadcast       bool     // changes
	slot              int32    // position among transactions that are being arranged, or noSlot
	seen              uint64   // see Pool.epoch
}

// lock is until when relative lock times keep a transaction out of blocks, and the height of the
// last block that this depends on.
type lock struct {
	consensus.SequenceLock
	depends bitcoin.Height
}

// VSize returns the size that fees are paid for, in virtual bytes.
func (e *Entry) VSize() int { return e.price().vsize() }

// ModifiedFee returns the fee with Delta.
func (e *Entry) ModifiedFee() bitcoin.Amount { return e.Fee + e.Delta }

// Verified returns the rules of a block that the scripts are known to obey.
func (e *Entry) Verified() script.Flags { return e.verified }

// Unbroadcast reports whether the transaction was submitted here and no peer has asked for it yet.
func (e *Entry) Unbroadcast() bool { return e.unbroadcast }

// Parents returns the transactions of the pool whose outputs it spends. The list must not be
// changed or kept.
func (e *Entry) Parents() []*Entry { return e.parents }

// Children returns the transactions of the pool that spend its outputs. The list must not be
// changed or kept.
func (e *Entry) Children() []*Entry { return e.children }

func (e *Entry) price() Price { return Price{e.ModifiedFee(), e.Weight} }

// usage is the memory that the transaction takes, roughly: its octets, the slices that point into
// them, the entry and its place in the tables.
func (e *Entry) usage() int64 {
	const entry, in, out, item = 600, 180, 40, 24
	n := entry + e.Tx.Size() + in*len(e.Tx.In) + out*len(e.Tx.Out)
	for i := range e.Tx.In {
		n += item * len(e.Tx.In[i].Witness)
	}
	return int64(n)
}
