package index

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/internal/vectors"
)

func element(i byte) []byte {
	b := make([]byte, 32)
	b[0] = i
	return b
}

// The expected hash is that of Bitcoin Core's crypto_tests.cpp, muhash_tests.
func TestMuHashVector(t *testing.T) {
	var m MuHash
	m.Insert(element(0))
	m.Insert(element(1))
	m.Remove(element(2))
	const want = "10d312b100cbd32ada024a6646e40d3482fcff103668d2625f10002a607d5863"
	if got := m.Sum().String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestMuHashOrder: the order of additions and removals does not matter, nor does a state in between.
func TestMuHashOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var a, b, c MuHash
		var table []byte
		for range 6 {
			table = append(table, byte(rng.IntN(16)))
		}
		for i := range table {
			for order, m := range []*MuHash{&a, &b, &c} {
				if x := table[[]int{i, len(table) - 1 - i, i ^ 1}[order]]; x&8 != 0 {
					m.Remove(element(x & 7))
				} else {
					m.Insert(element(x & 7))
				}
			}
			if rng.IntN(2) == 0 {
				state := c.Bytes()
				c = MuHash{}
				c.Load(&state)
			}
		}
		if a.Sum() != b.Sum() || a.Sum() != c.Sum() {
			t.Fatalf("%v: %v, %v, %v", table, a.Sum(), b.Sum(), c.Sum())
		}
		var sum, empty MuHash
		sum.Combine(&a)
		sum.Combine(&b)
		for _, x := range table {
			for range 2 {
				if x&8 != 0 {
					sum.Insert(element(x & 7))
				} else {
					sum.Remove(element(x & 7))
				}
			}
		}
		if sum.Sum() != empty.Sum() {
			t.Fatalf("%v: what was added and taken away is still there", table)
		}
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The vectors are those of BIP 158 as Bitcoin Core has them.
func TestFilterVectors(t *testing.T) {
	var rows [][]any
	if err := json.Unmarshal(vectors.Read(t, "bitcoin/core/blockfilters.json"), &rows); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		b, err := bitcoin.ParseBlock(unhex(t, row[2].(string)))
		if err != nil {
			t.Fatal(err)
		}
		var spent consensus.Spent
		for _, s := range row[3].([]any) {
			spent.Outs = append(spent.Outs, bitcoin.TxOut{Script: unhex(t, s.(string))})
		}
		prev, err := bitcoin.ParseHash(row[4].(string))
		if err != nil {
			t.Fatal(err)
		}
		elements := Elements(b, spent)
		filter := EncodeFilter(b.Hash(), elements)
		if want := unhex(t, row[5].(string)); !bytes.Equal(filter, want) {
			t.Errorf("block %v: filter %x, want %x", row[0], filter, want)
		}
		if got := FilterHeader(FilterHash(filter), prev).String(); got != row[6] {
			t.Errorf("block %v: header %s, want %s", row[0], got, row[6])
		}
		if n, err := CheckFilter(filter); err != nil || n != len(distinct(Elements(b, spent))) {
			t.Errorf("block %v: %d elements, %v", row[0], n, err)
		}
	}
}

func TestMatchFilter(t *testing.T) {
	block := bitcoin.DoubleHash([]byte("a block"))
	var in, out [][]byte
	for i := range 300 {
		in = append(in, []byte{'i', byte(i), byte(i >> 8)})
		out = append(out, []byte{'o', byte(i), byte(i >> 8)})
	}
	filter := EncodeFilter(block, append(in[:300:300], in[7], in[9]))
	for _, e := range in {
		if ok, err := MatchFilter(filter, block, [][]byte{out[0], e, out[1]}); !ok || err != nil {
			t.Fatalf("%x is not found: %v", e, err)
		}
	}
	if ok, err := MatchFilter(filter, block, out); ok || err != nil { // 300*300/784931 would be bad luck
		t.Errorf("what is not there is found: %v", err)
	}
	if ok, _ := MatchFilter(EncodeFilter(block, nil), block, out); ok {
		t.Error("the empty filter has something")
	}
	if _, err := MatchFilter(filter[:len(filter)/2], block, [][]byte{{1, 2}}); err != errFilter {
		t.Logf("half a filter: %v", err) // it may end early where nothing greater is asked for
	}
	if _, err := CheckFilter(filter[:len(filter)/2]); err != errFilter {
		t.Errorf("half a filter: %v", err)
	}
	if _, err := CheckFilter(append(filter, 0)); err != errFilter {
		t.Errorf("a filter and more: %v", err)
	}
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte{3, 1, 2, 3, 4, 5, 6, 7, 8, 9}, []byte("element"))
	f.Add([]byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff}, []byte(nil))
	f.Fuzz(func(t *testing.T, filter, e []byte) {
		block := bitcoin.DoubleHash(e)
		n, err := CheckFilter(filter)
		if _, matchErr := MatchFilter(filter, block, [][]byte{e}); err == nil && matchErr != nil {
			t.Errorf("%x is well-formed with %d elements, and cannot be searched", filter, n)
		}
		made := EncodeFilter(block, [][]byte{e, filter, e})
		if ok, err := MatchFilter(made, block, [][]byte{filter}); !ok || err != nil {
			t.Errorf("%x is not found in its filter: %v", filter, err)
		}
	})
}

func BenchmarkMuHashInsert(b *testing.B) {
	var m MuHash
	e := make([]byte, 80)
	for i := range b.N {
		e[0], e[1] = byte(i), byte(i>>8)
		m.Insert(e)
	}
}

func BenchmarkMuHashSum(b *testing.B) {
	var m MuHash
	for i := range b.N {
		m.Insert(element(byte(i)))
		m.Remove(element(byte(i + 1)))
		m.Sum()
	}
}
