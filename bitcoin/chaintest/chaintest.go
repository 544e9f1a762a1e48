// Package chaintest makes valid chains of blocks for tests, on regtest or any network as easy: each
// block has a name, and what is wrong with one is put there by the test. It is for tests only.
package chaintest

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// Anyone returns an output script that everybody can spend, in a standard form: the hash of a
// witness script that is just true. The witness for it is AnyoneWitness.
func Anyone() []byte {
	program := sha256.Sum256(AnyoneWitness()[0])
	return script.PayToWitness(0, program[:])
}

// AnyoneWitness returns what spends Anyone.
func AnyoneWitness() [][]byte { return [][]byte{{byte(script.Op1)}} }

// Gen makes blocks. Its current block is the one that the next builds on. The zero Gen is not
// ready; see New.
type Gen struct {
	Net    *bitcoin.Network
	t      testing.TB
	on     *named
	blocks map[string]*named
	nonce  int64
}

type named struct {
	block  *bitcoin.Block
	height bitcoin.Height
}

// Output is something to spend.
type Output struct {
	bitcoin.OutPoint
	bitcoin.TxOut
}

// New returns a generator that stands on the genesis block, whose name is "genesis".
func New(t testing.TB, net *bitcoin.Network) *Gen {
	g := &Gen{Net: net, t: t, blocks: make(map[string]*named)}
	g.on = &named{block: net.Genesis}
	g.blocks["genesis"] = g.on
	return g
}

// Draft is a block that is being made. Steps change it.
type Draft struct {
	*bitcoin.Block
	Height bitcoin.Height
	AsIs   bool // neither Merkle root nor witness commitment is to be put right
}

// Next makes a block on the current one, which it becomes. The steps change it in their order; then
// Merkle root, witness commitment, if there is any witness, and proof of work are put right.
func (g *Gen) Next(name string, steps ...func(*Draft)) *bitcoin.Block {
	g.t.Helper()
	if g.blocks[name] != nil {
		g.t.Fatalf("there is a block %s", name)
	}
	d := g.draft()
	for _, step := range steps {
		step(d)
	}
	if !d.AsIs {
		Finish(d)
	}
	Solve(g.Net, &d.Header)
	b, err := bitcoin.ParseBlock(d.Block.Append(nil))
	if err != nil {
		g.t.Fatalf("block %s: %v", name, err)
	}
	g.on = &named{b, d.Height}
	g.blocks[name] = g.on
	return b
}

func (g *Gen) draft() *Draft {
	height := g.on.height + 1
	g.nonce++
	return &Draft{Height: height, Block: &bitcoin.Block{
		Header: bitcoin.Header{
			Version:   4,
			PrevBlock: g.on.block.Hash(),
			Time:      g.on.block.Header.Time + 1,
			Bits:      g.Net.Genesis.Header.Bits,
		},
		Txs: []bitcoin.Tx{{
			Version: 1,
			In: []bitcoin.TxIn{{
				PrevOut:  bitcoin.OutPoint{Index: 0xffffffff},
				Script:   script.AppendInt(script.AppendInt(nil, int64(height)), 1000+g.nonce),
				Sequence: 0xffffffff,
			}},
			Out: []bitcoin.TxOut{{Value: consensus.Subsidy(g.Net, height), Script: Anyone()}},
		}},
	}}
}

// Run makes n blocks without transactions, named prefix.0 and so on, and returns them.
func (g *Gen) Run(prefix string, n int) []*bitcoin.Block {
	blocks := make([]*bitcoin.Block, n)
	for i := range blocks {
		blocks[i] = g.Next(fmt.Sprintf("%s.%d", prefix, i))
	}
	return blocks
}

// Goto makes a block the one that the next builds on.
func (g *Gen) Goto(name string) {
	g.t.Helper()
	g.on = g.named(name)
}

// Block returns the block of a name.
func (g *Gen) Block(name string) *bitcoin.Block {
	g.t.Helper()
	return g.named(name).block
}

// Height returns the height of the block of a name.
func (g *Gen) Height(name string) bitcoin.Height {
	g.t.Helper()
	return g.named(name).height
}

// Name returns the name of a block by its hash, or the hash.
func (g *Gen) Name(hash bitcoin.Hash) string {
	for name, b := range g.blocks {
		if b.block.Hash() == hash {
			return name
		}
	}
	return hash.String()
}

func (g *Gen) named(name string) *named {
	g.t.Helper()
	b := g.blocks[name]
	if b == nil {
		g.t.Fatalf("no block %s", name)
	}
	return b
}

// Coinbase returns the first output of the coinbase of a block.
func (g *Gen) Coinbase(name string) Output {
	g.t.Helper()
	return OutputOf(&g.Block(name).Txs[0], 0)
}

// OutputOf returns an output of a transaction.
func OutputOf(tx *bitcoin.Tx, index int) Output {
	return Output{bitcoin.OutPoint{TxID: tx.TxID(), Index: uint32(index)}, tx.Out[index]}
}

// With adds transactions to a block.
func With(txs ...*bitcoin.Tx) func(*Draft) {
	return func(d *Draft) {
		for _, tx := range txs {
			d.Txs = append(d.Txs, *tx.Clone())
		}
	}
}

// Spend makes a transaction from outputs to Anyone to another one, of all their value but the fee.
func Spend(fee bitcoin.Amount, from ...Output) *bitcoin.Tx {
	tx := &bitcoin.Tx{Version: 2, Out: []bitcoin.TxOut{{Value: -fee, Script: Anyone()}}}
	for _, out := range from {
		tx.In = append(tx.In, bitcoin.TxIn{PrevOut: out.OutPoint, Sequence: 0xffffffff,
			Witness: AnyoneWitness()})
		tx.Out[0].Value += out.Value
	}
	return tx
}

// Finish puts the Merkle root of a block right and, if it has any witness, the commitment.
func Finish(d *Draft) {
	if slices.ContainsFunc(d.Txs, func(tx bitcoin.Tx) bool { return tx.HasWitness() }) {
		commit(d.Block)
	}
	d.Header.MerkleRoot, _ = d.MerkleRoot()
}

func commit(b *bitcoin.Block) {
	coinbase := &b.Txs[0]
	if len(coinbase.In[0].Witness) == 0 {
		coinbase.In[0].Witness = [][]byte{make([]byte, 32)}
	}
	hash := consensus.CommitmentHash(b, [32]byte(coinbase.In[0].Witness[0]))
	out := bitcoin.TxOut{Script: consensus.CommitmentScript(hash)}
	if at := consensus.WitnessCommitment(coinbase); at >= 0 {
		coinbase.Out[at] = out
	} else {
		coinbase.Out = append(coinbase.Out, out)
	}
}

// Solve finds a nonce for a header.
func Solve(net *bitcoin.Network, h *bitcoin.Header) {
	for h.Nonce = 0; !bitcoin.MeetsTarget(h.Hash(), h.Bits, net.PowLimit); h.Nonce++ {
	}
}
