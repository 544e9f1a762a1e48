package consensus

import (
	"fmt"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

// TestMerkleMalleability: the list of a block can be lengthened so that the root stays
// (CVE-2012-2459). That must be told apart from an invalid block, for the right list is welcome
// afterwards.
func TestMerkleMalleability(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 4)
	chain := func(n int) []*bitcoin.Tx {
		txs := []*bitcoin.Tx{spend(g.spare[0])}
		for len(txs) < n {
			txs = append(txs, spend(outputOf(txs[len(txs)-1], 0)))
		}
		return txs
	}
	repeat := func(from int) func(*draft) {
		return change(func(b *bitcoin.Block) { b.Txs = append(b.Txs, b.Txs[from:]...) })
	}
	//	coinbase, 1, 2                 has the root of  coinbase, 1, 2, 2
	//	coinbase, 1, 2, 3, 4, 5        has that of      coinbase, 1, 2, 3, 4, 5, 4, 5
	for _, test := range []struct{ txs, from int }{{2, 2}, {5, 4}} {
		name := fmt.Sprint(test.txs, " transactions")
		g.nonce = 0
		g.next(name+", some twice", with(chain(test.txs)...), finished, repeat(test.from))
		tampered := *g.on
		if !IsMutated(g.on.block, true) {
			t.Errorf("%s: not seen to be mutated", name)
		}
		g.reject(KindMutated, "bad-txns-duplicate")
		g.nonce = 0
		g.next(name, with(chain(test.txs)...))
		if g.on.block.Hash() != tampered.block.Hash() {
			t.Fatal("the blocks have different hashes")
		}
		if IsMutated(g.on.block, true) {
			t.Errorf("%s: mutated", name)
		}
		g.accept()
		g.forget()
	}
}

// TestWitnessMalleability: whoever passes a block on can spoil its witnesses, and its weight by
// them. Neither may make the block invalid.
func TestWitnessMalleability(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 4)
	for i, row := range []struct {
		want  string
		spoil func(b *bitcoin.Block)
	}{
		{"bad-witness-merkle-match", func(b *bitcoin.Block) {
			b.Txs[2].In[0].Witness[0] = []byte{0}
		}},
		{"bad-witness-merkle-match", func(b *bitcoin.Block) {
			b.Txs[2].In[0].Witness = append(b.Txs[2].In[0].Witness, make([]byte, MaxBlockWeight))
		}},
		{"bad-witness-nonce-size", func(b *bitcoin.Block) {
			b.Txs[0].In[0].Witness = append(b.Txs[0].In[0].Witness, make([]byte, MaxBlockWeight))
		}},
		{"bad-witness-nonce-size", func(b *bitcoin.Block) { b.Txs[0].In[0].Witness = nil }},
	} {
		g.nonce = 0
		g.next(fmt.Sprint("spoilt ", i), validBlock, finished, change(row.spoil))
		if !IsMutated(g.on.block, true) {
			t.Errorf("row %d: not seen to be mutated", i)
		}
		g.reject(KindMutated, row.want)
	}
	g.nonce = 0
	g.next("whole", validBlock)
	if g.on.block.Hash() != g.blocks["spoilt 0"].block.Hash() {
		t.Fatal("the spoilt blocks have other hashes")
	}
	g.accept()
}

// TestIsMutated64: a transaction of 64 octets may be a node of the tree, in a block that has no
// coinbase.
func TestIsMutated64(t *testing.T) {
	tx := bitcoin.Tx{In: make([]bitcoin.TxIn, 1), Out: []bitcoin.TxOut{{Script: make([]byte, 4)}}}
	if tx.BaseSize() != 64 {
		t.Fatalf("size %d", tx.BaseSize())
	}
	seal := func(txs ...bitcoin.Tx) *bitcoin.Block {
		b := &bitcoin.Block{Txs: txs}
		b.Header.MerkleRoot, _ = b.MerkleRoot()
		return b
	}
	longer := tx
	longer.Out = []bitcoin.TxOut{{Script: make([]byte, 5)}}
	coinbase := longer
	coinbase.In = []bitcoin.TxIn{{PrevOut: bitcoin.OutPoint{Index: 0xffffffff}}}
	for _, row := range []struct {
		name  string
		block *bitcoin.Block
		want  bool
	}{
		{"64 octets, no coinbase", seal(longer, tx), true},
		{"65 octets, no coinbase", seal(longer), false},
		{"64 octets after a coinbase", seal(coinbase, tx), false},
		{"no transaction", seal(), false},
		{"wrong root", &bitcoin.Block{Txs: []bitcoin.Tx{coinbase}}, true},
	} {
		if got := IsMutated(row.block, true); got != row.want {
			t.Errorf("%s: %v", row.name, got)
		}
	}
	withWitness := coinbase
	withWitness.In = []bitcoin.TxIn{{PrevOut: coinbase.In[0].PrevOut, Witness: [][]byte{{1}}}}
	if !IsMutated(seal(withWitness), false) {
		t.Error("a witness before segwit is no mutation")
	}
}
