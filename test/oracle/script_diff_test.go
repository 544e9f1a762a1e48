package oracle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/btcsuite/btcd/txscript/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// scriptFlags pairs our flags with btcd's.
var scriptFlags = []struct {
	ours   script.Flags
	theirs txscript.ScriptFlags
}{
	{script.VerifyP2SH, txscript.ScriptBip16},
	{script.VerifyStrictEnc, txscript.ScriptVerifyStrictEncoding},
	{script.VerifyDERSig, txscript.ScriptVerifyDERSignatures},
	{script.VerifyLowS, txscript.ScriptVerifyLowS},
	{script.VerifyNullDummy, txscript.ScriptStrictMultiSig},
	{script.VerifySigPushOnly, txscript.ScriptVerifySigPushOnly},
	{script.VerifyMinimalData, txscript.ScriptVerifyMinimalData},
	{script.VerifyDiscourageUpgradableNops, txscript.ScriptDiscourageUpgradableNops},
	{script.VerifyCleanStack, txscript.ScriptVerifyCleanStack},
	{script.VerifyCheckLockTimeVerify, txscript.ScriptVerifyCheckLockTimeVerify},
	{script.VerifyCheckSequenceVerify, txscript.ScriptVerifyCheckSequenceVerify},
	{script.VerifyWitness, txscript.ScriptVerifyWitness},
	{script.VerifyDiscourageUpgradableWitnessProgram,
		txscript.ScriptVerifyDiscourageUpgradeableWitnessProgram},
	{script.VerifyMinimalIf, txscript.ScriptVerifyMinimalIf},
	{script.VerifyNullFail, txscript.ScriptVerifyNullFail},
	{script.VerifyWitnessPubKeyType, txscript.ScriptVerifyWitnessPubKeyType},
	{script.VerifyConstScriptCode, txscript.ScriptVerifyConstScriptCode},
	{script.VerifyTaproot, txscript.ScriptVerifyTaproot},
	{script.VerifyDiscourageUpgradableTaprootVersion,
		txscript.ScriptVerifyDiscourageUpgradeableTaprootVersion},
	{script.VerifyDiscourageOpSuccess, txscript.ScriptVerifyDiscourageOpSuccess},
	{script.VerifyDiscourageUpgradablePubKeyType,
		txscript.ScriptVerifyDiscourageUpgradeablePubkeyType},
}

// scriptCase is an input to judge: the first of a transaction with three.
type scriptCase struct {
	kind  string
	tx    *bitcoin.Tx
	spent []bitcoin.TxOut
	flags script.Flags
}

func (c *scriptCase) String() string {
	in := c.tx.In[0]
	return fmt.Sprintf("%s\nflags %v\nscriptSig %s\nscriptPubKey %s\nwitness %x\ntx %x", c.kind,
		c.flags,
		script.Format(in.Script), script.Format(c.spent[0].Script), in.Witness, c.tx.Append(nil))
}

// ours and theirs verify the case.
func (c *scriptCase) ours() error {
	var s script.Spending
	s.Init(c.tx, c.spent)
	return new(script.Verifier).VerifyInput(&s, 0, c.flags)
}

func (c *scriptCase) theirs(t *testing.T) error {
	msg := toWire(t, c.tx.Append(nil))
	outputs := txscript.NewMultiPrevOutFetcher(nil)
	for i, in := range msg.TxIn {
		outputs.AddPrevOut(in.PreviousOutPoint, wire.NewTxOut(int64(c.spent[i].Value),
			c.spent[i].Script))
	}
	var flags txscript.ScriptFlags
	for _, f := range scriptFlags {
		if c.flags&f.ours != 0 {
			flags |= f.theirs
		}
	}
	vm, err := txscript.NewEngine(c.spent[0].Script, msg, 0, flags, nil,
		txscript.NewTxSigHashes(msg, outputs), int64(c.spent[0].Value), outputs)
	if err != nil {
		return err
	}
	return vm.Execute()
}

// scriptMaker makes cases that get far into the rules before they fail, if they fail.
type scriptMaker struct {
	*rand.Rand
	keys []*secp.PrivateKey
}

func newScriptMaker(t testing.TB, seed uint64) *scriptMaker {
	m := &scriptMaker{Rand: rand.New(rand.NewPCG(seed, 7))}
	for i := range byte(4) {
		k, err := secp.ParsePrivateKey(&[32]byte{0: i, 31: i + 1})
		if err != nil {
			t.Fatal(err)
		}
		m.keys = append(m.keys, k)
	}
	return m
}

func (m *scriptMaker) oneIn(n int) bool { return m.IntN(n) == 0 }

func (m *scriptMaker) octets(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.Uint32())
	}
	return b
}

// flags draws consistent flags: all, those of blocks, or any.
func (m *scriptMaker) flags() script.Flags {
	switch m.IntN(4) {
	case 0:
		return script.StandardFlags
	case 1:
		return script.MandatoryFlags
	}
	f := script.Flags(m.Uint64()) & (script.StandardFlags | script.VerifySigPushOnly)
	if f&script.VerifyCleanStack != 0 || m.oneIn(2) {
		f |= script.VerifyWitness
	}
	if f&script.VerifyTaproot != 0 {
		f |= script.VerifyWitness
	}
	if f&script.VerifyWitness != 0 {
		f |= script.VerifyP2SH
	}
	return f
}

// tx returns a transaction whose first input spends an output with the given script.
func (m *scriptMaker) tx(pkScript []byte) (*bitcoin.Tx, []bitcoin.TxOut) {
	tx := &bitcoin.Tx{Version: uint32(m.IntN(4)), LockTime: uint32(m.IntN(20))}
	if m.oneIn(4) {
		tx.Version, tx.LockTime = m.Uint32(), m.Uint32()
	}
	var spent []bitcoin.TxOut
	for i := range 3 {
		in := bitcoin.TxIn{PrevOut: bitcoin.OutPoint{TxID: bitcoin.Hash(m.octets(32)),
			Index: uint32(i)}}
		in.Sequence = uint32(m.IntN(20))
		if m.oneIn(3) {
			in.Sequence = m.Uint32() | 0xff000000
		}
		tx.In = append(tx.In, in)
		out := bitcoin.TxOut{Value: bitcoin.Amount(m.IntN(1000)), Script: []byte{0x51}}
		if i == 0 {
			out.Script = pkScript
		}
		spent = append(spent, out)
	}
	for range m.IntN(3) {
		out := bitcoin.TxOut{Value: bitcoin.Amount(m.IntN(1000)), Script: m.octets(m.IntN(30))}
		tx.Out = append(tx.Out, out)
	}
	if len(tx.Out) == 0 && m.oneIn(2) {
		tx.Out = []bitcoin.TxOut{{Value: 1}}
	}
	return tx, spent
}

// push appends a push that is not always the shortest.
func (m *scriptMaker) push(dst, data []byte) []byte {
	if m.oneIn(40) && len(data) < 256 {
		return append(append(dst, byte(script.OpPushData1), byte(len(data))), data...)
	}
	if m.oneIn(80) {
		n := len(data)
		return append(append(dst, byte(script.OpPushData2), byte(n), byte(n>>8)), data...)
	}
	return script.AppendPush(dst, data)
}

// item draws data that operations like: numbers near the edges, truths, keys, long items.
func (m *scriptMaker) item() []byte {
	switch m.IntN(8) {
	case 0:
		return nil
	case 1:
		return []byte{1}
	case 2:
		return m.octets(m.IntN(6))
	case 3:
		return script.AppendNum(nil, int64(m.IntN(40)-20))
	case 4:
		return script.AppendNum(nil, int64(m.Uint32()))
	case 5:
		return [][]byte{{0x80}, {0, 0x80}, {0}, {0xff, 0}, {0xff, 0x80}, {1, 0}, {2}}[m.IntN(7)]
	case 6:
		return m.key()
	}
	if m.oneIn(10) {
		return m.octets(518 + m.IntN(4))
	}
	return m.octets(m.IntN(80))
}

// key draws a public key in one of its forms.
func (m *scriptMaker) key() []byte {
	k := m.keys[m.IntN(len(m.keys))].PublicKey()
	c, u, x := k.Compressed(), k.Uncompressed(), k.XOnly()
	switch m.IntN(6) {
	case 0:
		return u[:]
	case 1:
		u[0] = 6 + byte(m.IntN(2))
		return u[:]
	case 2:
		return x[:]
	}
	return c[:]
}

// program draws a script of random operations.
func (m *scriptMaker) program(n int) []byte {
	var s []byte
	depth := 0
	for range n {
		switch m.IntN(10) {
		case 0, 1, 2:
			s = m.push(s, m.item())
		case 3, 4:
			s = script.AppendInt(s, int64(m.IntN(20)-2))
		case 5:
			s = append(s, byte([]script.Op{script.OpIf, script.OpNotIf}[m.IntN(2)]))
			depth++
		case 6:
			s = append(s, byte([]script.Op{script.OpElse, script.OpEndIf}[m.IntN(2)]))
			depth--
		default:
			s = append(s, byte(script.OpNop)+byte(m.IntN(int(script.OpCheckSigAdd-script.OpNop)+2)))
		}
	}
	for range depth {
		s = append(s, byte(script.OpEndIf))
	}
	if m.oneIn(30) {
		s = append(s, m.octets(m.IntN(5))...)
	}
	return s
}

// random makes a case of random operations in one of the places where scripts stand.
func (m *scriptMaker) random() *scriptCase {
	body := m.program(m.IntN(16))
	if m.oneIn(2) {
		body = append(body, byte(script.Op1))
	}
	var items [][]byte
	for range m.IntN(6) {
		items = append(items, m.item())
	}
	c := &scriptCase{kind: "random"}
	c.tx, c.spent = m.tx(nil)
	m.place(c, m.IntN(5), items, body)
	c.flags = m.flags()
	return c
}

// place puts a script and what it runs on into the transaction: bare, as redeem script, as witness
// script, as both, or as tapscript.
func (m *scriptMaker) place(c *scriptCase, where int, items [][]byte, body []byte) {
	in, out := &c.tx.In[0], &c.spent[0].Script
	switch where {
	case 0:
		in.Script, *out = m.pushAll(items), body
	case 1:
		in.Script = m.push(m.pushAll(items), body)
		*out = script.PayToScriptHash(script.Hash160(body))
	case 2, 3:
		sum := sha256.Sum256(body)
		program := script.PayToWitness(0, sum[:])
		in.Witness = append(append([][]byte(nil), items...), body)
		*out = program
		if where == 3 {
			in.Script = m.push(nil, program)
			*out = script.PayToScriptHash(script.Hash160(program))
		}
	case 4:
		m.placeTapscript(c, items, body)
	}
	if m.oneIn(60) {
		in.Witness = append(in.Witness, m.item())
	}
	if m.oneIn(60) {
		in.Script = append(in.Script, byte(script.Op1))
	}
}

func (m *scriptMaker) placeTapscript(c *scriptCase, items [][]byte, body []byte) {
	version := byte(0xc0)
	if m.oneIn(20) {
		version = byte(m.Uint32()) &^ 1
	}
	internal := m.keys[0].PublicKey().XOnly()
	root := script.TapLeafHash(version, body)
	path := m.octets(32 * m.IntN(3))
	for p := path; len(p) > 0; p = p[32:] {
		root = script.TapBranchHash(&root, (*[32]byte)(p))
	}
	output, odd, err := secp.TaprootOutput(&internal, root[:])
	if err != nil {
		panic(err)
	}
	control := append([]byte{version}, internal[:]...)
	if odd != m.oneIn(50) {
		control[0] |= 1
	}
	in := &c.tx.In[0]
	in.Witness = append(append([][]byte(nil), items...), body, append(control, path...))
	if m.oneIn(8) {
		in.Witness = append(in.Witness, append([]byte{0x50}, m.octets(m.IntN(5))...))
	}
	c.spent[0].Script = script.PayToWitness(1, output[:])
}

func (m *scriptMaker) pushAll(items [][]byte) []byte {
	var s []byte
	for _, item := range items {
		if n, err := script.DecodeNum(item, true, 1); err == nil && n >= -1 && n <= 16 &&
			!m.oneIn(10) {
			s = script.AppendInt(s, n)
			continue
		}
		s = m.push(s, item)
	}
	return s
}

// signed makes a case with good signatures, and breaks it now and then.
func (m *scriptMaker) signed() *scriptCase {
	c := &scriptCase{kind: "signed"}
	c.tx, c.spent = m.tx(nil)
	c.flags = m.flags()
	switch where := m.IntN(6); where {
	case 5:
		m.signKeyPath(c)
	case 4:
		m.signTapscript(c)
	default:
		m.signScript(c, where)
	}
	if m.oneIn(6) {
		m.spoil(c)
	}
	return c
}

func (m *scriptMaker) hashType() byte {
	if m.oneIn(10) {
		return byte(m.Uint32())
	}
	return []byte{1, 1, 2, 3, 0x81, 0x82, 0x83}[m.IntN(7)]
}

// signScript makes a script with one or more signature operations before tapscript, and signs for
// it.
func (m *scriptMaker) signScript(c *scriptCase, where int) {
	var body, prefix []byte
	total, required := 1, 1
	multisig := m.oneIn(2)
	if multisig {
		total = 1 + m.IntN(4)
		required = m.IntN(total + 1)
	}
	if m.oneIn(4) {
		prefix = append(prefix, byte(script.OpCodeSeparator))
	}
	first := m.IntN(len(m.keys))
	key := func(i int) []byte { return m.keyOf(m.keys[(first+i)%len(m.keys)]) }
	if multisig {
		body = script.AppendInt(body, int64(required))
		for i := range total {
			body = script.AppendPush(body, key(i))
		}
		body = append(script.AppendInt(body, int64(total)), byte(script.OpCheckMultisig))
	} else {
		body = append(script.AppendPush(body, key(0)), byte(script.OpCheckSig))
	}
	if m.oneIn(8) { // a separator that does not count for the hash, for it comes after
		body = append(body, byte(script.OpCodeSeparator))
	}
	whole := append(append([]byte(nil), prefix...), body...)
	m.place(c, where, nil, whole) // so that the amount and the script are known
	var s script.Spending
	s.InitForSigning(c.tx, c.spent)
	var items [][]byte
	if multisig {
		items = append(items, nil)
	}
	for i := range required {
		t := m.hashType()
		var digest [32]byte
		if where >= 2 {
			digest = s.WitnessSigHash(0, body, script.SigHash(t))
		} else {
			digest = script.LegacySigHash(c.tx, 0, body, script.SigHash(t))
		}
		signer := m.keys[(first+i)%len(m.keys)]
		rs := signer.SignECDSA(&digest, m.oneIn(2))
		items = append(items, append(m.der(&rs), t))
	}
	c.tx.In[0].Script, c.tx.In[0].Witness = nil, nil
	m.place(c, where, items, whole)
}

// keyOf writes a key, mostly compressed.
func (m *scriptMaker) keyOf(k *secp.PrivateKey) []byte {
	c, u := k.PublicKey().Compressed(), k.PublicKey().Uncompressed()
	if !m.oneIn(6) {
		return c[:]
	}
	if m.oneIn(2) {
		u[0] = 6 + u[64]&1
	}
	return u[:]
}

// der encodes a signature, sometimes in another way than the strict one.
func (m *scriptMaker) der(rs *[64]byte) []byte {
	sig := secp.AppendDER(nil, rs)
	switch m.IntN(24) {
	case 0: // octets after the end
		return append(sig, 0)
	case 1: // padded r
		b := append([]byte{0x30, sig[1] + 1, 0x02, sig[3] + 1, 0}, sig[4:]...)
		return b
	}
	return sig
}

func (m *scriptMaker) schnorr(k *secp.PrivateKey, digest [32]byte, err error, t byte) []byte {
	if err != nil {
		return m.octets(65)
	}
	sig, err := k.SignSchnorr(digest[:], new([32]byte))
	if err != nil {
		panic(err)
	}
	if t == 0 && !m.oneIn(20) {
		return sig[:]
	}
	return append(sig[:], t)
}

func (m *scriptMaker) taprootHashType() byte {
	if m.oneIn(2) {
		return 0
	}
	return m.hashType()
}

func (m *scriptMaker) signKeyPath(c *scriptCase) {
	internal := m.keys[1].PublicKey().XOnly()
	output, _, err := secp.TaprootOutput(&internal, nil)
	if err != nil {
		panic(err)
	}
	key, err := m.keys[1].TapTweak(nil)
	if err != nil {
		panic(err)
	}
	c.spent[0].Script = script.PayToWitness(1, output[:])
	var annex []byte
	if m.oneIn(4) {
		annex = append([]byte{0x50}, m.octets(m.IntN(4))...)
	}
	var s script.Spending
	s.InitForSigning(c.tx, c.spent)
	t := m.taprootHashType()
	digest, err := s.TaprootSigHash(0, script.SigHash(t), annex, nil)
	c.tx.In[0].Witness = [][]byte{m.schnorr(key, digest, err, t)}
	if annex != nil {
		c.tx.In[0].Witness = append(c.tx.In[0].Witness, annex)
	}
}

// signTapscript makes a tapscript that adds up signatures.
func (m *scriptMaker) signTapscript(c *scriptCase) {
	var body []byte
	separator := uint32(script.NoCodeSeparator)
	if m.oneIn(3) {
		body, separator = append(body, byte(script.OpCodeSeparator)), 0
	}
	n := 1 + m.IntN(3)
	for i := range n {
		x := m.keys[i].PublicKey().XOnly()
		body = script.AppendPush(body, x[:])
		if i == 0 {
			body = append(body, byte(script.OpCheckSig))
		} else {
			body = append(body, byte(script.OpCheckSigAdd))
		}
	}
	body = append(script.AppendInt(body, int64(n)), byte(script.OpNumEqual))
	m.placeTapscript(c, nil, body)
	witness := c.tx.In[0].Witness
	var annex []byte
	if last := witness[len(witness)-1]; last[0] == 0x50 {
		annex = last
	}
	var s script.Spending
	s.InitForSigning(c.tx, c.spent)
	leaf := &script.Leaf{Hash: script.TapLeafHash(0xc0, body), CodeSeparator: separator}
	var items [][]byte
	for i := range n {
		t := m.taprootHashType()
		digest, err := s.TaprootSigHash(0, script.SigHash(t), annex, leaf)
		items = append([][]byte{m.schnorr(m.keys[i], digest, err, t)}, items...)
	}
	c.tx.In[0].Witness = append(items, witness...)
}

// spoil changes one thing.
func (m *scriptMaker) spoil(c *scriptCase) {
	in := &c.tx.In[0]
	switch m.IntN(5) {
	case 0:
		c.tx.LockTime++
	case 1:
		if len(in.Witness) > 0 {
			i := m.IntN(len(in.Witness))
			item := append([]byte(nil), in.Witness[i]...)
			if len(item) > 0 {
				item[m.IntN(len(item))] ^= 1 << m.IntN(8)
			}
			in.Witness[i] = item
		}
	case 2:
		if len(in.Script) > 0 {
			in.Script[m.IntN(len(in.Script))] ^= 1 << m.IntN(8)
		}
	case 3:
		if len(in.Witness) > 0 {
			in.Witness[m.IntN(len(in.Witness))] = nil
		}
	case 4:
		c.spent[0].Value++
	}
}

// knownScriptDifference names a fault of btcd that explains why it judges a case otherwise than
// Core and we do, or returns nothing. All of them are about flags that no block is held to.
func knownScriptDifference(c *scriptCase, ours, theirs error) string {
	var failure *script.Error
	errors.As(ours, &failure)
	switch {
	case ours == nil && txscript.IsErrorCode(theirs, txscript.ErrCleanStack) &&
		c.flags&script.VerifyTaproot == 0 && script.IsPayToTaproot(c.spent[0].Script):
		return "without TAPROOT a taproot output leaves two items, which CLEANSTACK then refuses"
	case ours == nil && txscript.IsErrorCode(theirs, txscript.ErrDiscourageOpSuccess) &&
		unknownLeaf(c),
		failure != nil && failure.Code == script.ErrDiscourageUpgradableTaprootVersion &&
			theirs == nil:
		return "OP_SUCCESS is looked for in leaves of unknown version too"
	case failure != nil && failure.Code == script.ErrSigFindAndDelete && theirs == nil:
		return "an empty signature is not searched in the script, where it would be OP_0"
	case ours == nil && txscript.IsErrorCode(theirs, txscript.ErrDiscourageUpgradableNOPs) &&
		(c.flags&script.VerifyCheckLockTimeVerify == 0 ||
			c.flags&script.VerifyCheckSequenceVerify == 0):
		return "OP_NOP2 and OP_NOP3 are discouraged where they have no meaning yet"
	}
	return ""
}

// unknownLeaf reports whether the input spends by a script that is no tapscript.
func unknownLeaf(c *scriptCase) bool {
	witness := c.tx.In[0].Witness
	if n := len(witness); n > 1 && len(witness[n-1]) > 0 && witness[n-1][0] == 0x50 {
		witness = witness[:n-1]
	}
	if len(witness) < 2 {
		return false
	}
	control := witness[len(witness)-1]
	return len(control) > 0 && control[0]&0xfe != 0xc0
}

func compareScripts(t *testing.T, c *scriptCase) {
	t.Helper()
	ours, theirs := c.ours(), c.theirs(t)
	if (ours == nil) == (theirs == nil) {
		return
	}
	if why := knownScriptDifference(c, ours, theirs); why != "" {
		return
	}
	var code *script.Error
	name := "OK"
	if errors.As(ours, &code) {
		name = code.Code.Name()
	}
	t.Errorf("ours %s, btcd %v\n%v", name, theirs, c)
}

// TestScriptsAgree judges many made cases with both implementations.
func TestScriptsAgree(t *testing.T) {
	m := newScriptMaker(t, 1)
	n := 20_000
	if testing.Short() {
		n = 2_000
	}
	passed := map[string]int{}
	for i := range n {
		c := m.random()
		if i%8 == 0 {
			c = m.signed()
		}
		if c.ours() == nil {
			passed[c.kind]++
		}
		compareScripts(t, c)
	}
	t.Logf("of %d cases passed: %v", n, passed)
}

// FuzzScriptsAgree draws the cases from a seed.
func FuzzScriptsAgree(f *testing.F) {
	f.Add(uint64(1), false)
	f.Add(uint64(2), true)
	f.Fuzz(func(t *testing.T, seed uint64, signed bool) {
		m := newScriptMaker(t, seed)
		if signed {
			compareScripts(t, m.signed())
		} else {
			compareScripts(t, m.random())
		}
	})
}
