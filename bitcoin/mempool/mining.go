package mempool

import (
	"container/heap"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// Room is what a block has left for transactions.
type Room struct {
	Weight     int64
	SigOpsCost int
	MinRate    FeeRate // chunks that pay less are left out (Core's -blockmintxfee)

	Height bitcoin.Height // of the block
	Median uint32         // median time past before it
}

// Select returns the transactions that pay best for the room in a block, parents before children:
// chunk by chunk, the best first (Bitcoin Core node/miner.cpp, addChunks). A chunk that does not
// fit is left out, and what follows it in its cluster too.
func (p *Pool) Select(room Room) []*Entry {
	queue := make(miningQueue, len(p.clusters))
	for i, c := range p.clusters {
		queue[i] = miningCluster{c, 0}
	}
	heap.Init(&queue)
	var picked []*Entry
	failed := 0
	for len(queue) > 0 {
		best := &queue[0]
		ch := best.chunks[best.next]
		if cmpProducts(int64(ch.Fee), 1000, int64(room.MinRate), int64(ch.vsize())) < 0 {
			return picked // all that is left pays less
		}
		txs := best.txs[ch.from:ch.to]
		if room.take(txs, ch) {
			picked = append(picked, txs...)
			failed = 0
			if best.next++; best.next < len(best.chunks) {
				heap.Fix(&queue, 0)
				continue
			}
		} else if failed++; failed > maxFailures && room.Weight < nearlyFull {
			return picked
		}
		heap.Pop(&queue)
	}
	return picked
}

const (
	// maxFailures is how many chunks in a row may not fit into a block that is nearlyFull before
	// no more are tried (Bitcoin Core node/miner.cpp).
	maxFailures = 1000
	nearlyFull  = 4000
)

// take makes use of the room, if it is enough and all transactions are final in the block.
func (r *Room) take(txs []*Entry, ch chunk) bool {
	sigOps := 0
	for _, e := range txs {
		sigOps += e.SigOpsCost
		if !consensus.IsFinal(e.Tx, r.Height, int64(r.Median)) {
			return false
		}
	}
	if ch.Weight >= r.Weight || sigOps >= r.SigOpsCost {
		return false
	}
	for _, e := range txs {
		r.Weight -= int64(e.Tx.Weight())
	}
	r.SigOpsCost -= sigOps
	return true
}

// miningQueue has the cluster on top whose next chunk pays best.
type miningQueue []miningCluster

type miningCluster struct {
	*cluster
	next int // chunk
}

// Len, Less, Swap, Push and Pop are for container/heap.
func (q miningQueue) Len() int { return len(q) }

func (q miningQueue) Less(i, j int) bool {
	a, b := &q[i], &q[j]
	if c := a.chunks[a.next].Cmp(b.chunks[b.next].Price); c != 0 {
		return c > 0
	}
	return a.txs[0].Sequence < b.txs[0].Sequence
}

func (q miningQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push adds a cluster.
func (q *miningQueue) Push(x any) { *q = append(*q, x.(miningCluster)) }

// Pop removes the last cluster.
func (q *miningQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = slices.Delete(*q, len(*q)-1, len(*q))
	return last
}
