package wire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

func readCompact(t testing.TB, file string) *CmpctBlock {
	t.Helper()
	raw := readVector(t, file)
	m, err := Parse("cmpctblock", raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Append(nil), raw) {
		t.Fatalf("%s encoded again differs", file)
	}
	return m.(*CmpctBlock)
}

// version1 lists the compact blocks among the vectors. They were made with version 1 of BIP 152,
// whose short ids come from txids; the arithmetic is the same.
var version1 = []struct{ compact, block string }{
	{"compact426884.raw", "block426884.raw"},
	{"compact898352.raw", "block898352.raw"},
}

// withoutWitness returns the transaction without its witnesses: its wtxid is then its txid.
func withoutWitness(t testing.TB, tx *bitcoin.Tx) *bitcoin.Tx {
	t.Helper()
	base, err := bitcoin.ParseTx(tx.AppendBase(nil))
	if err != nil {
		t.Fatal(err)
	}
	return base
}

func TestRealCompactBlocks(t *testing.T) {
	for _, row := range version1 {
		t.Run(row.compact, func(t *testing.T) {
			m, block := readCompact(t, row.compact), readBlock(t, row.block)
			if m.Header != block.Header {
				t.Fatal("header differs")
			}
			p, err := NewPartial(m)
			if err != nil {
				t.Fatal(err)
			}
			for i := range block.Txs[1:] {
				p.Offer(withoutWitness(t, &block.Txs[i+1]))
			}
			if missing := p.Missing(); len(missing) != 0 {
				t.Fatalf("missing %v", missing)
			}
			got, err := p.Fill(nil)
			if err != nil {
				t.Fatal(err)
			}
			if got.Hash() != block.Hash() || len(got.Txs) != len(block.Txs) {
				t.Error("another block")
			}
		})
	}
}

// What we make of a real block comes back, whichever part of it the receiver has.
func TestCompactBlockRoundTrip(t *testing.T) {
	block := readBlock(t, "0866342.bin")
	m := NewCmpctBlock(block, 12345)
	parsed, err := Parse("cmpctblock", m.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, every := range []int{1, 2, 100, 100_000} {
		p, err := NewPartial(parsed.(*CmpctBlock))
		if err != nil {
			t.Fatal(err)
		}
		for i := every; i < len(block.Txs); i += every {
			p.Offer(&block.Txs[i])
		}
		asked, err := Parse("getblocktxn", (&GetBlockTxn{block.Hash(), p.Missing()}).Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		answer := &BlockTxn{Block: block.Hash()}
		for _, i := range asked.(*GetBlockTxn).Indexes {
			answer.Txs = append(answer.Txs, block.Txs[i])
		}
		got, err := Parse("blocktxn", answer.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		rebuilt, err := p.Fill(got.(*BlockTxn).Txs)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(rebuilt.Append(nil), block.Append(nil)) {
			t.Errorf("with every %dth transaction known the block differs", every)
		}
	}
}

func TestOfferStopsWhenComplete(t *testing.T) {
	block := readBlock(t, "block482683.raw")
	p, err := NewPartial(NewCmpctBlock(block, 1))
	if err != nil {
		t.Fatal(err)
	}
	stranger := testTx(t, true)
	if !p.Offer(stranger) {
		t.Error("a stranger completes the block")
	}
	for i := 1; i < len(block.Txs); i++ {
		if more := p.Offer(&block.Txs[i]); more != (i < len(block.Txs)-1) {
			t.Errorf("after %d of %d transactions: more %v", i, len(block.Txs)-1, more)
		}
		if p.Offer(&block.Txs[i]) != (i < len(block.Txs)-1) {
			t.Error("the same transaction twice changes something")
		}
	}
}

// TestOfferCollision gives two transactions the short id of one place: the place is then asked for.
// The collision is made by a key that gives all transactions one id.
func TestOfferCollision(t *testing.T) {
	one, two := testTx(t, true), testTx(t, false)
	coinbase := testTx(t, false)
	m := &CmpctBlock{Header: bitcoin.Header{Version: 1}, Prefilled: []Prefilled{{0, coinbase}}}
	m.ShortIDs = []ShortID{m.Key().ShortID(one.WTxID())}
	p, err := NewPartial(m)
	if err != nil {
		t.Fatal(err)
	}
	p.place[p.key.ShortID(two.WTxID())] = 1
	p.Offer(one)
	if len(p.Missing()) != 0 {
		t.Fatal("offered and missing")
	}
	p.Offer(two)
	if missing := p.Missing(); len(missing) != 1 || missing[0] != 1 {
		t.Errorf("missing %v after a collision", missing)
	}
	p.Offer(one)
	if len(p.Missing()) != 1 {
		t.Error("a place that collided is filled again by an offer")
	}
}

func TestPartialRefuses(t *testing.T) {
	tx := testTx(t, false)
	empty, err := bitcoin.ParseTx(unhex(t, "02000000 00 00 00000000"))
	if err != nil {
		t.Fatal(err)
	}
	header := bitcoin.Header{Version: 1}
	ids := make([]ShortID, 65535)
	for i := range ids {
		ids[i] = ShortID(i)
	}
	for _, row := range []struct {
		name string
		m    CmpctBlock
		err  error
	}{
		{"coinbase alone", CmpctBlock{Header: header, Prefilled: []Prefilled{{0, tx}}}, nil},
		{"prefilled at both ends", CmpctBlock{Header: header, ShortIDs: ids[:1],
			Prefilled: []Prefilled{{0, tx}, {1, tx}}}, nil},
		{"nothing", CmpctBlock{Header: header}, ErrCompactInvalid},
		{"null header", CmpctBlock{Prefilled: []Prefilled{{0, tx}}}, ErrCompactInvalid},
		{"prefilled beyond the end", CmpctBlock{Header: header, ShortIDs: ids[:1],
			Prefilled: []Prefilled{{0, tx}, {2, tx}}}, ErrCompactInvalid},
		{"prefilled transaction without inputs and outputs",
			CmpctBlock{Header: header, Prefilled: []Prefilled{{0, empty}}}, ErrCompactInvalid},
		{"two equal short ids", CmpctBlock{Header: header, ShortIDs: []ShortID{5, 5},
			Prefilled: []Prefilled{{0, tx}}}, ErrCompactFailed},
		{"place beyond 65535", CmpctBlock{Header: header, ShortIDs: ids,
			Prefilled: []Prefilled{{0, tx}, {65535, tx}}}, ErrCompactInvalid},
		{"more than fit a block", CmpctBlock{Header: header, ShortIDs: make([]ShortID, 100_001)},
			ErrCompactInvalid},
	} {
		if _, err := NewPartial(&row.m); !errors.Is(err, row.err) || row.err == nil && err != nil {
			t.Errorf("%s: %v, want %v", row.name, err, row.err)
		}
	}
}

func TestFillRefuses(t *testing.T) {
	block := readBlock(t, "block482683.raw")
	begin := func() *Partial {
		p, err := NewPartial(NewCmpctBlock(block, 1))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	rest := block.Txs[1:]
	swapped := append([]bitcoin.Tx(nil), rest...)
	swapped[0], swapped[1] = swapped[1], swapped[0]
	for _, row := range []struct {
		name string
		txs  []bitcoin.Tx
		err  error
	}{
		{"all that is missing", rest, nil},
		{"one too few", rest[1:], ErrCompactInvalid},
		{"one too many", append(rest[:len(rest):len(rest)], rest[0]), ErrCompactInvalid},
		{"two swapped", swapped, ErrCompactFailed},
	} {
		p := begin()
		if _, err := p.Fill(row.txs); !errors.Is(err, row.err) || row.err == nil && err != nil {
			t.Errorf("%s: %v, want %v", row.name, err, row.err)
		}
		if row.err == nil { // CVE-2024-35202: a second blocktxn for the same block
			if _, err := p.Fill(row.txs); !errors.Is(err, ErrCompactInvalid) {
				t.Errorf("filled twice: %v", err)
			}
		}
	}
}

func BenchmarkReconstruct866342(b *testing.B) {
	block := readBlock(b, "0866342.bin")
	m := NewCmpctBlock(block, 12345)
	b.ReportAllocs()
	for b.Loop() {
		p, err := NewPartial(m)
		if err != nil {
			b.Fatal(err)
		}
		for i := range block.Txs[1:] {
			p.Offer(&block.Txs[i+1])
		}
		if _, err := p.Fill(nil); err != nil {
			b.Fatal(err)
		}
	}
}
