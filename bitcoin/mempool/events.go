package mempool

import "github.com/tallypost/tallypost/bitcoin"

// Reason tells why a transaction left the pool.
type Reason uint8

// The reasons (Bitcoin Core kernel/mempool_removal_reason.h).
const (
	Added     Reason = iota // it did not leave but enter
	Expired                 // it waited too long
	SizeLimit               // the pool was full
	Reorg                   // it is not valid on the new chain
	Block                   // it was mined
	Conflicts               // what it spends was spent in a block
	Replaced                // by one that pays better
)

// String returns the reason in Core's words; of Added, "added".
func (r Reason) String() string {
	return [...]string{"added", "expiry", "sizelimit", "reorg", "block", "conflict", "replaced"}[r]
}

// Event is the entry or the leaving of a transaction.
type Event struct {
	Sequence    uint64
	TxID, WTxID bitcoin.Hash
	Reason      Reason
}

// keptEvents is how many events are kept for those who follow the pool.
const keptEvents = 1 << 15

// events are the last events, in a ring.
type events struct {
	ring []Event
	next int // where the next goes, once the ring is full
}

func (v *events) add(e Event) {
	if len(v.ring) < keptEvents {
		v.ring = append(v.ring, e)
		return
	}
	v.ring[v.next] = e
	v.next = (v.next + 1) % keptEvents
}

// EventsSince returns up to max events from a sequence number on, the oldest first, and the number
// to ask from next. complete is false where some events are not kept any more: who follows starts
// afresh with All.
func (p *Pool) EventsSince(sequence uint64, max int) (list []Event, next uint64, complete bool) {
	ring, n := p.events.ring, len(p.events.ring)
	complete = n < keptEvents || ring[p.events.next].Sequence <= sequence
	first := n
	for first > 0 && ring[(p.events.next+first-1)%n].Sequence >= sequence {
		first--
	}
	for i := first; i < n && len(list) < max; i++ {
		list = append(list, ring[(p.events.next+i)%n])
	}
	if len(list) > 0 && len(list) == max {
		return list, list[max-1].Sequence + 1, complete
	}
	return list, p.sequence, complete
}

// happened counts an event. Removals by blocks are counted too, as in Core.
func (p *Pool) happened(e *Entry, reason Reason) {
	p.events.add(Event{p.sequence, e.TxID, e.WTxID, reason})
	p.sequence++
	p.changes++
}
