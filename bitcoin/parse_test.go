package bitcoin

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"path"
	"slices"
	"testing"

	"github.com/tallypost/tallypost/internal/vectors"
)

// realBlocks are the blocks among the vectors with the hash and the number of transactions of each.
var realBlocks = []struct {
	file string
	hash string
	txs  int
}{
	{"0277647.btcd.dat", "0000000000000000054a714e580b16c583701712ab91060e92dbde6eb1e052a8", 213},
	{"0413567.bin", "0000000000000000025aff8be8a55df8f89c77296db6198f272d6577325d4069", 1557},
	{"0866342.bin", "000000000000000000014ce9ba7c6760053c3c82ce6ab43d60afb101d3c8f1f1", 4864},
	{"block300025.raw", "0000000000000000821c4e0acc40f88bedbce3b73ba2358b5ade58a9022cc78c", 461},
	{"block426884.raw", "00000000000000000431d0ead6e0bd9f90ff0d469e9b05d51e3d04971f472973", 409},
	{"block482683.raw", "000000000000000000c238240ef6dcb26c37e75e16514e6ffc0aef7eee73e747", 12},
	{"block898352.raw", "00000000c269ad542ed9ac684cb5fa6df340d5feee0e040590225c7332b98fca", 10},
}

// readBlock returns the octets of a block, without magic and length where the file has them.
func readBlock(t testing.TB, file string) []byte {
	raw := vectors.Read(t, path.Join("bitcoin/blocks", file))
	magic := Mainnet().Magic
	if bytes.HasPrefix(raw, magic[:]) && int(binary.LittleEndian.Uint32(raw[4:])) == len(raw)-8 {
		raw = raw[8:]
	}
	return raw
}

func TestRealBlocks(t *testing.T) {
	for _, row := range realBlocks {
		t.Run(row.file, func(t *testing.T) {
			raw := readBlock(t, row.file)
			block, err := ParseBlock(raw)
			if err != nil {
				t.Fatal(err)
			}
			if block.Hash().String() != row.hash || len(block.Txs) != row.txs {
				t.Errorf("block %v of %d transactions, want %v of %d",
					block.Hash(), len(block.Txs), row.hash, row.txs)
			}
			limit, _, _ := CompactToTarget(0x1d00ffff)
			if !MeetsTarget(block.Hash(), block.Header.Bits, limit) {
				t.Error("no proof of work")
			}
			checkReencoding(t, block, raw)
			checkWitnessCommitment(t, block)
		})
	}
}

// checkReencoding holds what the parser noted against what a clone, which has no notes, computes.
func checkReencoding(t *testing.T, block *Block, raw []byte) {
	t.Helper()
	clone := block.Clone()
	if !bytes.Equal(clone.Append(nil), raw) || !bytes.Equal(block.Append(nil), raw) {
		t.Error("encoded again the block differs")
	}
	if clone.Size() != len(raw) || clone.Weight() != block.Weight() || clone.Hash() != block.Hash() {
		t.Error("size, weight or hash differ between parser and encoder")
	}
	if len(clone.AppendBase(nil)) != block.BaseSize() || clone.BaseSize() != block.BaseSize() {
		t.Error("base size differs between parser and encoder")
	}
	root, mutated := clone.MerkleRoot()
	if root != block.Header.MerkleRoot || mutated {
		t.Errorf("Merkle root %v, mutated %v, want %v", root, mutated, block.Header.MerkleRoot)
	}
	for i := range block.Txs {
		a, b := &block.Txs[i], &clone.Txs[i]
		if a.TxID() != b.TxID() || a.WTxID() != b.WTxID() || a.Size() != b.Size() ||
			a.BaseSize() != b.BaseSize() || a.HasWitness() != b.HasWitness() ||
			a.VSize() != b.VSize() || a.IsCoinbase() != (i == 0) {
			t.Fatalf("transaction %d: parser and encoder disagree", i)
		}
	}
}

// checkWitnessCommitment recomputes the commitment that the coinbase of a block with witnesses
// carries (BIP 141, "Commitment structure"), and with it every wtxid of the block.
func checkWitnessCommitment(t *testing.T, block *Block) {
	t.Helper()
	coinbase := block.Txs[0]
	if !coinbase.HasWitness() {
		return
	}
	root := block.WitnessMerkleRoot()
	want := DoubleHash(append(root[:], coinbase.In[0].Witness[0]...))
	for i := len(coinbase.Out) - 1; i >= 0; i-- {
		got, ok := bytes.CutPrefix(coinbase.Out[i].Script, unhex(t, "6a24aa21a9ed"))
		if ok {
			if !bytes.Equal(got, want[:]) {
				t.Errorf("witness commitment %x, want %x", got, want)
			}
			return
		}
	}
	t.Error("no witness commitment")
}

// unhex reads hexadecimal digits; blanks between them only help the reader.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	prevOut    = "1111111111111111111111111111111111111111111111111111111111111111 01000000"
	oneInput   = "01 " + prevOut + " 02 5151 ffffffff "
	oneOutput  = "01 e803000000000000 01 51 "
	noLockTime = "00000000"
)

// TestParseTxForms walks through the forms that Core's UnserializeTransaction tells apart.
func TestParseTxForms(t *testing.T) {
	big := "01 " + prevOut + " fdfd00 " + hex.EncodeToString(make([]byte, 0xfd)) + " ffffffff "
	for _, row := range []struct {
		name      string
		tx        string
		err       error // with witnesses allowed
		legacyErr error // read in the form from before BIP 144
		ins, outs int
	}{
		{"plain", "02000000 " + oneInput + oneOutput + noLockTime, nil, nil, 1, 1},
		{"script of 253 octets", "02000000 " + big + oneOutput + noLockTime, nil, nil, 1, 1},
		{"no outputs", "02000000 " + oneInput + "00" + noLockTime, nil, nil, 1, 0},
		{"witness", "02000000 0001 " + oneInput + oneOutput + "01 02 abcd" + noLockTime,
			nil, ErrTrailingData, 1, 1},
		{"witness of one empty item", "02000000 0001 " + oneInput + oneOutput + "01 00" + noLockTime,
			nil, ErrTrailingData, 1, 1},
		{"version -1", "ffffffff " + oneInput + oneOutput + noLockTime, nil, nil, 1, 1},
		{"neither inputs nor outputs", "02000000 00 00" + noLockTime, nil, nil, 0, 0},
		{"no inputs, one output", "02000000 00 " + oneOutput + noLockTime,
			ErrEndOfData, nil, 0, 1},
		{"marker, witness only of empty stacks",
			"02000000 0001 " + oneInput + oneOutput + "00" + noLockTime,
			ErrSuperfluous, ErrTrailingData, 0, 0},
		{"marker, no inputs", "02000000 0001 00 " + oneOutput + noLockTime,
			ErrSuperfluous, ErrTrailingData, 0, 0},
		{"flag 2", "02000000 0002 " + oneInput + oneOutput + noLockTime,
			ErrUnknownTxFlags, ErrTrailingData, 0, 0},
		{"flags 3", "02000000 0003 " + oneInput + oneOutput + "01 02 abcd" + noLockTime,
			ErrUnknownTxFlags, ErrNonCanonical, 0, 0},
		{"empty", "", ErrEndOfData, ErrEndOfData, 0, 0},
		{"one octet more", "02000000 " + oneInput + oneOutput + noLockTime + "00",
			ErrTrailingData, ErrTrailingData, 0, 0},
		{"one octet less", "02000000 " + oneInput + oneOutput + "000000",
			ErrEndOfData, ErrEndOfData, 0, 0},
		{"count of inputs not canonical",
			"02000000 fd0100 " + oneInput[3:] + oneOutput + noLockTime,
			ErrNonCanonical, ErrNonCanonical, 0, 0},
		{"script length not canonical",
			"02000000 01 " + prevOut + " fe02000000 5151 ffffffff" + oneOutput + noLockTime,
			ErrNonCanonical, ErrNonCanonical, 0, 0},
		{"2^32 inputs not canonical", "02000000 ff ffffffff00000000" + noLockTime,
			ErrNonCanonical, ErrNonCanonical, 0, 0},
		{"33,554,433 inputs", "02000000 fe 01000002" + noLockTime,
			ErrSizeTooLarge, ErrSizeTooLarge, 0, 0},
		{"33,554,432 inputs that are not there", "02000000 fe 00000002" + noLockTime,
			ErrEndOfData, ErrEndOfData, 0, 0},
		{"2^63 octets of script", "02000000 01 " + prevOut + " ff 0000000000000080",
			ErrSizeTooLarge, ErrSizeTooLarge, 0, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			raw := unhex(t, row.tx)
			tx, err := ParseTx(raw)
			checkForm(t, tx, err, row.err, row.ins, row.outs, raw)
			tx, err = ParseTxNoWitness(raw)
			checkForm(t, tx, err, row.legacyErr, row.ins, row.outs, raw)
		})
	}
}

func checkForm(t *testing.T, tx *Tx, err, want error, ins, outs int, raw []byte) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	if err != nil {
		if tx != nil {
			t.Error("a transaction beside an error")
		}
		return
	}
	if len(tx.In) != ins || len(tx.Out) != outs {
		t.Errorf("%d inputs and %d outputs, want %d and %d", len(tx.In), len(tx.Out), ins, outs)
	}
	clone := tx.Clone()
	if !bytes.Equal(clone.Append(nil), raw) || clone.TxID() != tx.TxID() ||
		clone.WTxID() != tx.WTxID() {
		t.Error("encoded again it differs")
	}
}

func TestParseTxPrefixLeavesTheRest(t *testing.T) {
	raw := unhex(t, "02000000 "+oneInput+oneOutput+noLockTime)
	tx, n, err := ParseTxPrefix(append(bytes.Clone(raw), 1, 2, 3))
	if err != nil || n != len(raw) || !bytes.Equal(tx.Append(nil), raw) {
		t.Errorf("%d octets and %v, want %d", n, err, len(raw))
	}
}

// TestDetach: nothing of a detached transaction lies in the block that it was parsed with.
func TestDetach(t *testing.T) {
	raw := readBlock(t, "block482683.raw")
	block, err := ParseBlock(raw)
	if err != nil {
		t.Fatal(err)
	}
	var own []*Tx
	var want [][]byte
	for i := range block.Txs {
		own = append(own, block.Txs[i].Detach())
		want = append(want, block.Txs[i].Append(nil))
	}
	clear(raw)
	for i, tx := range own {
		if !bytes.Equal(tx.Append(nil), want[i]) || !bytes.Equal(tx.Clone().Append(nil), want[i]) ||
			tx.TxID() != block.Txs[i].TxID() || tx.WTxID() != block.Txs[i].WTxID() {
			t.Errorf("transaction %d changes with the block", i)
		}
	}
	built := own[0].Clone()
	if built.Detach() != built {
		t.Error("one that was built by hand is copied")
	}
}

// Every prefix of a real transaction ends too early and every one that is longer trails.
func TestParseTxStrictConsumption(t *testing.T) {
	block, err := ParseBlock(readBlock(t, "block482683.raw"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range block.Txs {
		raw := block.Txs[i].Append(nil)
		for n := range raw {
			if _, err := ParseTx(raw[:n]); err == nil {
				t.Fatalf("transaction %d parses from %d of its %d octets", i, n, len(raw))
			}
		}
		if _, err := ParseTx(append(raw, 0)); !errors.Is(err, ErrTrailingData) {
			t.Errorf("transaction %d with an octet more: %v", i, err)
		}
	}
}

func TestParseBlockErrors(t *testing.T) {
	raw := readBlock(t, "block482683.raw")
	for _, row := range []struct {
		name  string
		block []byte
		err   error
	}{
		{"trailing octet", append(bytes.Clone(raw), 0), ErrTrailingData},
		{"last octet missing", raw[:len(raw)-1], ErrEndOfData},
		{"half a header", raw[:40], ErrEndOfData},
		{"header alone", raw[:80], ErrEndOfData},
		{"count of transactions not canonical",
			append(append(bytes.Clone(raw[:80]), 0xfd, 0x0c, 0x00), raw[81:]...), ErrNonCanonical},
		{"more transactions than octets",
			append(bytes.Clone(raw[:80]), 0xfe, 0, 0, 0, 2), ErrEndOfData},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := ParseBlock(row.block); !errors.Is(err, row.err) {
				t.Errorf("%v, want %v", err, row.err)
			}
		})
	}
	if block, err := ParseBlock(append(bytes.Clone(raw[:80]), 0)); err != nil || len(block.Txs) != 0 {
		t.Errorf("a block without transactions is a block to the parser: %v", err)
	}
}

// No limit of the parser is below consensus: btcd stopped at block 757,922 over a witness item of
// more than 11,000 octets (CVE-2022-44797) and near 761,249 over more than 500,000 witness items;
// version was compared as signed (CVE-2024-34478).
func TestNoLimitBelowConsensus(t *testing.T) {
	tx := &Tx{Version: math.MaxUint32, In: make([]TxIn, 1), Out: []TxOut{{Value: -1}}}
	for _, row := range []struct {
		name    string
		witness [][]byte
	}{
		{"one item of 3,900,000 octets", [][]byte{make([]byte, 3_900_000)}},
		{"3,900,000 empty items", make([][]byte, 3_900_000)},
	} {
		t.Run(row.name, func(t *testing.T) {
			tx.In[0].Witness = row.witness
			got, err := ParseTx(tx.Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			if len(got.In[0].Witness) != len(row.witness) || got.Version != math.MaxUint32 ||
				got.Out[0].Value != -1 {
				t.Error("it differs after the journey")
			}
			if got.TxID() != tx.TxID() || got.WTxID() != tx.WTxID() {
				t.Error("hashes differ")
			}
		})
	}
}

// A lie about a length costs no memory: the first pass allocates nothing.
func TestNoAllocationBeforeTheBytesAreThere(t *testing.T) {
	liar := unhex(t, "02000000 fe 00000002 "+oneInput[3:])
	if n := testing.AllocsPerRun(10, func() { (&scanner{b: liar}).tx(true) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A large body takes the streaming road to its txid, a small one the copy.
func TestBaseHashBothWays(t *testing.T) {
	for _, n := range []int{1, 1900, 1990, 1991, 1992, 2100, 70_000} {
		tx := &Tx{In: []TxIn{{Script: make([]byte, n), Witness: [][]byte{{7}}}}}
		parsed, err := ParseTx(tx.Append(nil))
		if err != nil || parsed.TxID() != tx.TxID() || parsed.WTxID() != tx.WTxID() {
			t.Errorf("script of %d octets: hashes differ, %v", n, err)
		}
	}
}

func TestCompactSize(t *testing.T) {
	for _, n := range []uint64{
		0, 1, 0xfc, 0xfd, 0xffff, 0x10000, 0xffffffff, 0x100000000, math.MaxUint64,
	} {
		b := AppendCompactSize(nil, n)
		got, size, err := ReadCompactSize(append(b, 0xaa))
		if got != n || size != len(b) || size != CompactSizeLen(n) || err != nil {
			t.Errorf("%d comes back as %d in %d octets, %v", n, got, size, err)
		}
		for i := range b {
			if _, _, err := ReadCompactSize(b[:i]); err != ErrEndOfData {
				t.Errorf("%d cut to %d octets: %v", n, i, err)
			}
		}
	}
	for _, s := range []string{
		"fd fc00", "fe ffff0000", "ff ffffffff00000000", "ff 0000000000000000",
	} {
		if _, _, err := ReadCompactSize(unhex(t, s)); err != ErrNonCanonical {
			t.Errorf("%s: %v, want %v", s, err, ErrNonCanonical)
		}
	}
}

func TestMerkleRootMutation(t *testing.T) {
	leaf := func(i byte) Hash { return sha256.Sum256([]byte{i}) }
	one, two, three := leaf(1), leaf(2), leaf(3)
	pair := func(a, b Hash) Hash { return DoubleHash(append(a[:], b[:]...)) }
	for _, row := range []struct {
		name    string
		leaves  []Hash
		root    Hash
		mutated bool
	}{
		{"none", nil, Hash{}, false},
		{"one", []Hash{one}, one, false},
		{"two", []Hash{one, two}, pair(one, two), false},
		{"three", []Hash{one, two, three}, pair(pair(one, two), pair(three, three)), false},
		{"the third repeated", []Hash{one, two, three, three},
			pair(pair(one, two), pair(three, three)), true},
		{"equal leaves of different pairs", []Hash{one, two, two, one},
			pair(pair(one, two), pair(two, one)), false},
		{"equal nodes higher up", []Hash{one, two, one, two},
			pair(pair(one, two), pair(one, two)), true},
	} {
		root, mutated := MerkleRoot(row.leaves)
		if root != row.root || mutated != row.mutated {
			t.Errorf("%s: %v mutated %v, want %v mutated %v",
				row.name, root, mutated, row.root, row.mutated)
		}
	}
	six := []Hash{one, two, three, leaf(4), leaf(5), leaf(6)}
	eight := append(slices.Clone(six), leaf(5), leaf(6))
	a, _ := MerkleRoot(six)
	b, mutated := MerkleRoot(eight)
	if a != b || !mutated {
		t.Error("CVE-2012-2459: six leaves and the same with the last two repeated are not told apart")
	}
}

func TestOutputSum(t *testing.T) {
	for _, row := range []struct {
		values []Amount
		sum    Amount
		ok     bool
	}{
		{nil, 0, true},
		{[]Amount{1, 2}, 3, true},
		{[]Amount{MaxMoney}, MaxMoney, true},
		{[]Amount{MaxMoney, 1}, 0, false},
		{[]Amount{-1}, 0, false},
		{[]Amount{2, -1}, 0, false},
		{[]Amount{math.MaxInt64, 2}, 0, false},
	} {
		tx := &Tx{}
		for _, v := range row.values {
			tx.Out = append(tx.Out, TxOut{Value: v})
		}
		if sum, ok := tx.OutputSum(); sum != row.sum || ok != row.ok {
			t.Errorf("%v: %v %v, want %v %v", row.values, sum, ok, row.sum, row.ok)
		}
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	raw := vectors.Read(t, "bitcoin/headers/signet_0_2015.bin")
	var prev Hash
	for i := 0; i+HeaderSize <= len(raw); i += HeaderSize {
		h, err := ParseHeader(raw[i : i+HeaderSize])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(h.Append(nil), raw[i:i+HeaderSize]) {
			t.Fatalf("header %d encoded again differs", i/HeaderSize)
		}
		if h.PrevBlock != prev {
			t.Fatalf("header %d does not follow", i/HeaderSize)
		}
		prev = h.Hash()
	}
	if _, err := ParseHeader(raw[:79]); err != ErrEndOfData {
		t.Errorf("79 octets: %v", err)
	}
	if _, err := ParseHeader(raw[:81]); err != ErrTrailingData {
		t.Errorf("81 octets: %v", err)
	}
}

func FuzzParseTx(f *testing.F) {
	f.Add(unhex(f, "02000000 "+oneInput+oneOutput+noLockTime))
	f.Add(unhex(f, "02000000 0001 "+oneInput+oneOutput+"01 02 abcd"+noLockTime))
	f.Add(unhex(f, "02000000 00 00"+noLockTime))
	f.Fuzz(func(t *testing.T, b []byte) {
		if tx, n, err := ParseTxPrefix(b); err == nil {
			clone := tx.Clone()
			if !bytes.Equal(clone.Append(nil), b[:n]) || clone.TxID() != tx.TxID() ||
				clone.WTxID() != tx.WTxID() || clone.Weight() != tx.Weight() {
				t.Error("what was parsed encodes differently")
			}
		}
		tx, err := ParseTxNoWitness(b)
		if err == nil && !bytes.Equal(tx.Clone().AppendBase(nil), b) {
			t.Error("what was parsed without witness encodes differently")
		}
	})
}

func FuzzParseBlock(f *testing.F) {
	header := make([]byte, HeaderSize)
	binary.LittleEndian.PutUint32(header, 2)
	f.Add(append(header, 0))
	f.Add(append(append(header, 1), unhex(f, "02000000 "+oneInput+oneOutput+noLockTime)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		block, err := ParseBlock(b)
		if err != nil {
			return
		}
		clone := block.Clone()
		if !bytes.Equal(clone.Append(nil), b) || clone.Hash() != block.Hash() ||
			clone.Weight() != block.Weight() {
			t.Error("what was parsed encodes differently")
		}
		rootA, mutA := block.MerkleRoot()
		rootB, mutB := clone.MerkleRoot()
		if rootA != rootB || mutA != mutB || block.WitnessMerkleRoot() != clone.WitnessMerkleRoot() {
			t.Error("Merkle roots differ")
		}
	})
}

func BenchmarkParseBlock413567(b *testing.B) {
	raw := readBlock(b, "0413567.bin")
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		block, err := ParseBlock(raw)
		if err != nil {
			b.Fatal(err)
		}
		if root, _ := block.MerkleRoot(); root != block.Header.MerkleRoot {
			b.Fatal("Merkle root differs")
		}
	}
}

func BenchmarkMerkleRoot413567(b *testing.B) {
	block, err := ParseBlock(readBlock(b, "0413567.bin"))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		block.MerkleRoot()
	}
}
