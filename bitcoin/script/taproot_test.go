package script

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"io"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/secp"
	"github.com/tallypost/tallypost/internal/vectors"
)

// digits is octets that JSON holds in hexadecimal.
type digits []byte

func (d *digits) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	var err error
	*d, err = hex.DecodeString(s)
	return err
}

// asset is a file of the taproot corpus, the format of Core's script_assets_test.json.
type asset struct {
	Tx       digits
	Prevouts []digits
	Index    int
	Flags    string
	Comment  string
	Final    bool
	Success  *assetInput
	Failure  *assetInput
}

type assetInput struct {
	ScriptSig digits
	Witness   []digits
}

func (a *asset) spending(t testing.TB, with *assetInput) *Spending {
	tx, err := bitcoin.ParseTxNoWitness(a.Tx)
	if err != nil {
		t.Fatal(err)
	}
	tx = tx.Clone()
	in := &tx.In[a.Index]
	in.Script, in.Witness = with.ScriptSig, nil
	for _, item := range with.Witness {
		in.Witness = append(in.Witness, item)
	}
	spent := make([]bitcoin.TxOut, len(a.Prevouts))
	for i, raw := range a.Prevouts {
		spent[i] = readOutput(t, raw)
	}
	s := new(Spending)
	s.Init(tx, spent)
	return s
}

// readOutput reads an output that fills b.
func readOutput(t testing.TB, b []byte) bitcoin.TxOut {
	t.Helper()
	out, n := cutOutput(t, b)
	if n != len(b) {
		t.Fatalf("output of %d octets in %d", n, len(b))
	}
	return out
}

// cutOutput reads the output at the start of b.
func cutOutput(t testing.TB, b []byte) (bitcoin.TxOut, int) {
	t.Helper()
	value := int64(decodeNum(b[:7])) | int64(b[7])<<56
	if b[6]&0x80 != 0 {
		t.Fatal("amount beyond all money")
	}
	n, size, err := bitcoin.ReadCompactSize(b[8:])
	if err != nil {
		t.Fatal(err)
	}
	script := b[8+size : 8+size+int(n)]
	return bitcoin.TxOut{Value: bitcoin.Amount(value), Script: script}, 8 + size + int(n)
}

// consensusFlags are all consistent combinations of the flags that blocks are held to.
func consensusFlags() (all []Flags) {
	for f := Flags(0); f <= allFlags; f++ {
		if f&^MandatoryFlags == 0 && f.Consistent() && (f&VerifyTaproot == 0 ||
			f&VerifyWitness != 0) {
			all = append(all, f)
		}
	}
	return all
}

// TestTaprootCorpus runs the spends that Core's feature_taproot.py made: what succeeds does so with
// every consensus rule taken away, what fails does so with every rule added.
func TestTaprootCorpus(t *testing.T) {
	combinations := consensusFlags()
	if len(combinations) != 64 { // 16 each with nothing, P2SH, WITNESS too, TAPROOT too
		t.Fatalf("%d combinations of flags, want 64", len(combinations))
	}
	v := &Verifier{Cache: NewSigCache(1<<20, [32]byte{1})}
	successes, failures, n := 0, 0, 0
	readAssets(t, func(name string, a *asset) {
		if n++; testing.Short() && n%8 != 0 {
			return
		}
		flags := parseFlags(t, a.Flags)
		if a.Success != nil {
			successes++
			s := a.spending(t, a.Success)
			for _, f := range combinations {
				if !a.Final && f&flags != f {
					continue
				}
				if code := v.verify(s, a.Index, f); code != OK {
					t.Errorf("%s (%s): %s with %v", name, a.Comment, code.Name(), f)
				}
			}
		}
		if a.Failure != nil {
			failures++
			s := a.spending(t, a.Failure)
			for _, f := range combinations {
				if f&flags == flags && v.verify(s, a.Index, f) == OK {
					t.Errorf("%s (%s): passes with %v", name, a.Comment, f)
				}
			}
		}
	})
	if !testing.Short() && (successes != 2760 || failures != 2483) {
		t.Errorf("%d successes and %d failures, want 2760 and 2483", successes, failures)
	}
}

func readAssets(t testing.TB, each func(name string, a *asset)) {
	unzip, err := gzip.NewReader(bytes.NewReader(vectors.Read(t,
		"bitcoin/core/taproot-ref.tar.gz")))
	if err != nil {
		t.Fatal(err)
	}
	for files := tar.NewReader(unzip); ; {
		header, err := files.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		var a asset
		if err := json.NewDecoder(files).Decode(&a); err != nil {
			t.Fatalf("%s: %v", header.Name, err)
		}
		each(header.Name, &a)
	}
}

// TestBatchedTaproot puts the Schnorr signatures of the corpus into a batch for each input: the
// answer of interpreter and batch together must be that of the interpreter alone.
func TestBatchedTaproot(t *testing.T) {
	alone, batched := new(Verifier), &Verifier{Batch: new(secp.Batch)}
	n := 0
	readAssets(t, func(name string, a *asset) {
		if n++; n%4 != 0 || testing.Short() && n%32 != 0 { // a quarter is enough
			return
		}
		flags := parseFlags(t, a.Flags)
		for _, with := range []*assetInput{a.Success, a.Failure} {
			if with == nil {
				continue
			}
			s := a.spending(t, with)
			want := alone.verify(s, a.Index, flags)
			batched.Batch.Reset()
			batched.Tag = n
			got := batched.verify(s, a.Index, flags)
			if got == OK {
				if tag, ok := batched.Batch.Verify(secp.Default()); !ok {
					if tag != n {
						t.Errorf("%s: tag %d, want %d", name, tag, n)
					}
					got = ErrSchnorrSig
				}
			}
			// A script may go on after a wrong signature and fail for another reason.
			if (got == OK) != (want == OK) {
				t.Errorf("%s (%s): %s, want %s", name, a.Comment, got.Name(), want.Name())
			}
		}
	})
}

type walletVectors struct {
	ScriptPubKey []struct {
		Given struct {
			InternalPubkey digits
			ScriptTree     json.RawMessage
		}
		Intermediary struct {
			LeafHashes []digits
			MerkleRoot digits
			Tweak      digits
		}
		Expected struct {
			ScriptPubKey            digits
			ScriptPathControlBlocks []digits
		}
	}
	KeyPathSpending []struct {
		Given struct {
			RawUnsignedTx digits
			UtxosSpent    []struct {
				ScriptPubKey digits
				AmountSats   bitcoin.Amount
			}
		}
		Intermediary struct {
			HashAmounts, HashOutputs, HashPrevouts, HashScriptPubkeys, HashSequences digits
		}
		InputSpending []struct {
			Given struct {
				TxinIndex       int
				InternalPrivkey digits
				MerkleRoot      digits
				HashType        byte
			}
			Intermediary struct {
				InternalPubkey, Tweak, TweakedPrivkey, SigHash digits
			}
			Expected struct{ Witness []digits }
		}
		Auxiliary struct{ FullySignedTx digits }
	}
}

// TestBIP341Outputs recomputes the outputs and control blocks of BIP 341's wallet vectors.
func TestBIP341Outputs(t *testing.T) {
	var all walletVectors
	readJSON(t, "bitcoin/core/bip341_wallet_vectors.json", &all)
	if len(all.ScriptPubKey) != 7 {
		t.Errorf("%d outputs, want 7", len(all.ScriptPubKey))
	}
	for i, c := range all.ScriptPubKey {
		internal := [32]byte(c.Given.InternalPubkey)
		tree := buildTree(t, c.Given.ScriptTree)
		if tree != nil && !bytes.Equal(tree.root[:], c.Intermediary.MerkleRoot) {
			t.Errorf("%d: root %x, want %x", i, tree.root, c.Intermediary.MerkleRoot)
		}
		tweak := secp.TapTweak(&internal, c.Intermediary.MerkleRoot)
		if !bytes.Equal(tweak[:], c.Intermediary.Tweak) {
			t.Errorf("%d: tweak %x, want %x", i, tweak, c.Intermediary.Tweak)
		}
		q, odd, err := secp.TaprootOutput(&internal, c.Intermediary.MerkleRoot)
		if err != nil {
			t.Fatal(err)
		}
		if got := PayToWitness(1, q[:]); !bytes.Equal(got, c.Expected.ScriptPubKey) {
			t.Errorf("%d: output %x, want %x", i, got, c.Expected.ScriptPubKey)
		}
		for j, want := range c.Expected.ScriptPathControlBlocks {
			leaf := tree.leaves[j]
			control := append([]byte{leaf.version}, internal[:]...)
			if odd {
				control[0]++
			}
			if control = append(control, leaf.path...); !bytes.Equal(control, want) {
				t.Errorf("%d: control block %d is %x, want %x", i, j, control, want)
			}
			v := &Verifier{}
			v.leaf.Hash = leaf.hash
			if !v.verifyCommitment(control, q[:]) {
				t.Errorf("%d: control block %d does not verify", i, j)
			}
			control[0] ^= 1
			if v.verifyCommitment(control, q[:]) {
				t.Errorf("%d: control block %d verifies with the wrong parity", i, j)
			}
		}
	}
}

type treeLeaf struct {
	version byte
	hash    [32]byte
	path    []byte
}

type tree struct {
	root   [32]byte
	leaves []*treeLeaf
}

// buildTree reads a script tree: a leaf, or a list of two trees.
func buildTree(t *testing.T, raw json.RawMessage) *tree {
	if string(raw) == "null" {
		return nil
	}
	var pair []json.RawMessage
	if json.Unmarshal(raw, &pair) == nil {
		a, b := buildTree(t, pair[0]), buildTree(t, pair[1])
		for _, l := range a.leaves {
			l.path = append(l.path, b.root[:]...)
		}
		for _, l := range b.leaves {
			l.path = append(l.path, a.root[:]...)
		}
		return &tree{TapBranchHash(&a.root, &b.root), append(a.leaves, b.leaves...)}
	}
	var leaf struct {
		Script      digits
		LeafVersion byte
	}
	if err := json.Unmarshal(raw, &leaf); err != nil {
		t.Fatal(err)
	}
	l := &treeLeaf{version: leaf.LeafVersion, hash: TapLeafHash(leaf.LeafVersion, leaf.Script)}
	return &tree{l.hash, []*treeLeaf{l}}
}

// TestBIP341KeyPath recomputes the hashes and signatures of BIP 341's wallet vectors and verifies
// the transaction that they make.
func TestBIP341KeyPath(t *testing.T) {
	var all walletVectors
	readJSON(t, "bitcoin/core/bip341_wallet_vectors.json", &all)
	for _, c := range all.KeyPathSpending {
		tx, err := bitcoin.ParseTx(c.Given.RawUnsignedTx)
		if err != nil {
			t.Fatal(err)
		}
		var spent []bitcoin.TxOut
		for _, out := range c.Given.UtxosSpent {
			spent = append(spent, bitcoin.TxOut{Value: out.AmountSats, Script: out.ScriptPubKey})
		}
		var s Spending
		s.InitForSigning(tx, spent)
		for _, h := range []struct {
			got  [32]byte
			want digits
		}{
			{s.amounts, c.Intermediary.HashAmounts},
			{s.outputs, c.Intermediary.HashOutputs},
			{s.prevouts, c.Intermediary.HashPrevouts},
			{s.scripts, c.Intermediary.HashScriptPubkeys},
			{s.sequences, c.Intermediary.HashSequences},
		} {
			if !bytes.Equal(h.got[:], h.want) {
				t.Errorf("shared hash %x, want %x", h.got, h.want)
			}
		}
		for _, in := range c.InputSpending {
			key, err := secp.ParsePrivateKey((*[32]byte)(in.Given.InternalPrivkey))
			if err != nil {
				t.Fatal(err)
			}
			tweaked, err := key.TapTweak(in.Given.MerkleRoot)
			if err != nil {
				t.Fatal(err)
			}
			if got := tweaked.Bytes(); !bytes.Equal(got[:], in.Intermediary.TweakedPrivkey) {
				t.Errorf("tweaked key %x, want %x", got, in.Intermediary.TweakedPrivkey)
			}
			sum, err := s.TaprootSigHash(in.Given.TxinIndex, SigHash(in.Given.HashType), nil, nil)
			if err != nil || !bytes.Equal(sum[:], in.Intermediary.SigHash) {
				t.Errorf("input %d: %x (%v), want %x", in.Given.TxinIndex, sum, err,
					in.Intermediary.SigHash)
			}
			sig, err := tweaked.SignSchnorr(sum[:], new([32]byte))
			if err != nil {
				t.Fatal(err)
			}
			item := sig[:]
			if in.Given.HashType != 0 {
				item = append(item, in.Given.HashType)
			}
			if !bytes.Equal(item, in.Expected.Witness[0]) {
				t.Errorf("input %d: signature %x, want %x", in.Given.TxinIndex, item,
					in.Expected.Witness[0])
			}
		}
		signed, err := bitcoin.ParseTx(c.Auxiliary.FullySignedTx)
		if err != nil {
			t.Fatal(err)
		}
		if err := new(Verifier).VerifyTx(signed, spent, StandardFlags); err != nil {
			t.Error(err)
		}
	}
}
