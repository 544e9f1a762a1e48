package consensus

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

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
	g       *generator
	height  bitcoin.Height
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
	d := &draft{g: g, height: height, Block: &bitcoin.Block{
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
		solve(d.g.net, &d.Header)
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

// forget takes the current block back, as invalidateblock does, and goes to its parent.
func (g *generator) forget() {
	g.t.Helper()
	g.expectTip(g.on.name)
	g.node.tip().failed = true
	g.disconnect()
	g.goTo(g.parent(g.on).name)
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

// solve finds a nonce for the header.
func solve(net *bitcoin.Network, h *bitcoin.Header) {
	target, negative, overflow := bitcoin.CompactToTarget(h.Bits)
	if negative || overflow || target.Cmp(net.PowLimit) > 0 {
		return
	}
	for h.Nonce = 0; !bitcoin.MeetsTarget(h.Hash(), h.Bits, net.PowLimit); h.Nonce++ {
	}
}

// expectError wants an *Error of this kind and reason, or none where the reason is empty.
func expectError(t testing.TB, err error, kind Kind, reason string) {
	t.Helper()
	var e *Error
	switch {
	case reason == "" && err == nil:
	case reason == "":
		t.Errorf("refused: %v", err)
	case !errors.As(err, &e):
		t.Errorf("error %v, want %s", err, reason)
	case e.Reason != reason || e.Kind != kind:
		t.Errorf("%v of kind %d, want %s of kind %d", err, e.Kind, reason, kind)
	}
}
