package script

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/secp"
	"github.com/tallypost/tallypost/internal/vectors"
)

// realBlock is a block of the main chain with the outputs that it spends.
type realBlock struct {
	*bitcoin.Block
	spent [][]bitcoin.TxOut // for each transaction; none for the coinbase
}

// verify runs all scripts and returns the number of inputs.
func (b *realBlock) verify(t testing.TB, v *Verifier, flags Flags) (inputs int) {
	var s Spending
	for i := range b.Txs {
		if i == 0 {
			continue
		}
		tx := &b.Txs[i]
		s.Init(tx, b.spent[i])
		for j := range tx.In {
			inputs++
			if err := v.VerifyInput(&s, j, flags); err != nil {
				t.Errorf("transaction %v: %v", tx.TxID(), err)
			}
		}
	}
	return inputs
}

func readBlock(t testing.TB, name string) *realBlock {
	raw := vectors.Read(t, "bitcoin/blocks/"+name)
	if binary.LittleEndian.Uint32(raw) == 0xd9b4bef9 { // as blk files have it: magic and size before
		raw = raw[8:]
	}
	b, err := bitcoin.ParseBlock(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &realBlock{Block: b, spent: make([][]bitcoin.TxOut, len(b.Txs))}
}

// each calls next for each input, in the order of the block, to learn the output that it spends.
func (b *realBlock) each(next func(in *bitcoin.TxIn) bitcoin.TxOut) {
	for i := range b.Txs {
		if i == 0 {
			continue
		}
		for j := range b.Txs[i].In {
			b.spent[i] = append(b.spent[i], next(&b.Txs[i].In[j]))
		}
	}
}

// Block866342 is the block that benchmarks use: 7,972 inputs, nearly a third of them taproot.
func readBlock866342(t testing.TB) *realBlock {
	b := readBlock(t, "0866342.bin")
	var coins []struct {
		TxOut struct {
			Value        bitcoin.Amount
			ScriptPubKey digits `json:"script_pubkey"`
		}
	}
	readJSON(t, "bitcoin/blocks/0866342.spent_utxos.json", &coins)
	b.each(func(*bitcoin.TxIn) bitcoin.TxOut {
		c := coins[0].TxOut
		coins = coins[1:]
		return bitcoin.TxOut{Value: c.Value, Script: c.ScriptPubKey}
	})
	if len(coins) != 0 {
		t.Fatalf("%d coins are left", len(coins))
	}
	return b
}

// instant answers that every signature is valid.
type instant struct{}

func (instant) VerifyECDSA([]byte, *[32]byte, *[64]byte) bool                   { return true }
func (instant) VerifySchnorr(*[32]byte, []byte, *[64]byte) bool                 { return true }
func (instant) VerifySchnorrBatch([]secp.SchnorrSignature, *[32]byte) bool      { return true }
func (instant) VerifyTweak(_ *[32]byte, _ bool, internal, tweak *[32]byte) bool { return true }

func TestBlock866342(t *testing.T) {
	if testing.Short() {
		t.Skip("two seconds of signatures")
	}
	b := readBlock866342(t)
	v := &Verifier{Batch: &secp.Batch{Salt: [32]byte{1}}}
	if n := b.verify(t, v, MandatoryFlags); n != 7972 {
		t.Errorf("%d inputs, want 7972", n)
	}
	if _, ok := v.Batch.Verify(secp.Default()); !ok {
		t.Error("the batch of Schnorr signatures is not valid")
	}
	cost := 0
	for i := range b.Txs {
		cost += SigOpCost(&b.Txs[i], b.spent[i], MandatoryFlags)
	}
	if cost <= 0 || cost > 80_000 {
		t.Errorf("sigop cost %d", cost)
	}
}

// TestBlock277647 verifies a block with the coins that btcd keeps beside it; those that the block
// itself makes are not among them.
func TestBlock277647(t *testing.T) {
	b := readBlock(t, "0277647.btcd.dat")
	coins := readUtxoStore(t, vectors.Read(t, "bitcoin/blocks/0277647.utxostore"))
	for i := range b.Txs {
		for j, out := range b.Txs[i].Out {
			coins[bitcoin.OutPoint{TxID: b.Txs[i].TxID(), Index: uint32(j)}] = out
		}
	}
	b.each(func(in *bitcoin.TxIn) bitcoin.TxOut {
		out, ok := coins[in.PrevOut]
		if !ok {
			t.Fatalf("no coin %v", in.PrevOut)
		}
		return out
	})
	if n := b.verify(t, new(Verifier), VerifyP2SH); n == 0 {
		t.Error("no inputs")
	}
}

// readUtxoStore reads btcd's file of coins: outpoint, length, height and coinbase bit, amount and
// script, the last three compressed.
func readUtxoStore(t *testing.T, b []byte) map[bitcoin.OutPoint]bitcoin.TxOut {
	coins := make(map[bitcoin.OutPoint]bitcoin.TxOut)
	for len(b) > 0 {
		at := bitcoin.OutPoint{TxID: bitcoin.Hash(b[:32]),
			Index: binary.LittleEndian.Uint32(b[32:])}
		n := 40 + int(binary.LittleEndian.Uint32(b[36:]))
		coin := b[40:n]
		_, coin = readVLQ(coin) // height and coinbase bit
		amount, coin := readVLQ(coin)
		coins[at] = bitcoin.TxOut{Value: decompressAmount(amount), Script: decompressScript(t,
			coin)}
		b = b[n:]
	}
	return coins
}

func readVLQ(b []byte) (n uint64, rest []byte) {
	for i, octet := range b {
		n = n<<7 | uint64(octet&0x7f)
		if octet&0x80 == 0 {
			return n, b[i+1:]
		}
		n++
	}
	return n, nil
}

func decompressAmount(x uint64) bitcoin.Amount {
	if x == 0 {
		return 0
	}
	x--
	exponent := x % 10
	x /= 10
	if exponent < 9 {
		x = x/9*10 + x%9 + 1
	} else {
		x++
	}
	for range exponent {
		x *= 10
	}
	return bitcoin.Amount(x)
}

func decompressScript(t *testing.T, b []byte) []byte {
	kind, data := readVLQ(b)
	switch kind {
	case 0:
		return PayToPubKeyHash([20]byte(data))
	case 1:
		return PayToScriptHash([20]byte(data))
	case 2, 3:
		return new(Builder).Push(b[:33]).Op(OpCheckSig).Script()
	case 4, 5:
		key, err := secp.ParsePublicKey(append([]byte{byte(kind) - 2}, data[:32]...))
		if err != nil {
			t.Fatal(err)
		}
		full := key.Uncompressed()
		return new(Builder).Push(full[:]).Op(OpCheckSig).Script()
	}
	return data[:kind-6]
}

// TestBlock300025 verifies a block from before BIP 66 with the outputs that it spends.
func TestBlock300025(t *testing.T) {
	b := readBlock(t, "block300025.raw")
	undo := vectors.Read(t, "bitcoin/blocks/block300025-undo.raw")
	b.each(func(*bitcoin.TxIn) bitcoin.TxOut {
		out, n := cutOutput(t, undo)
		undo = undo[n:]
		return out
	})
	if len(undo) != 0 {
		t.Errorf("%d octets of outputs are left", len(undo))
	}
	if n := b.verify(t, new(Verifier), VerifyP2SH); n == 0 {
		t.Error("no inputs")
	}
}

// hexOctets is octets that JSON holds as 0x and hexadecimal.
type hexOctets []byte

func (h *hexOctets) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	var err error
	*h, err = hex.DecodeString(strings.TrimPrefix(s, "0x"))
	return err
}

type jsonBlock struct {
	ChainState struct {
		BlockHeight int32 `json:"block_height"`
	} `json:"chain_state"`
	Blocks []struct {
		Data struct{ Transactions []jsonTx }
	}
}

type jsonTx struct {
	Version uint32
	Inputs  []struct {
		Script         hexOctets
		Sequence       uint32
		PreviousOutput struct {
			TxID string
			Vout uint32
			Data jsonOutput
		} `json:"previous_output"`
		Witness []hexOctets
	}
	Outputs  []jsonOutput
	LockTime uint32 `json:"lock_time"`
}

type jsonOutput struct {
	Value  bitcoin.Amount
	Script hexOctets `json:"pk_script"`
}

func (j *jsonTx) build(t *testing.T) (*bitcoin.Tx, []bitcoin.TxOut) {
	tx := &bitcoin.Tx{Version: j.Version, LockTime: j.LockTime}
	var spent []bitcoin.TxOut
	for _, in := range j.Inputs {
		id, err := bitcoin.ParseHash(in.PreviousOutput.TxID)
		if err != nil {
			t.Fatal(err)
		}
		to := bitcoin.TxIn{
			PrevOut:  bitcoin.OutPoint{TxID: id, Index: in.PreviousOutput.Vout},
			Script:   in.Script,
			Sequence: in.Sequence,
		}
		for _, item := range in.Witness {
			to.Witness = append(to.Witness, item)
		}
		tx.In = append(tx.In, to)
		data := in.PreviousOutput.Data
		spent = append(spent, bitcoin.TxOut{Value: data.Value, Script: data.Script})
	}
	for _, out := range j.Outputs {
		tx.Out = append(tx.Out, bitcoin.TxOut{Value: out.Value, Script: out.Script})
	}
	return tx, spent
}

// flagsAt are the rules of the main chain at the heights of the JSON blocks (Bitcoin Core
// kernel/chainparams.cpp); the soft forks between matter to no block among them.
func flagsAt(height int32) Flags {
	flags := VerifyP2SH | VerifyWitness // applied to all blocks but two, as Core does
	if height >= 363_725 {
		flags |= VerifyDERSig
	}
	if height >= 388_381 {
		flags |= VerifyCheckLockTimeVerify
	}
	if height >= 419_328 {
		flags |= VerifyCheckSequenceVerify
	}
	if height >= 481_824 {
		flags |= VerifyNullDummy
	}
	return flags | VerifyTaproot
}

func TestJSONBlocks(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(vectors.Path(t, "bitcoin/json-blocks"), "*.json"))
	if err != nil || len(files) != 9 {
		t.Fatalf("%d files, want 9 (%v)", len(files), err)
	}
	v := new(Verifier)
	inputs := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var block jsonBlock
		if err := json.Unmarshal(raw, &block); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, b := range block.Blocks {
			for i := range b.Data.Transactions {
				tx, spent := b.Data.Transactions[i].build(t)
				if i == 0 {
					continue
				}
				inputs += len(tx.In)
				if err := v.VerifyTx(tx, spent,
					flagsAt(block.ChainState.BlockHeight+1)); err != nil {
					t.Errorf("%s: transaction %v: %v", filepath.Base(file), tx.TxID(), err)
				}
			}
		}
	}
	if inputs < 1000 {
		t.Errorf("%d inputs", inputs)
	}
}
