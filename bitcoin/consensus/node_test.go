package consensus

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
)

// node is the least that keeps a chain by the rules: all blocks and all coins in memory, most work
// wins, the first seen where it is equal.
type node struct {
	t     testing.TB
	net   *bitcoin.Network
	now   time.Time
	index map[bitcoin.Hash]*entry
	order []*entry // as seen
	chain []*entry // the best branch by height
	coins map[bitcoin.OutPoint]Coin
	sum   uint64 // over the coins
}

// entry is a block that a node has stored.
type entry struct {
	parent *entry
	state  State
	block  *Candidate // nil for the genesis block
	undo   Spent
	sum    uint64 // over the coins as this block leaves them
	failed bool
}

func newNode(t testing.TB, net *bitcoin.Network) *node {
	genesis := &entry{state: Genesis(net)}
	return &node{
		t:     t,
		net:   net,
		now:   time.Unix(2_000_000_000, 0),
		index: map[bitcoin.Hash]*entry{genesis.state.Hash: genesis},
		order: []*entry{genesis},
		chain: []*entry{genesis},
		coins: map[bitcoin.OutPoint]Coin{},
	}
}

func (n *node) tip() *entry { return n.chain[len(n.chain)-1] }

// Coins and MedianTimePast make the node the View of its best branch.
func (n *node) Coins(outs []bitcoin.OutPoint, coins []Coin) error {
	for i := range outs {
		coins[i] = n.coins[outs[i]]
	}
	return nil
}

func (n *node) MedianTimePast(height bitcoin.Height) (uint32, error) {
	return n.chain[height].state.MedianTimePast(), nil
}

// submit takes a block in: stored if it may be, connected if it has most work. The error is the
// first that any block gave on the way.
func (n *node) submit(b *bitcoin.Block) error {
	parent := n.index[b.Header.PrevBlock]
	switch {
	case n.index[b.Hash()] != nil && n.index[b.Hash()].failed:
		return &Error{KindCachedInvalid, "duplicate-invalid", ""}
	case n.index[b.Hash()] != nil:
		return nil
	case parent == nil:
		return &Error{KindMissingPrev, "prev-blk-not-found", ""}
	case parent.failed:
		return &Error{KindInvalidPrev, "bad-prevblk", ""}
	}
	if err := CheckHeader(parent.state, &b.Header, b.Hash(), n.now); err != nil {
		return err
	}
	e := &entry{parent: parent, state: parent.state.Apply(&b.Header, b.Hash())}
	var err error
	if e.block, err = NewCandidate(n.net, b, 0); err == nil {
		err = CheckBlockAt(parent.state, b)
	}
	if err != nil {
		if err.(*Error).Kind != KindMutated {
			e.failed = true
			n.index[b.Hash()] = e
		}
		return err
	}
	n.index[b.Hash()] = e
	n.order = append(n.order, e)
	return n.activate()
}

// activate makes the branch with most work the best one.
func (n *node) activate() (first error) {
	for {
		best := n.tip()
		for _, e := range n.order {
			if !e.failed && e.state.Work.Cmp(best.state.Work) > 0 {
				best = e
			}
		}
		if best == n.tip() {
			return first
		}
		if err := n.switchTo(best); err != nil && first == nil {
			first = err
		}
	}
}

// switchTo goes back to where the branch of an entry begins, then along it; a block that cannot be
// connected takes all that follow it with it.
func (n *node) switchTo(best *entry) error {
	var path []*entry
	for e := best; !n.onBest(e); e = e.parent {
		path = append(path, e)
	}
	fork := best.state.Height - bitcoin.Height(len(path))
	for n.tip().state.Height > fork {
		n.disconnect()
	}
	for _, e := range slices.Backward(path) {
		if err := n.connect(e); err != nil {
			e.failed = true
			for _, later := range n.order {
				later.failed = later.failed || later.parent != nil && later.parent.failed
			}
			return err
		}
	}
	return nil
}

func (n *node) onBest(e *entry) bool {
	return int(e.state.Height) < len(n.chain) && n.chain[e.state.Height] == e
}

func (n *node) connect(e *entry) error {
	state, diff, err := Connect(e.parent.state, e.block, n)
	if err != nil {
		return err
	}
	if state != e.state {
		n.t.Fatalf("connecting %v gives another state than its header", state.Hash)
	}
	if err := RunChecks(context.Background(), 2, diff.Checks()); err != nil {
		return err
	}
	for out, coin := range diff.Spent() {
		n.remove(out, coin)
	}
	for out, coin := range diff.Created() {
		n.add(out, coin)
	}
	e.undo, e.sum = diff.Undo, n.sum
	n.chain = append(n.chain, e)
	return nil
}

func (n *node) disconnect() {
	e := n.tip()
	reversal, err := Disconnect(e.state, e.block, e.undo, n)
	if err != nil {
		n.t.Fatal(err)
	}
	if !reversal.Clean {
		n.t.Fatalf("disconnect %v: not clean", e.state.Hash)
	}
	for out := range reversal.Removed() {
		n.remove(out, n.coins[out])
	}
	for out, coin := range reversal.Restored() {
		n.add(out, coin)
	}
	n.chain = n.chain[:len(n.chain)-1]
	if n.sum != n.tip().sum {
		n.t.Fatalf("after disconnecting %v the coins are not those of before", e.state.Hash)
	}
}

func (n *node) add(out bitcoin.OutPoint, coin Coin) {
	if coin.IsSpent() {
		n.t.Fatalf("coin %v of no block", out)
	}
	if _, there := n.coins[out]; there {
		n.t.Fatalf("coin %v is there already", out)
	}
	n.coins[out] = coin
	n.sum += digest(out, coin)
}

func (n *node) remove(out bitcoin.OutPoint, coin Coin) {
	there, ok := n.coins[out]
	if !ok || digest(out, there) != digest(out, coin) {
		n.t.Fatalf("coin %v is %+v, not %+v", out, there, coin)
	}
	delete(n.coins, out)
	n.sum -= digest(out, coin)
}

// digest is a number for a coin; their sum is one for a set.
func digest(out bitcoin.OutPoint, c Coin) uint64 {
	b := c.Out.Append(out.Append(nil))
	b = binary.LittleEndian.AppendUint32(b, uint32(c.Height))
	if c.Coinbase {
		b = append(b, 1)
	}
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}
