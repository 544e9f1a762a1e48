package bitcoind

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/rpc"
	"github.com/tallypost/tallypost/bitcoin/rpc/zmq"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

// zmqKinds are what may be published, in the order in which Core lists them.
var zmqKinds = []string{"pubhashblock", "pubhashtx", "pubrawblock", "pubrawtx", "pubsequence"}

// defaultHWM is how many messages are kept for a slow subscriber (Core's DEFAULT_ZMQ_SNDHWM).
const defaultHWM = 1000

// zmq reads -zmqpub*.
func (c *Config) zmq(o *options.Options) error {
	for _, kind := range zmqKinds {
		for _, address := range o.List("zmq" + kind) {
			if path, ok := strings.CutPrefix(address, unixAddr); ok {
				address = "ipc://" + path
			}
			c.ZMQ = append(c.ZMQ, rpc.Notifier{Type: kind, Address: address,
				HWM: int(o.Int("zmq"+kind+"hwm", defaultHWM))})
		}
	}
	return nil
}

// notifier publishes one kind of news at one address.
type notifier struct {
	rpc.Notifier
	to       *zmq.Publisher
	sequence uint32 // of its messages
}

// openZMQ opens the sockets. Where one cannot be opened there are none, as in Core, and the node goes on.
func (n *Node) openZMQ() {
	sockets := map[string]*zmq.Publisher{}
	for _, c := range n.cfg.ZMQ {
		p := sockets[c.Address]
		if p == nil {
			var err error
			if p, err = zmq.Listen(c.Address, c.HWM, n.log); err != nil {
				n.log.Error("zmq: Failed to bind address: nothing is published", "err", err)
				for _, p := range sockets {
					p.Close()
				}
				n.notifiers = nil
				return
			}
			sockets[c.Address] = p
		}
		n.log.Debug(fmt.Sprintf("Notifier %s ready (address = %s)", c.Type, c.Address), "cat", "zmq")
		n.notifiers = append(n.notifiers, &notifier{Notifier: c, to: p})
	}
}

// activeNotifiers are those that getzmqnotifications tells of.
func (n *Node) activeNotifiers() (list []rpc.Notifier) {
	for _, x := range n.notifiers {
		list = append(list, x.Notifier)
	}
	return list
}

// publish sends a message of a kind to all who publish that.
func (n *Node) publish(kind string, data []byte) {
	for _, x := range n.notifiers {
		if x.Type == kind {
			x.to.Publish([]byte(strings.TrimPrefix(kind, "pub")), data, binary.LittleEndian.AppendUint32(nil, x.sequence))
			x.sequence++
		}
	}
}

func (n *Node) publishes(kinds ...string) bool {
	return slices.ContainsFunc(n.notifiers, func(x *notifier) bool { return slices.Contains(kinds, x.Type) })
}

// reversed returns a hash as it is printed.
func reversed(h bitcoin.Hash) []byte {
	slices.Reverse(h[:])
	return h[:]
}

// runZMQ publishes what happens to chain and mempool until ctx ends (Bitcoin Core
// zmq/zmqnotificationinterface.cpp).
func (n *Node) runZMQ(ctx context.Context) {
	if len(n.notifiers) == 0 {
		return
	}
	wake := make(chan struct{}, 1)
	nudge := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	defer n.chain.OnTip(nudge)()
	defer n.chain.OnTx(nudge)()
	running := map[*zmq.Publisher]chan struct{}{}
	for _, x := range n.notifiers {
		if running[x.to] == nil {
			ended := make(chan struct{})
			running[x.to] = ended
			go func() { defer close(ended); x.to.Run(ctx) }()
		}
	}
	f := zmqFollower{n: n}
	f.begin()
	for {
		for f.turn() && ctx.Err() == nil {
		}
		select {
		case <-wake:
		case <-ctx.Done():
			for _, ended := range running {
				<-ended
			}
			return
		}
	}
}

// zmqFollower is how far what happened has been published.
type zmqFollower struct {
	n        *Node
	blocks   chain.Cursor
	sequence uint64 // of the mempool's next event
}

func (f *zmqFollower) begin() {
	tip := f.n.chain.Tip()
	f.blocks = chain.Cursor{Hash: tip.Hash, Height: tip.Height}
	f.n.chain.Mempool(func(p *mempool.Pool, _ *consensus.State) { _, f.sequence, _ = p.EventsSince(math.MaxUint64, 1) })
}

// turn publishes some of what has happened; false where that was nothing.
func (f *zmqFollower) turn() bool {
	const most = 100
	u, err := f.n.chain.UpdatesSince(f.blocks, most)
	if err != nil {
		f.n.log.Warn("zmq", "err", err)
		return false
	}
	var events []mempool.Event
	f.n.chain.Mempool(func(p *mempool.Pool, _ *consensus.State) {
		events, f.sequence, _ = p.EventsSince(f.sequence, math.MaxInt)
	})
	f.blocks = u.Next
	var was bitcoin.Uint256 // work of the tip before
	if len(u.Reverted) > 0 {
		was = u.Reverted[0].Work
	}
	reverted := make([]zmqBlock, len(u.Reverted))
	for i := range reverted {
		reverted[i] = f.read(u.Reverted[i])
	}
	if len(reverted) > 0 {
		events = f.events(events, beforeRevert(events, reverted))
	}
	for i := range reverted {
		f.block(reverted[i], 'D')
	}
	for i := range u.Applied {
		b := f.read(u.Applied[i])
		events = f.events(events, untilApplied(events, b.has))
		f.block(b, 'C')
		// Of a branch that becomes the best, only the blocks from the first with more work on are news.
		if u.Applied[i].Work.Cmp(was) > 0 && !f.n.p2p.InitialDownload() {
			f.n.publish("pubhashblock", reversed(b.entry.Hash))
			if b.raw != nil {
				f.n.publish("pubrawblock", b.raw)
			}
		}
	}
	more := len(u.Reverted)+len(u.Applied)+len(events) > 0
	f.events(events, len(events))
	return more
}

// zmqBlock is a block as it is published.
type zmqBlock struct {
	entry chain.Entry
	raw   []byte
	txs   []bitcoin.Tx
	has   map[bitcoin.Hash]bool
}

func (f *zmqFollower) read(e chain.Entry) zmqBlock {
	b := zmqBlock{entry: e}
	if e.Status&blockstore.HaveData == 0 || !f.n.publishes("pubhashtx", "pubrawtx", "pubrawblock", "pubsequence") {
		return b
	}
	raw, err := f.n.chain.RawBlock(e.Hash)
	var block *bitcoin.Block
	if err == nil {
		block, err = bitcoin.ParseBlock(raw)
	}
	if err != nil {
		f.n.log.Warn("zmq: Can't read block from disk", "block", e.Hash, "err", err)
		return b
	}
	b.raw, b.txs, b.has = raw, block.Txs, make(map[bitcoin.Hash]bool, len(block.Txs))
	for i := range block.Txs {
		b.has[block.Txs[i].TxID()] = true
	}
	return b
}

// block publishes that a block was connected ('C') or disconnected ('D').
func (f *zmqFollower) block(b zmqBlock, label byte) {
	for i := range b.txs {
		f.tx(&b.txs[i])
	}
	f.n.publish("pubsequence", append(reversed(b.entry.Hash), label))
}

func (f *zmqFollower) tx(tx *bitcoin.Tx) {
	f.n.publish("pubhashtx", reversed(tx.TxID()))
	if f.n.publishes("pubrawtx") {
		f.n.publish("pubrawtx", tx.Append(nil))
	}
}

// beforeRevert returns how many events of the mempool came before blocks were disconnected: their transactions
// came back, and others are not valid any more.
func beforeRevert(list []mempool.Event, reverted []zmqBlock) int {
	until := slices.IndexFunc(list, func(e mempool.Event) bool {
		return e.Reason == mempool.Reorg || e.Reason == mempool.Added &&
			slices.ContainsFunc(reverted, func(b zmqBlock) bool { return b.has[e.TxID] })
	})
	if until < 0 {
		return len(list)
	}
	return until
}

// untilApplied returns how many events of the mempool came before it was told that a block with these
// transactions is connected: those of its own, and what conflicted with it, are the last of them.
func untilApplied(list []mempool.Event, has map[bitcoin.Hash]bool) int {
	until := 0
	for i, e := range list {
		if e.Reason == mempool.Block && has[e.TxID] {
			until = i + 1
		}
	}
	for i := until; i < len(list) && list[i].Reason != mempool.Block; i++ {
		if list[i].Reason == mempool.Conflicts || until == 0 && i+1 == len(list) {
			until = i + 1
		}
	}
	return until
}

// events publishes some of what happened to the mempool, and returns the rest.
func (f *zmqFollower) events(list []mempool.Event, until int) []mempool.Event {
	for _, e := range list[:until] {
		f.event(e)
	}
	return list[until:]
}

func (f *zmqFollower) event(e mempool.Event) {
	label := byte('R')
	switch e.Reason {
	case mempool.Block:
		return // the block tells of it
	case mempool.Added:
		label = 'A'
		var tx *bitcoin.Tx
		f.n.chain.Mempool(func(p *mempool.Pool, _ *consensus.State) {
			if entry := p.Get(e.TxID); entry != nil {
				tx = entry.Tx
			}
		})
		if tx != nil {
			f.tx(tx)
		} else { // it has left again meanwhile
			f.n.publish("pubhashtx", reversed(e.TxID))
		}
	}
	data := bytes.Join([][]byte{reversed(e.TxID), {label}, binary.LittleEndian.AppendUint64(nil, e.Sequence)}, nil)
	f.n.publish("pubsequence", data)
}
