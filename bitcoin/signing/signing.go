// Package signing puts signatures into transactions with the keys and scripts at hand, for all standard
// forms of outputs: keys, hashes of keys, multisig, bare, behind a hash or in a witness, and taproot by its
// key.
//
// What it cannot sign it leaves as it is, with the signatures that others have made already; whether an
// input is complete is for package script to say. Which keys are whose, and what to pay whom, is not known
// here.
package signing

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// Keys are what can be signed with. The zero Keys has none. Its methods must not be called at once.
type Keys struct {
	secrets map[[20]byte]key      // by the hash of the public key
	taproot map[[32]byte]taproot  // by output key
	scripts map[[20]byte][]byte   // by hash
	witness map[[32]byte][]byte   // likewise, as witness programs have it
	lowR    bool                  // signatures are made until r is short, as Core's wallet does
	aux     func(*[32]byte) error // fresh randomness for Schnorr signatures
}

type key struct {
	secret *secp.PrivateKey
	public []byte
}

// taproot is a key without scripts beside it, tweaked.
type taproot struct{ secret *secp.PrivateKey }

// New returns Keys without any.
func New() *Keys {
	return &Keys{secrets: make(map[[20]byte]key), taproot: make(map[[32]byte]taproot),
		scripts: make(map[[20]byte][]byte), witness: make(map[[32]byte][]byte), lowR: true,
		aux: func(b *[32]byte) error {
			_, err := rand.Read(b[:])
			return err
		}}
}

// Add adds a key. compressed is the form in which outputs name it.
func (k *Keys) Add(secret *secp.PrivateKey, compressed bool) error {
	public := secret.PublicKey()
	full, short := public.Uncompressed(), public.Compressed()
	b := full[:]
	if compressed {
		b = short[:]
	}
	k.secrets[script.Hash160(b)] = key{secret, b}
	if !compressed {
		return nil
	}
	tweaked, err := secret.TapTweak(nil)
	if err != nil {
		return err
	}
	k.taproot[tweaked.PublicKey().XOnly()] = taproot{tweaked}
	k.taproot[public.XOnly()] = taproot{secret} // rawtr
	return nil
}

// AddScript adds what outputs behind its hash need to be spent, be they of the old form, in a witness or
// both.
func (k *Keys) AddScript(s []byte) {
	k.scripts[script.Hash160(s)] = s
	hash := sha256.Sum256(s)
	k.witness[hash] = s
	program := script.PayToWitness(0, hash[:])
	k.scripts[script.Hash160(program)] = program
}

// ErrMissing says that an input spends what is not known.
var ErrMissing = errors.New("Input not found or already spent")

// Sign signs the inputs of a transaction, of which spent are the outputs, as far as known[i] says that they
// are known; taproot needs all of them. The transaction is changed. errs has one error for each input that
// is not complete: ErrMissing, or a *script.Error.
func (k *Keys) Sign(tx *bitcoin.Tx, spent []bitcoin.TxOut, known []bool, t script.SigHash) (errs []error) {
	errs = make([]error, len(tx.In))
	all := true
	for i := range known {
		all = all && known[i]
	}
	before := tx.Clone() // signatures are over what does not change by signing
	var s script.Spending
	s.InitForSigning(before, spent)
	var v script.Verifier
	defer v.Release()
	for i := range tx.In {
		if !known[i] {
			errs[i] = ErrMissing
			continue
		}
		in := input{keys: k, spending: &s, tx: tx, at: i, hashType: t, all: all}
		in.sign(spent[i].Script, takeApart(&tx.In[i], spent[i].Script))
	}
	var done script.Spending
	done.InitForSigning(tx, spent)
	for i := range tx.In {
		if known[i] {
			errs[i] = v.VerifyInput(&done, i, script.StandardFlags)
		}
	}
	return errs
}

// Combine returns a transaction with the signatures of several that differ in nothing else. spent are the
// outputs that it spends. What one has complete is taken as it is.
func Combine(txs []*bitcoin.Tx, spent []bitcoin.TxOut) *bitcoin.Tx {
	merged := txs[0].Clone()
	var s script.Spending
	s.InitForSigning(txs[0], spent)
	var v script.Verifier
	defer v.Release()
	for i := range merged.In {
		var all parts
		complete := false
		for _, tx := range txs {
			if i >= len(tx.In) || complete {
				continue
			}
			merged.In[i].Script, merged.In[i].Witness = tx.In[i].Script, tx.In[i].Witness
			var one script.Spending
			one.InitForSigning(merged, spent)
			complete = v.VerifyInput(&one, i, script.StandardFlags) == nil
			all.add(takeApart(&tx.In[i], spent[i].Script))
		}
		if !complete {
			in := input{keys: New(), spending: &s, tx: merged, at: i, hashType: script.SigHashAll}
			in.sign(spent[i].Script, all)
		}
	}
	return merged
}

// input is an input that is being signed.
type input struct {
	keys     *Keys
	spending *script.Spending
	tx       *bitcoin.Tx
	at       int
	hashType script.SigHash
	all      bool // all outputs that are spent are known

	inWitness bool // signatures are those of BIP 143
}

// sign puts into the input what spends an output script, if it can. old is what is there already.
func (in *input) sign(to []byte, old parts) {
	if in.hashType&^script.SigHashAnyoneCanPay == script.SigHashSingle && in.at >= len(in.tx.Out) {
		return // it would sign the number one
	}
	txIn := &in.tx.In[in.at]
	var redeem []byte
	if form, parts := script.Solve(to); form == script.ScriptHash {
		if redeem = in.script(parts[0], old); redeem == nil {
			return
		}
		to = redeem
	}
	form, parts := script.Solve(to)
	var stack [][]byte
	var ok bool
	switch form {
	case script.WitnessV0KeyHash:
		in.inWitness = true
		stack, ok = in.satisfy(script.PayToPubKeyHash([20]byte(parts[0])), old)
	case script.WitnessV0ScriptHash:
		in.inWitness = true
		inner := in.keys.witness[[32]byte(parts[0])]
		if inner == nil {
			inner = old.witnessScript
		}
		if inner == nil {
			return
		}
		stack, ok = in.satisfy(inner, old)
		stack = append(stack, inner)
	case script.WitnessV1Taproot:
		if redeem == nil && len(txIn.Witness) == 0 {
			in.signTaproot(parts[0])
		}
		return
	default:
		stack, ok = in.satisfy(to, old)
	}
	if !ok {
		return
	}
	in.put(stack, redeem)
}

// put puts a stack, and the script behind a hash, where they belong.
func (in *input) put(stack [][]byte, redeem []byte) {
	txIn := &in.tx.In[in.at]
	txIn.Script, txIn.Witness = nil, nil
	if in.inWitness {
		txIn.Witness = stack
	} else {
		for _, item := range stack {
			txIn.Script = script.AppendPush(txIn.Script, item)
		}
	}
	if redeem != nil {
		txIn.Script = script.AppendPush(txIn.Script, redeem)
	}
}

// script returns the script with a hash, from the keys or from what the input holds already.
func (in *input) script(hash []byte, old parts) []byte {
	if s := in.keys.scripts[[20]byte(hash)]; s != nil {
		return s
	}
	return old.redeem
}

// satisfy returns the stack with which a script that is no hash succeeds, as far as there are keys. ok is
// false where there is nothing to put.
func (in *input) satisfy(to []byte, old parts) (stack [][]byte, ok bool) {
	form, parts := script.Solve(to)
	switch form {
	case script.PubKey:
		sig := in.signature(parts[0], to, old)
		return [][]byte{sig}, sig != nil
	case script.PubKeyHash:
		key, have := in.keys.secrets[[20]byte(parts[0])]
		if !have {
			return nil, false
		}
		sig := in.signature(key.public, to, old)
		return [][]byte{sig, key.public}, sig != nil
	case script.BareMultisig:
		required, keys := int(parts[0][0]), parts[1:len(parts)-1]
		stack = append(stack, nil) // what OP_CHECKMULTISIG takes too much (BIP 147)
		for _, key := range keys {
			if sig := in.signature(key, to, old); sig != nil && len(stack) <= required {
				stack = append(stack, sig)
			}
		}
		got := len(stack) > 1
		for len(stack) <= required {
			stack = append(stack, nil) // a place for a signature that is to come
		}
		return stack, got
	}
	return nil, false
}

// signature returns a signature by a public key: one that the input holds already, or a new one; nil where
// there is none.
func (in *input) signature(public, code []byte, old parts) []byte {
	for _, sig := range old.signatures {
		if in.valid(sig, public, code) {
			return sig
		}
	}
	key, ok := in.keys.secrets[script.Hash160(public)]
	if !ok || in.inWitness && len(public) != 33 {
		return nil // keys in witnesses are compressed (BIP 143)
	}
	t := in.hashType
	if t == script.SigHashDefault {
		t = script.SigHashAll
	}
	digest := in.digest(code, t)
	rs := key.secret.SignECDSA(&digest, in.keys.lowR)
	return append(secp.AppendDER(nil, &rs), byte(t))
}

func (in *input) digest(code []byte, t script.SigHash) [32]byte {
	if in.inWitness {
		return in.spending.WitnessSigHash(in.at, code, t)
	}
	return script.LegacySigHash(in.spending.Tx(), in.at, code, t)
}

func (in *input) valid(sig, public, code []byte) bool {
	if len(sig) < 2 {
		return false
	}
	digest := in.digest(code, script.SigHash(sig[len(sig)-1]))
	return secp.VerifyECDSA(secp.Default(), public, &digest, sig[:len(sig)-1])
}

func (in *input) signTaproot(output []byte) {
	key, ok := in.keys.taproot[[32]byte(output)]
	if !ok || !in.all {
		return
	}
	digest, err := in.spending.TaprootSigHash(in.at, in.hashType, nil, nil)
	if err != nil {
		return
	}
	var aux [32]byte
	if in.keys.aux(&aux) != nil {
		aux = [32]byte{} // BIP 340: it only makes attacks on the hardware harder
	}
	sig, err := key.secret.SignSchnorr(digest[:], &aux)
	if err != nil {
		return
	}
	witness := sig[:]
	if in.hashType != script.SigHashDefault {
		witness = append(witness, byte(in.hashType))
	}
	in.tx.In[in.at].Witness = [][]byte{witness}
}

// parts are what an input that is not complete holds already.
type parts struct {
	signatures            [][]byte
	redeem, witnessScript []byte
}

func (p *parts) add(q parts) {
	p.signatures = append(p.signatures, q.signatures...)
	if p.redeem == nil {
		p.redeem = q.redeem
	}
	if p.witnessScript == nil {
		p.witnessScript = q.witnessScript
	}
}

// takeApart looks for scripts and signatures in an input (Bitcoin Core script/sign.cpp,
// DataFromTransaction).
func takeApart(in *bitcoin.TxIn, to []byte) (p parts) {
	stack, code := new(script.Verifier).Eval(in.Script, 0)
	if code != script.OK {
		stack = nil
	}
	own := make([][]byte, len(stack)) // the verifier keeps its stack
	for i := range stack {
		own[i] = append([]byte(nil), stack[i]...)
	}
	stack = own
	if script.IsPayToScriptHash(to) && len(stack) > 0 {
		redeem := stack[len(stack)-1]
		if hash := script.Hash160(redeem); string(hash[:]) == string(to[2:22]) {
			p.redeem, to = redeem, redeem
		}
		stack = stack[:len(stack)-1]
	}
	if version, program, ok := script.WitnessProgram(to); ok {
		stack = in.Witness
		if n := len(stack); version == 0 && len(program) == 32 && n > 0 {
			if hash := sha256.Sum256(stack[n-1]); string(hash[:]) == string(program) {
				p.witnessScript = stack[n-1]
			}
			stack = stack[:n-1]
		}
	}
	for _, item := range stack {
		if len(item) > 8 {
			p.signatures = append(p.signatures, item)
		}
	}
	return p
}
