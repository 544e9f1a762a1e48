package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

// The rows are those of Core's hash_tests.
func TestMurmur3(t *testing.T) {
	for _, row := range []struct {
		want, seed uint32
		data       string
	}{
		{0x00000000, 0x00000000, ""}, {0x6a396f08, 0xfba4c795, ""}, {0x81f16f39, 0xffffffff, ""},
		{0x514e28b7, 0, "00"}, {0xea3f0b17, 0xfba4c795, "00"}, {0xfd6cf10d, 0, "ff"},
		{0x16c6b7ab, 0, "0011"}, {0x8eb51c3d, 0, "001122"}, {0xb4471bf8, 0, "00112233"},
		{0xe2301fa8, 0, "0011223344"}, {0xfc2e4a15, 0, "001122334455"},
		{0xb074502c, 0, "00112233445566"}, {0x8034d2a0, 0, "0011223344556677"},
		{0xb4698def, 0, "001122334455667788"},
	} {
		if got := murmur3(row.seed, unhex(t, row.data)); got != row.want {
			t.Errorf("%x of %q: %08x, want %08x", row.seed, row.data, got, row.want)
		}
	}
}

// The filters are those of Core's bloom_tests, "bloom_create_insert_serialize".
func TestBloomFilter(t *testing.T) {
	for tweak, want := range map[uint32]string{
		0:          "03614e9b050000000000000001",
		2147483649: "03ce4299050000000100008001",
	} {
		f := NewBloom(3, 0.01, tweak, BloomUpdateAll)
		for _, s := range []string{
			"99108ad8ed9bb6274d3980bab5a85c048f0950c8",
			"b5a2c786d9ef4658287ced5914b37a1b4aa32eee",
			"b9300670b4c5366e95b2699e8b18bc75e5f729c5",
		} {
			f.Add(unhex(t, s))
			if !f.Has(unhex(t, s)) {
				t.Errorf("%s was added and is not there", s)
			}
		}
		if f.Has(unhex(t, "19108ad8ed9bb6274d3980bab5a85c048f0950c8")) {
			t.Error("what was not added is there")
		}
		if got := (&FilterLoad{*f}).Append(nil); hex.EncodeToString(got) != want {
			t.Errorf("tweak %d: %x, want %s", tweak, got, want)
		}
	}
}

// A filter without bits matches everything and takes nothing (CVE-2013-5700).
func TestBloomEmpty(t *testing.T) {
	f := &Bloom{Hashes: 10}
	f.Add([]byte{1})
	if !f.Has([]byte{2}) || !f.Match(testTx(t, false)) {
		t.Error("an empty filter does not match")
	}
}

func TestBloomMatch(t *testing.T) {
	key := "02" + strings.Repeat("11", 32)
	keyHash := strings.Repeat("22", 20)
	pushed := strings.Repeat("33", 30)
	tx := &bitcoin.Tx{
		In: []bitcoin.TxIn{{PrevOut: bitcoin.OutPoint{TxID: bitcoin.Hash{7}, Index: 3},
			Script: unhex(t, "1e"+pushed)}},
		Out: []bitcoin.TxOut{
			{Script: unhex(t, "21"+key+"ac")},
			{Script: unhex(t, "76a914"+keyHash+"88ac")},
			{Script: unhex(t, "51 21"+key+"21"+key+"52ae")},
			{Script: unhex(t, "6a4c04deadbeef")},
			{Script: unhex(t, "4d0500 0102")}, // a push that is cut short
		},
	}
	txid := tx.TxID()
	spend := func(i uint32) []byte { return bitcoin.OutPoint{TxID: txid, Index: i}.Append(nil) }
	for _, row := range []struct {
		name    string
		element []byte
		flags   BloomUpdate
		match   bool
		learns  []uint32 // outputs whose spending then matches
	}{
		{"nothing", nil, BloomUpdateAll, false, nil},
		{"its id", txid[:], BloomUpdateAll, true, nil},
		{"a key", unhex(t, key), BloomUpdateAll, true, []uint32{0, 2}},
		{"a key, learning keys", unhex(t, key), BloomUpdatePubKey, true, []uint32{0, 2}},
		{"a key, learning nothing", unhex(t, key), BloomUpdateNone, true, nil},
		{"a key hash", unhex(t, keyHash), BloomUpdateAll, true, []uint32{1}},
		{"a key hash, learning keys", unhex(t, keyHash), BloomUpdatePubKey, true, nil},
		{"data after OP_RETURN", unhex(t, "deadbeef"), BloomUpdateAll, true, []uint32{3}},
		{"the outpoint spent", tx.In[0].PrevOut.Append(nil), BloomUpdateAll, true, nil},
		{"a push in the input", unhex(t, pushed), BloomUpdateAll, true, nil},
		{"a push that is cut short", unhex(t, "0102"), BloomUpdateAll, false, nil},
	} {
		f := NewBloom(10, 0.000001, 0, row.flags)
		if row.element != nil {
			f.Add(row.element)
		}
		if f.Match(tx) != row.match {
			t.Errorf("%s: match %v", row.name, !row.match)
		}
		var learns []uint32
		for i := range tx.Out {
			if f.Has(spend(uint32(i))) {
				learns = append(learns, uint32(i))
			}
		}
		if len(learns) != len(row.learns) || len(learns) > 0 && learns[0] != row.learns[0] {
			t.Errorf("%s: learns %v, want %v", row.name, learns, row.learns)
		}
	}
}

// A push is as long as four octets say: another implementation read only two of them.
func TestLongPush(t *testing.T) {
	data := bytes.Repeat([]byte{7}, 1<<16+5)
	for name, row := range map[string]struct {
		script []byte
		want   bool
	}{
		"OP_PUSHDATA4 of 65,541":        {append(unhex(t, "4e05000100"), data...), true},
		"OP_PUSHDATA4 that is too long": {append(unhex(t, "4e06000100"), data...), false},
		"OP_PUSHDATA4 of 2^32-1":        {append(unhex(t, "4effffffff"), data...), false},
		"OP_PUSHDATA4 without a length": {unhex(t, "4e0500"), false},
		"OP_PUSHDATA2 of 5":             {append(unhex(t, "4d0500"), data...), false},
	} {
		f := NewBloom(1, 0.000001, 0, BloomUpdateNone)
		f.Add(data)
		if f.hasPush(row.script) != row.want {
			t.Errorf("%s: %v", name, !row.want)
		}
	}
}

func TestIsBareKeys(t *testing.T) {
	short, long := "21 02"+strings.Repeat("11", 32), "41 04"+strings.Repeat("11", 64)
	for script, want := range map[string]bool{
		short + "ac": true, long + "ac": true,
		"51" + short + long + "52ae": true, "52" + short + short + "52ae": true,
		"51" + strings.Repeat(short, 17) + "0111ae": true, // 17 keys, as a push
		"": false, "ac": false, "ae": false, short: false, short + "acac": false,
		"53" + short + short + "52ae":              false, // 3 of 2
		"00" + short + "51ae":                      false, // 0 of 1
		"51" + short + "52ae":                      false, // 1 of 2 with one key
		"51" + short + "51":                        false,
		"51" + short + "61 51ae":                   false,
		"51" + strings.Repeat(short, 1) + "0101ae": false, // not minimal
		"20" + strings.Repeat("11", 32) + "ac":     false,
	} {
		if got := isBareKeys(unhex(t, script)); got != want {
			t.Errorf("%.60s: %v", script, got)
		}
	}
}

// TestPartialTree builds the proof for random matches in trees of many sizes and takes it apart
// again.
func TestPartialTree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 4, 7, 17, 56, 100, 127, 256, 312, 513, 1000, 4095} {
		ids := make([]bitcoin.Hash, n)
		for i := range ids {
			ids[i] = bitcoin.DoubleHash([]byte{byte(i), byte(i >> 8)})
		}
		want, _ := bitcoin.MerkleRoot(ids)
		for oneIn := 1; oneIn <= n*4; oneIn *= 4 {
			matches := make([]bool, n)
			var wanted []uint32
			for i := range matches {
				if matches[i] = r.IntN(oneIn) == 0; matches[i] {
					wanted = append(wanted, uint32(i))
				}
			}
			tree := NewPartialTree(ids, matches)
			root, found, err := tree.Extract()
			if err != nil || root != want || len(found) != len(wanted) {
				t.Fatalf("%d leaves: %v, root %v, %d of %d found", n, err, root, len(found), len(wanted))
			}
			for i, m := range found {
				if m.Index != wanted[i] || m.ID != ids[m.Index] {
					t.Fatalf("%d leaves: found %v, want %d", n, m, wanted[i])
				}
			}
			damageTree(t, r, tree, want)
		}
	}
}

// damageTree changes a bit of a hash: the root must follow.
func damageTree(t *testing.T, r *rand.Rand, tree PartialTree, want bitcoin.Hash) {
	t.Helper()
	tree.Hashes = append([]bitcoin.Hash(nil), tree.Hashes...)
	tree.Hashes[r.IntN(len(tree.Hashes))][r.IntN(32)] ^= 1 << r.IntN(8)
	if root, _, err := tree.Extract(); err == nil && root == want {
		t.Fatal("a damaged proof has the same root")
	}
}

func TestPartialTreeRefuses(t *testing.T) {
	h := func(n int) []bitcoin.Hash { return make([]bitcoin.Hash, n) }
	for _, row := range []struct {
		name string
		tree PartialTree
	}{
		{"no leaves", PartialTree{0, h(0), []byte{0}}},
		{"more leaves than fit a block", PartialTree{mostLeaves + 1, h(1), []byte{0}}},
		{"2^32-1 leaves", PartialTree{1<<32 - 1, h(1), []byte{0}}},
		{"more hashes than leaves", PartialTree{1, h(2), []byte{3}}},
		{"fewer flags than hashes", PartialTree{100, h(9), []byte{0xff}}},
		{"no flags", PartialTree{1, h(0), nil}},
		{"flags left over", PartialTree{1, h(1), []byte{1, 0}}},
		{"hashes left over", PartialTree{2, h(2), []byte{0}}},
		{"hashes missing", PartialTree{2, h(1), []byte{7}}},
		{"equal nodes (CVE-2012-2459)", PartialTree{2, h(2), []byte{7}}},
	} {
		if root, _, err := row.tree.Extract(); err == nil {
			t.Errorf("%s: root %v", row.name, root)
		}
	}
}

func TestMerkleBlockOfRealBlock(t *testing.T) {
	block := readBlock(t, "block482683.raw")
	wanted := block.Txs[5].TxID()
	f := NewBloom(1, 0.0001, 5, BloomUpdateNone)
	f.Add(wanted[:])
	m := NewMerkleBlock(block, f.Match)
	got, err := ParseMerkleBlock(m.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	root, matches, err := got.Extract()
	if err != nil || root != block.Header.MerkleRoot || len(matches) != 1 ||
		matches[0] != (Match{wanted, 5}) {
		t.Errorf("root %v, matches %v, %v", root, matches, err)
	}
	if _, err := ParseMerkleBlock(append(m.Append(nil), 0)); !errors.Is(err, bitcoin.ErrTrailingData) {
		t.Errorf("with a trailing octet: %v", err)
	}
}

// FuzzPartialTree: whatever comes, Extract returns; a proof that it accepts is the one that is
// built for its matches, where all leaves are known.
func FuzzPartialTree(f *testing.F) {
	tree := NewPartialTree([]bitcoin.Hash{{1}, {2}, {3}}, []bool{false, true, true})
	f.Add(tree.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &decoder{b: b}
		tree := d.partialTree()
		if d.end() != nil {
			return
		}
		_, matches, err := tree.Extract()
		if err != nil || len(matches) != int(tree.Leaves) {
			return
		}
		ids, all := make([]bitcoin.Hash, len(matches)), make([]bool, len(matches))
		for _, m := range matches {
			ids[m.Index], all[m.Index] = m.ID, true
		}
		again := NewPartialTree(ids, all)
		again.Flags[len(again.Flags)-1] |= tree.Flags[len(tree.Flags)-1] // padding is free
		if !bytes.Equal(again.append(nil), tree.append(nil)) {
			t.Errorf("%x and %x prove the same", tree, again)
		}
	})
}
