package p2p

import (
	"sync"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// outbox is the queue of messages to a peer.
type outbox struct {
	mu     sync.Mutex
	cond   *sync.Cond
	queue  []wire.Message
	octets int
	closed bool
}

// messageCost is what a queued message counts: about the memory that it takes, which for one of transactions
// or hashes is not small even before it is encoded.
func messageCost(m wire.Message) int {
	const base = 256
	switch m := m.(type) {
	case *wire.Raw:
		return len(m.Payload) + base
	case *wire.Block:
		return m.Size()
	case *wire.Tx:
		return m.Size() + base
	case *wire.CmpctBlock:
		return 8*len(m.ShortIDs) + txsCost(len(m.Prefilled)) + base
	case *wire.BlockTxn:
		cost := txsCost(len(m.Txs))
		for i := range m.Txs {
			cost += m.Txs[i].Size()
		}
		return cost + base
	case *wire.MerkleBlock:
		return 32*len(m.Hashes) + base
	case *wire.Headers:
		return 81*len(m.Headers) + base
	case *wire.Inv:
		return 40*len(m.Items) + base
	case *wire.GetData:
		return 40*len(m.Items) + base
	case *wire.NotFound:
		return 40*len(m.Items) + base
	case *wire.AddrMsg:
		return 64*len(m.Addrs) + base
	case *wire.AddrV2Msg:
		return 64*len(m.Addrs) + base
	case *wire.CFilter:
		return len(m.Filter) + base
	case *wire.CFHeaders:
		return 32*len(m.Hashes) + base
	case *wire.CFCheckpt:
		return 32*len(m.Headers) + base
	}
	return base
}

// txsCost is the memory of transactions, without what they point at.
func txsCost(count int) int { return 128 * count }

func (p *Peer) push(m wire.Message) {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	if p.out.closed {
		return
	}
	p.out.queue = append(p.out.queue, m)
	p.out.octets += messageCost(m)
	p.out.cond.Broadcast()
}

// waitRoom waits until the peer has taken enough; false once the connection ends.
func (p *Peer) waitRoom() bool {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	for p.out.octets > p.n.cfg.MaxSendBuffer && !p.out.closed {
		p.out.cond.Wait()
	}
	return !p.out.closed
}
