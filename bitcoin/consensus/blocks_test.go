package consensus

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
	"github.com/tallypost/tallypost/internal/vectors"
)

// coinMap is a View of the coins that one real block needs.
type coinMap struct {
	coins   map[bitcoin.OutPoint]Coin
	medians map[bitcoin.Height]uint32
}

func (m coinMap) Coins(outs []bitcoin.OutPoint, coins []Coin) error {
	for i := range outs {
		coins[i] = m.coins[outs[i]]
	}
	return nil
}

func (m coinMap) MedianTimePast(height bitcoin.Height) (uint32, error) {
	median, known := m.medians[height]
	if !known {
		return 0, fmt.Errorf("median at height %d is not in the vectors", height)
	}
	return median, nil
}

// withoutCreated removes what the block itself creates.
func (m coinMap) withoutCreated(b *bitcoin.Block) {
	for i := range b.Txs {
		for j := range b.Txs[i].Out {
			delete(m.coins, outputOf(&b.Txs[i], j).OutPoint)
		}
	}
}

func parseBlock(t testing.TB, raw []byte) *bitcoin.Block {
	t.Helper()
	b, err := bitcoin.ParseBlock(raw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// stateBefore returns what is known of the State before a real block from mainnet's middle.
func stateBefore(b *bitcoin.Block, height bitcoin.Height) State {
	s := State{Network: bitcoin.Mainnet(), Height: height - 1, Hash: b.Header.PrevBlock}
	s.bip34 = true
	s.Header.Bits, s.Header.Time = b.Header.Bits, b.Header.Time-600
	s.first = period{s.Header.Time, s.Header.Bits}
	for i := range s.times {
		s.times[i] = b.Header.Time - 600
	}
	return s
}

// connectReal judges a real block by all rules, scripts too, and takes it back.
func connectReal(t testing.TB, s State, b *bitcoin.Block, view coinMap) (State, *Diff) {
	t.Helper()
	if err := CheckHeader(s, &b.Header, b.Hash(), time.Unix(int64(b.Header.Time), 0)); err != nil {
		t.Fatalf("header: %v", err)
	}
	c, err := NewCandidate(s.Network, b, 0)
	if err != nil {
		t.Fatalf("block: %v", err)
	}
	if err := CheckBlockAt(s, b); err != nil {
		t.Fatalf("block at its place: %v", err)
	}
	next, diff, err := Connect(s, c, view)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	var checks []Check
	for i, check := range diff.Checks() {
		if i%scriptSample == 0 {
			checks = append(checks, check)
		}
	}
	if err := RunChecks(context.Background(), runtime.GOMAXPROCS(0), checks); err != nil {
		t.Fatalf("scripts: %v", err)
	}
	after := coinMap{coins: map[bitcoin.OutPoint]Coin{}}
	for out, coin := range view.coins {
		after.coins[out] = coin
	}
	for out := range diff.Spent() {
		delete(after.coins, out)
	}
	for out, coin := range diff.Created() {
		after.coins[out] = coin
	}
	reversal, err := Disconnect(next, c, diff.Undo, after)
	if err != nil {
		t.Fatalf("disconnect: %v", err)
	}
	if !reversal.Clean {
		t.Fatal("disconnect: not clean")
	}
	return next, diff
}

// inputsOf yields the inputs of a block in the order of its undo data.
func inputsOf(b *bitcoin.Block) (ins []bitcoin.TxIn) {
	for i := range b.Txs[1:] {
		ins = append(ins, b.Txs[i+1].In...)
	}
	return ins
}

// read866342 returns the block and the coins that each of its inputs spends, those of the block
// itself too.
func read866342(t testing.TB) (*bitcoin.Block, Spent) {
	b := parseBlock(t, vectors.Read(t, "bitcoin/blocks/0866342.bin"))
	var rows []struct {
		TxOut struct {
			Value        bitcoin.Amount `json:"value"`
			ScriptPubKey string         `json:"script_pubkey"`
		} `json:"txout"`
		Coinbase bool           `json:"is_coinbase"`
		Height   bitcoin.Height `json:"creation_height"`
	}
	file := vectors.Read(t, "bitcoin/blocks/0866342.spent_utxos.json")
	if err := json.Unmarshal(file, &rows); err != nil {
		t.Fatal(err)
	}
	spent := NewSpent(len(rows))
	for i, row := range rows {
		script, err := hex.DecodeString(row.TxOut.ScriptPubKey)
		if err != nil {
			t.Fatal(err)
		}
		spent.Outs[i] = bitcoin.TxOut{Value: row.TxOut.Value, Script: script}
		spent.Origins[i] = Origin{row.Height, row.Coinbase}
	}
	return b, spent
}

// viewOf returns a View with those of the spent coins that are older than the block.
func viewOf(b *bitcoin.Block, height bitcoin.Height, spent Spent) coinMap {
	view := coinMap{coins: map[bitcoin.OutPoint]Coin{}}
	for i, in := range inputsOf(b) {
		if spent.Origins[i].Height < height {
			view.coins[in.PrevOut] = spent.Coin(i)
		}
	}
	return view
}

// TestBlock866342 connects a full block of October 2024 with all 7,972 coins that it spends.
func TestBlock866342(t *testing.T) {
	if testing.Short() {
		t.Skip("runs 7,972 scripts")
	}
	const height = 866_342
	b, spent := read866342(t)
	_, diff := connectReal(t, stateBefore(b, height), b, viewOf(b, height, spent))
	if diff.Undo.Len() != 7972 || spent.Len() != 7972 {
		t.Fatalf("%d inputs, %d in the vectors", diff.Undo.Len(), spent.Len())
	}
	for i := range spent.Outs {
		got := diff.Undo.Coin(i)
		if !got.equal(&spent.Outs[i], spent.Origins[i]) {
			t.Errorf("input %d: %+v, want %+v", i, got, spent.Coin(i))
		}
	}
	if reward := sum(b.Txs[0].Out) - Subsidy(bitcoin.Mainnet(), height); diff.Fees != reward {
		t.Errorf("fees %d, the coinbase takes %d", diff.Fees, reward)
	}
}

// TestBlock300025 compares the undo data with those that bcoin keeps with the block: amount and
// script of each coin.
func TestBlock300025(t *testing.T) {
	const height = 300_025
	b := parseBlock(t, vectors.Read(t, "bitcoin/blocks/block300025.raw"))
	raw := vectors.Read(t, "bitcoin/blocks/block300025-undo.raw")
	ins := inputsOf(b)
	spent := NewSpent(len(ins))
	for i := range ins {
		size, n, err := bitcoin.ReadCompactSize(raw[8:])
		if err != nil {
			t.Fatal(err)
		}
		end := 8 + n + int(size)
		value := bitcoin.Amount(binary.LittleEndian.Uint64(raw))
		spent.Outs[i] = bitcoin.TxOut{Value: value, Script: raw[8+n : end]}
		spent.Origins[i] = Origin{Height: 1} // not in the file
		raw = raw[end:]
	}
	if len(raw) != 0 {
		t.Fatalf("%d octets of undo data are left", len(raw))
	}
	view := viewOf(b, height, spent)
	view.withoutCreated(b)
	_, diff := connectReal(t, stateBefore(b, height), b, view)
	for i := range spent.Outs {
		got, want := diff.Undo.Outs[i], spent.Outs[i]
		if got.Value != want.Value || string(got.Script) != string(want.Script) {
			t.Errorf("input %d: %+v, want %+v", i, got, want)
		}
	}
}

// TestBlock277647 connects a block with coins that btcd has stored, heights and coinbases included.
func TestBlock277647(t *testing.T) {
	const height = 277_647
	raw := vectors.Read(t, "bitcoin/blocks/0277647.btcd.dat")
	b := parseBlock(t, raw[8:8+binary.LittleEndian.Uint32(raw[4:])])
	view := coinMap{coins: map[bitcoin.OutPoint]Coin{}}
	for store := vectors.Read(t, "bitcoin/blocks/0277647.utxostore"); len(store) > 0; {
		out := bitcoin.OutPoint{TxID: bitcoin.Hash(store)}
		out.Index = binary.LittleEndian.Uint32(store[32:])
		size := binary.LittleEndian.Uint32(store[36:])
		view.coins[out] = readStored(t, store[40:][:size])
		store = store[40+size:]
	}
	view.withoutCreated(b)
	_, diff := connectReal(t, stateBefore(b, height), b, view)
	if diff.Fees == 0 || diff.Undo.Len() != len(inputsOf(b)) {
		t.Errorf("fees %d, %d coins", diff.Fees, diff.Undo.Len())
	}
}

// readStored reads a coin as btcd and Core keep it.
func readStored(t testing.TB, b []byte) (c Coin) {
	number := func() (n uint64) {
		for {
			octet := b[0]
			b = b[1:]
			n = n<<7 | uint64(octet&0x7f)
			if octet&0x80 == 0 {
				return n
			}
			n++
		}
	}
	code := number()
	c.Origin = Origin{bitcoin.Height(code >> 1), code&1 == 1}
	if amount := number(); amount > 0 {
		amount--
		zeros := amount % 10
		amount /= 10
		if zeros < 9 {
			amount = amount/9*10 + amount%9 + 1
		} else {
			amount++
		}
		for ; zeros > 0; zeros-- {
			amount *= 10
		}
		c.Out.Value = bitcoin.Amount(amount)
	}
	switch kind := number(); kind {
	case 0:
		c.Out.Script = script.PayToPubKeyHash([20]byte(b))
	case 1:
		c.Out.Script = script.PayToScriptHash([20]byte(b))
	case 2, 3, 4, 5:
		key, err := secp.ParsePublicKey(append([]byte{2 + byte(kind&1)}, b[:32]...))
		if err != nil {
			t.Fatal(err)
		}
		compressed, whole := key.Compressed(), key.Uncompressed()
		octets := compressed[:]
		if kind >= 4 {
			octets = whole[:]
		}
		c.Out.Script = new(script.Builder).Push(octets).Op(script.OpCheckSig).Script()
	default:
		c.Out.Script = b[:kind-6]
	}
	return c
}

// jsonBlock is a block of the raito project with the state of the chain before and after it.
type jsonBlock struct {
	Before jsonState `json:"chain_state"`
	After  jsonState `json:"expected"`
	Blocks []struct {
		Header struct {
			Version int32
			Time    uint32
			Bits    uint32
			Nonce   uint32
		}
		Data struct{ Transactions []jsonTx }
	}
}

type jsonState struct {
	Height     bitcoin.Height `json:"block_height"`
	Work       string         `json:"total_work"`
	Hash       string         `json:"best_block_hash"`
	Target     string         `json:"current_target"`
	EpochStart uint32         `json:"epoch_start_time"`
	Times      []uint32       `json:"prev_timestamps"`
}

type jsonTx struct {
	Version  uint32
	Segwit   bool   `json:"is_segwit"`
	LockTime uint32 `json:"lock_time"`
	Inputs   []struct {
		Script   jsonHex
		Sequence uint32
		Witness  []jsonHex
		Previous struct {
			TxID     string
			Vout     uint32
			Data     jsonOut
			Height   bitcoin.Height `json:"block_height"`
			Median   uint32         `json:"median_time_past"` // of the block before
			Coinbase bool           `json:"is_coinbase"`
		} `json:"previous_output"`
	}
	Outputs []jsonOut
}

type jsonOut struct {
	Value  bitcoin.Amount
	Script jsonHex `json:"pk_script"`
	Cached bool    // created by the same block
}

type jsonHex []byte

func (h *jsonHex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(strings.TrimPrefix(string(text), "0x"))
	return err
}

// state turns a state of the file into one of ours, as far as it goes.
func (j *jsonState) state(t testing.TB) State {
	number := func(s string) (n bitcoin.Uint256) {
		value, ok := new(big.Int).SetString(s, 10)
		if !ok {
			t.Fatalf("number %q", s)
		}
		var b [32]byte
		value.FillBytes(b[:])
		for i := range n {
			n[i] = binary.BigEndian.Uint64(b[24-8*i:])
		}
		return n
	}
	hash, err := bitcoin.ParseHash(j.Hash)
	if err != nil {
		t.Fatal(err)
	}
	s := State{Network: bitcoin.Mainnet(), Height: j.Height, Hash: hash, Work: number(j.Work)}
	s.Header.Bits = bitcoin.TargetToCompact(number(j.Target))
	s.Header.Time = j.Times[len(j.Times)-1]
	s.proof = bitcoin.Work(s.Header.Bits)
	s.first = period{j.EpochStart, s.Header.Bits}
	s.bip34 = j.Height >= s.Network.BIP34Height
	for i, when := range j.Times {
		s.times[(int(j.Height)-len(j.Times)+1+i)%medianSpan] = when
	}
	return s
}

// block puts the block together, and the coins that it needs.
func (j *jsonBlock) block(t testing.TB, prev bitcoin.Hash) (*bitcoin.Block, coinMap) {
	view := coinMap{map[bitcoin.OutPoint]Coin{}, map[bitcoin.Height]uint32{}}
	header, data := j.Blocks[0].Header, j.Blocks[0].Data
	b := &bitcoin.Block{Header: bitcoin.Header{Version: header.Version, PrevBlock: prev,
		Time: header.Time, Bits: header.Bits, Nonce: header.Nonce}}
	for _, from := range data.Transactions {
		tx := bitcoin.Tx{Version: from.Version, LockTime: from.LockTime}
		for _, in := range from.Inputs {
			id, err := bitcoin.ParseHash(in.Previous.TxID)
			if err != nil {
				t.Fatal(err)
			}
			out := bitcoin.OutPoint{TxID: id, Index: in.Previous.Vout}
			to := bitcoin.TxIn{PrevOut: out, Script: in.Script, Sequence: in.Sequence}
			if from.Segwit {
				for _, item := range in.Witness {
					to.Witness = append(to.Witness, item)
				}
			}
			tx.In = append(tx.In, to)
			if !out.IsNull() && !in.Previous.Data.Cached {
				view.coins[out] = Coin{
					bitcoin.TxOut{Value: in.Previous.Data.Value, Script: in.Previous.Data.Script},
					Origin{in.Previous.Height, in.Previous.Coinbase},
				}
				view.medians[in.Previous.Height-1] = in.Previous.Median
			}
		}
		for _, out := range from.Outputs {
			tx.Out = append(tx.Out, bitcoin.TxOut{Value: out.Value, Script: out.Script})
		}
		b.Txs = append(b.Txs, tx)
	}
	b.Header.MerkleRoot, _ = b.MerkleRoot()
	return parseBlock(t, b.Append(nil)), view
}

// TestJSONBlocks connects blocks from 2009 to 2022 and compares the states that they lead to.
func TestJSONBlocks(t *testing.T) {
	folder := vectors.Path(t, "bitcoin/json-blocks")
	files, err := filepath.Glob(filepath.Join(folder, "full_*.json"))
	if err != nil || len(files) != 9 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var vector jsonBlock
			raw := vectors.Read(t, "bitcoin/json-blocks/"+filepath.Base(file))
			if err := json.Unmarshal(raw, &vector); err != nil {
				t.Fatal(err)
			}
			before := vector.Before.state(t)
			b, view := vector.block(t, before.Hash)
			after, _ := connectReal(t, before, b, view)
			want := vector.After.state(t)
			if after.Hash != want.Hash || after.Height != want.Height || after.Work != want.Work {
				t.Errorf("block %v at %d with work %v, want %v at %d with %v",
					after.Hash, after.Height, after.Work, want.Hash, want.Height, want.Work)
			}
			if after.times != want.times || after.first.time != want.first.time {
				t.Errorf("times %v since %d, want %v since %d",
					after.times, after.first.time, want.times, want.first.time)
			}
			if after.Header.Bits != want.Header.Bits {
				t.Errorf("target %08x, want %08x", after.Header.Bits, want.Header.Bits)
			}
		})
	}
}

// TestRealBlocksByThemselves checks blocks whose coins are not at hand.
func TestRealBlocksByThemselves(t *testing.T) {
	for _, row := range []struct {
		file   string
		net    *bitcoin.Network
		height bitcoin.Height
	}{
		{"0413567.bin", bitcoin.Mainnet(), 413_567},
		{"block426884.raw", bitcoin.Mainnet(), 426_884},
		{"block482683.raw", bitcoin.Mainnet(), 482_683},
		{"block898352.raw", bitcoin.Testnet3(), 898_352},
	} {
		b := parseBlock(t, vectors.Read(t, "bitcoin/blocks/"+row.file))
		s := stateBefore(b, row.height)
		s.Network = row.net
		if err := CheckBlock(row.net, b, 0); err != nil {
			t.Errorf("%s: %v", row.file, err)
		}
		if err := CheckBlockAt(s, b); err != nil {
			t.Errorf("%s: %v", row.file, err)
		}
		if IsMutated(b, row.height >= row.net.SegwitHeight) {
			t.Errorf("%s: mutated", row.file)
		}
	}
}

func BenchmarkCheckBlock413567(b *testing.B) {
	raw := vectors.Read(b, "bitcoin/blocks/0413567.bin")
	net := bitcoin.Mainnet()
	block := parseBlock(b, raw)
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckBlock(net, block, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCandidate866342 is all of a block that can be done out of order.
func BenchmarkCandidate866342(b *testing.B) {
	block, _ := read866342(b)
	net := bitcoin.Mainnet()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewCandidate(net, block, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// slicedView answers from a slice in the order that is asked, so that the benchmark measures no
// look-ups.
type slicedView struct {
	coinMap
	coins []Coin
}

func (v *slicedView) Coins(outs []bitcoin.OutPoint, coins []Coin) error {
	copy(coins, v.coins)
	return nil
}

// BenchmarkConnect866342 is what must be done in order, look-ups and scripts apart.
func BenchmarkConnect866342(b *testing.B) {
	const height = 866_342
	block, spent := read866342(b)
	view := &slicedView{coinMap: viewOf(block, height, spent)}
	s := stateBefore(block, height)
	c, err := NewCandidate(s.Network, block, 0)
	if err != nil {
		b.Fatal(err)
	}
	for _, out := range c.Outside() {
		view.coins = append(view.coins, view.coinMap.coins[out])
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Connect(s, c, view); err != nil {
			b.Fatal(err)
		}
	}
	txs := float64(b.N * len(block.Txs))
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1000/txs, "µs/tx")
}

func BenchmarkScripts866342(b *testing.B) {
	const height = 866_342
	block, spent := read866342(b)
	s := stateBefore(block, height)
	c, err := NewCandidate(s.Network, block, 0)
	if err != nil {
		b.Fatal(err)
	}
	_, diff, err := Connect(s, c, viewOf(block, height, spent))
	if err != nil {
		b.Fatal(err)
	}
	for _, workers := range []int{1, runtime.GOMAXPROCS(0)} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := RunChecks(context.Background(), workers, diff.Checks()); err != nil {
					b.Fatal(err)
				}
			}
			inputs := float64(b.N * diff.Undo.Len())
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1000/inputs, "µs/input")
		})
	}
}
