package consensus

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
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
	for e := best; e.state.Height >= bitcoin.Height(len(n.chain)) || n.chain[e.state.Height] != e; e = e.parent {
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

// generator makes blocks with names and feeds them to its node. It is modelled after dcrd's
// chaingen.
type generator struct {
	*node
	on     *named // what the next block builds on
	blocks map[string]*named
	spare  []output // coinbases that nobody has spent yet, the oldest first
	nonce  int64
}

type named struct {
	name   string
	block  *bitcoin.Block
	height bitcoin.Height
}

// output is something to spend.
type output struct {
	bitcoin.OutPoint
	bitcoin.TxOut
}

// opTrue is a script that everybody can spend.
var opTrue = []byte{byte(script.Op1)}

// newGenerator returns a generator on a fresh chain.
func newGenerator(t testing.TB, net *bitcoin.Network) *generator {
	g := &generator{node: newNode(t, net), blocks: map[string]*named{}}
	g.on = &named{name: "genesis", block: net.Genesis}
	g.blocks["genesis"] = g.on
	return g
}

// newMature returns a generator with n coinbases that can be spent in the next block.
func newMature(t testing.TB, net *bitcoin.Network, n int) *generator {
	t.Helper()
	g := newGenerator(t, net)
	for i := range n + CoinbaseMaturity - 1 {
		b := g.next(fmt.Sprintf("mature.%d", i))
		if i < n {
			g.spare = append(g.spare, g.out(b.block, 0, 0))
		}
		g.accept()
	}
	return g
}

// take returns a coinbase to spend.
func (g *generator) take() output {
	out := g.spare[0]
	g.spare = g.spare[1:]
	return out
}

func (g *generator) out(b *bitcoin.Block, tx, index int) output {
	return outputOf(&b.Txs[tx], index)
}

func outputOf(tx *bitcoin.Tx, index int) output {
	return output{bitcoin.OutPoint{TxID: tx.TxID(), Index: uint32(index)}, tx.Out[index]}
}

// draft is a block that is being made.
type draft struct {
	*bitcoin.Block
	height  bitcoin.Height
	net     *bitcoin.Network
	asIs    bool // neither Merkle root nor commitment is to be put right
	noProof bool // no nonce to be sought
}

// next makes a block on the current one and goes there. The steps change it in their order; then
// Merkle root, witness commitment, if there is any witness, and proof of work are put right.
func (g *generator) next(name string, steps ...func(*draft)) *named {
	g.t.Helper()
	if g.blocks[name] != nil {
		g.t.Fatalf("there is a block %s", name)
	}
	height := g.on.height + 1
	g.nonce++
	d := &draft{height: height, net: g.net, Block: &bitcoin.Block{
		Header: bitcoin.Header{
			Version:   4,
			PrevBlock: g.on.block.Hash(),
			Time:      g.on.block.Header.Time + 1,
			Bits:      g.net.Genesis.Header.Bits,
		},
		Txs: []bitcoin.Tx{{
			Version: 1,
			In: []bitcoin.TxIn{{
				PrevOut:  bitcoin.OutPoint{Index: 0xffffffff},
				Script:   script.AppendInt(script.AppendInt(nil, int64(height)), 1000+g.nonce),
				Sequence: 0xffffffff,
			}},
			Out: []bitcoin.TxOut{{Value: Subsidy(g.net, height), Script: opTrue}},
		}},
	}}
	for _, step := range steps {
		step(d)
	}
	d.finish()
	b, err := bitcoin.ParseBlock(d.Block.Append(nil))
	if err != nil {
		g.t.Fatalf("block %s: %v", name, err)
	}
	g.on = &named{name, b, height}
	g.blocks[name] = g.on
	return g.on
}

func (d *draft) finish() {
	if !d.asIs {
		if slices.ContainsFunc(d.Txs, func(tx bitcoin.Tx) bool { return tx.HasWitness() }) {
			d.commit()
		}
		d.Header.MerkleRoot, _ = d.MerkleRoot()
	}
	if !d.noProof {
		solve(d.net, &d.Header)
	}
}

// commit makes the coinbase commit to the witnesses.
func (d *draft) commit() {
	coinbase := &d.Txs[0]
	if len(coinbase.In[0].Witness) == 0 {
		coinbase.In[0].Witness = [][]byte{make([]byte, 32)}
	}
	commitment := bitcoin.TxOut{Script: CommitmentScript(CommitmentHash(d.Block, [32]byte{}))}
	if at := WitnessCommitment(coinbase); at >= 0 {
		coinbase.Out[at] = commitment
	} else {
		coinbase.Out = append(coinbase.Out, commitment)
	}
}

// with adds transactions.
func with(txs ...*bitcoin.Tx) func(*draft) {
	return func(d *draft) {
		for _, tx := range txs {
			d.Txs = append(d.Txs, *tx.Clone())
		}
	}
}

// change runs a function on the block.
func change(f func(b *bitcoin.Block)) func(*draft) { return func(d *draft) { f(d.Block) } }

// asIs keeps Merkle root and commitment as they are. The proof of work is still sought.
func asIs(d *draft) { d.asIs = true }

// finished does what next does after the steps, for steps that spoil the result.
func finished(d *draft) { d.finish(); d.asIs = true }

// spend makes a transaction from an output that needs no signature, to an output of all its value.
func spend(from ...output) *bitcoin.Tx {
	tx := &bitcoin.Tx{Version: 1, Out: []bitcoin.TxOut{{Script: opTrue}}}
	for _, out := range from {
		tx.In = append(tx.In, bitcoin.TxIn{PrevOut: out.OutPoint, Sequence: 0xffffffff})
		tx.Out[0].Value += out.Value
	}
	return tx
}

// spendTo makes a transaction from an output, with outputs of 1 satoshi each for these scripts and
// the rest to everybody.
func spendTo(from output, scripts ...[]byte) *bitcoin.Tx {
	tx := spend(from)
	for _, to := range scripts {
		tx.Out = append(tx.Out, bitcoin.TxOut{Value: 1, Script: to})
		tx.Out[0].Value--
	}
	return tx
}

// accept submits the current block and wants it to become the tip.
func (g *generator) accept() {
	g.t.Helper()
	if err := g.submit(g.on.block); err != nil {
		g.t.Fatalf("block %s: %v", g.on.name, err)
	}
	g.expectTip(g.on.name)
}

// side submits the current block and wants it to be stored, but the tip to stay.
func (g *generator) side() {
	g.t.Helper()
	before := g.node.tip()
	if err := g.submit(g.on.block); err != nil {
		g.t.Fatalf("block %s: %v", g.on.name, err)
	}
	if g.node.tip() != before {
		g.t.Fatalf("block %s has become the tip", g.on.name)
	}
}

// reject submits the current block, wants the reason, and goes back to its parent.
func (g *generator) reject(kind Kind, reason string) {
	g.t.Helper()
	before, coins := g.node.tip(), maps.Clone(g.coins)
	err := g.submit(g.on.block)
	if err == nil {
		g.t.Fatalf("block %s accepted, want %s", g.on.name, reason)
	}
	expectError(g.t, err, kind, reason)
	if g.node.tip() != before || len(coins) != len(g.coins) {
		g.t.Fatalf("the refused block %s has changed the chain", g.on.name)
	}
	g.goTo(g.parent(g.on).name)
}

func (g *generator) parent(of *named) *named {
	for _, b := range g.blocks {
		if b.block.Hash() == of.block.Header.PrevBlock {
			return b
		}
	}
	g.t.Fatalf("block %s has no parent", of.name)
	return nil
}

// goTo makes a block the one that the next builds on.
func (g *generator) goTo(name string) {
	g.t.Helper()
	if g.on = g.blocks[name]; g.on == nil {
		g.t.Fatalf("no block %s", name)
	}
}

func (g *generator) expectTip(name string) {
	g.t.Helper()
	if got, want := g.node.tip().state.Hash, g.blocks[name].block.Hash(); got != want {
		for _, b := range g.blocks {
			if b.block.Hash() == got {
				g.t.Fatalf("tip is %s, want %s", b.name, name)
			}
		}
		g.t.Fatalf("tip is %v, want %s", got, name)
	}
}
