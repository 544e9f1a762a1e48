package rpc

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
	"github.com/tallypost/tallypost/bitcoin/signing"
)

func (a *API) signMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "rawtransactions", Name: "signrawtransactionwithkey",
			Params: "hexstring:s privkeys:a prevtxs:a? sighashtype:s?",
			Usage: `"hexstring" ["privatekey",...] ( [{"txid":"hex","vout":n,"scriptPubKey":"hex",` +
				`"redeemScript":"hex","witnessScript":"hex","amount":amount},...] "sighashtype" )`,
			Run: run(a.signRawTransaction),
			Doc: "Sign inputs for raw transaction (serialized, hex-encoded)."},
		{Category: "rawtransactions", Name: "combinerawtransaction", Params: "txs:a",
			Usage: `["hexstring",...]`,
			Run:   run(a.combineRawTransaction), Doc: "Combine multiple partially signed transactions into one " +
				"transaction."},
	}
}

// prevouts are the outputs that a transaction spends, as far as they are known. An amount that nobody
// said is bitcoin.MaxMoney: only signatures in witnesses depend on it.
type prevouts map[bitcoin.OutPoint]bitcoin.TxOut

func (a *API) signRawTransaction(c call) (any, error) {
	tx, ok := decodeTx(c.String(0, ""), true, true)
	if !ok {
		return nil, fail(jsonrpc.DeserializationError,
			"TX decode failed. Make sure the tx has at least one input.")
	}
	keys, err := a.privateKeys(c.Array(1))
	if err != nil {
		return nil, err
	}
	outs, err := a.findOutputs(tx)
	if err != nil {
		return nil, err
	}
	for _, v := range c.Array(2) {
		if err := outs.add(v, keys); err != nil {
			return nil, err
		}
	}
	hashType, err := parseSigHash(c.String(3, "DEFAULT"))
	if err != nil {
		return nil, err
	}
	spent, known := make([]bitcoin.TxOut, len(tx.In)), make([]bool, len(tx.In))
	for i := range tx.In {
		spent[i], known[i] = outs[tx.In[i].PrevOut], false
		_, known[i] = outs[tx.In[i].PrevOut]
	}
	tx = tx.Clone()
	return signResult(tx, spent, keys.Sign(tx, spent, known, hashType))
}

func (a *API) combineRawTransaction(c call) (any, error) {
	txs, err := decodeTxs(c.Array(0), func(i int, _ string) error {
		return fail(jsonrpc.DeserializationError,
			"TX decode failed for tx %d. Make sure the tx has at least one input.", i)
	})
	if err != nil {
		return nil, err
	}
	if len(txs) == 0 {
		return nil, fail(jsonrpc.DeserializationError, "Missing transactions")
	}
	found, err := a.findOutputs(txs[0])
	if err != nil {
		return nil, err
	}
	spent := make([]bitcoin.TxOut, len(txs[0].In))
	for i := range spent {
		out, ok := found[txs[0].In[i].PrevOut]
		if !ok {
			return nil, fail(jsonrpc.VerifyError, "Input not found or already spent")
		}
		spent[i] = out
	}
	return jsonrpc.Hex(signing.Combine(txs, spent).Append(nil)), nil
}

// signResult describes a transaction that was signed as far as it goes.
func signResult(tx *bitcoin.Tx, spent []bitcoin.TxOut, errs []error) (any, error) {
	var wrong []any
	for i, err := range errs {
		in := &tx.In[i]
		if spent[i].Value == bitcoin.MaxMoney && len(in.Witness) > 0 {
			return nil, fail(jsonrpc.TypeError, "Missing amount for CTxOut(nValue=%d.%08d, scriptPubKey=%.30x)",
				spent[i].Value/bitcoin.Coin, spent[i].Value%bitcoin.Coin, spent[i].Script)
		}
		if err == nil {
			continue
		}
		witness := []any{}
		for _, item := range in.Witness {
			witness = append(witness, jsonrpc.Hex(item))
		}
		wrong = append(wrong, object{{"txid", in.PrevOut.TxID}, {"vout", in.PrevOut.Index},
			{"witness", witness}, {"scriptSig", jsonrpc.Hex(in.Script)},
			{"sequence", int64(in.Sequence)}, {"error", signError(err)}})
	}
	o := object{{"hex", jsonrpc.Hex(tx.Append(nil))}, {"complete", len(wrong) == 0}}
	if len(wrong) > 0 {
		o.Set("errors", wrong)
	}
	return o, nil
}

// signError says why an input is not complete (Bitcoin Core script/sign.cpp, SignTransaction).
func signError(err error) string {
	var e *script.Error
	switch {
	case !errors.As(err, &e):
		return err.Error()
	case e.Code == script.ErrInvalidStackOperation:
		return "Unable to sign input, invalid stack size (possibly missing key)"
	case e.Code == script.ErrSigNullFail:
		return "CHECK(MULTI)SIG failing with non-zero signature (possibly need more signatures)"
	}
	return e.Code.String()
}

func (a *API) privateKeys(list []any) (*signing.Keys, error) {
	keys := signing.New()
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, fail(jsonrpc.TypeError, "JSON value of type %s is not of expected type string",
				jsonrpc.TypeName(v))
		}
		b, compressed, ok := a.net.ParseSecret(s)
		if !ok {
			return nil, fail(jsonrpc.InvalidAddressOrKey, "Invalid private key")
		}
		secret, err := secp.ParsePrivateKey(&b)
		if err == nil {
			err = keys.Add(secret, compressed)
		}
		if err != nil {
			return nil, fail(jsonrpc.InvalidAddressOrKey, "Invalid private key")
		}
	}
	return keys, nil
}

// findOutputs looks for what a transaction spends in the chain and in the mempool.
func (a *API) findOutputs(tx *bitcoin.Tx) (prevouts, error) {
	found := make(prevouts)
	a.withPool(func(p *mempool.Pool) {
		for i := range tx.In {
			out := tx.In[i].PrevOut
			if e := p.Get(out.TxID); e != nil && int64(out.Index) < int64(len(e.Tx.Out)) {
				found[out] = e.Tx.Out[out.Index]
			}
		}
	})
	for i := range tx.In {
		out := tx.In[i].PrevOut
		coin, err := a.chain.Coin(out, false)
		if err != nil {
			return nil, err
		}
		if !coin.IsSpent() {
			found[out] = coin.Out
		}
	}
	return found, nil
}

// add takes over what the caller says of an output, and the scripts with which it can be spent (Bitcoin Core
// rpc/rawtransaction_util.cpp, ParsePrevouts).
func (o prevouts) add(v any, keys *signing.Keys) error {
	p, ok := v.(object)
	if !ok {
		return fail(jsonrpc.DeserializationError, `expected object with {"txid'","vout","scriptPubKey"}`)
	}
	if err := haveMembers(p, member{"scriptPubKey", "string"}, member{"txid", "string"},
		member{"vout", "number"}); err != nil {
		return err
	}
	txid, err := jsonrpc.ParseHash(p.Get("txid"), "txid")
	if err != nil {
		return err
	}
	n, ok := jsonInt(p.Get("vout"))
	if !ok || n > math.MaxInt32 {
		return fail(jsonrpc.MiscError, "JSON integer out of range")
	}
	if n < 0 {
		return fail(jsonrpc.DeserializationError, "vout cannot be negative")
	}
	to, err := hexMember(p, "scriptPubKey")
	if err != nil {
		return err
	}
	out := bitcoin.OutPoint{TxID: txid, Index: uint32(n)}
	if known, ok := o[out]; ok && string(known.Script) != string(to) {
		return fail(jsonrpc.DeserializationError, "Previous output scriptPubKey mismatch:\n%s\nvs:\n%s",
			script.Asm(known.Script, false), script.Asm(to, false))
	}
	said := bitcoin.TxOut{Value: bitcoin.MaxMoney, Script: to}
	if p.Has("amount") {
		if said.Value, err = jsonrpc.ParseAmount(p.Get("amount")); err != nil {
			return err
		}
	}
	o[out] = said
	form, hash := script.Solve(to)
	if form == script.ScriptHash || form == script.WitnessV0ScriptHash {
		return addScripts(p, form, hash[0], keys)
	}
	return nil
}

// addScripts takes over the script of an output that names it by a hash.
func addScripts(p object, form script.Type, hash []byte, keys *signing.Keys) error {
	redeem, err := hexMember(p, "redeemScript")
	if err != nil {
		return err
	}
	inner, err := hexMember(p, "witnessScript")
	if err != nil {
		return err
	}
	if redeem == nil && inner == nil {
		return fail(jsonrpc.InvalidParameter, "Missing redeemScript/witnessScript")
	}
	s := inner
	if s == nil {
		s = redeem
	}
	keys.AddScript(s)
	sum := sha256.Sum256(s)
	program := script.PayToWitness(0, sum[:])
	if inner != nil && redeem != nil && string(inner) != string(redeem) && string(redeem) != string(program) {
		return fail(jsonrpc.InvalidParameter, "redeemScript does not correspond to witnessScript")
	}
	plain, nested := script.Hash160(s), script.Hash160(program)
	fits := string(hash) == string(sum[:])
	if form == script.ScriptHash {
		fits = string(hash) == string(plain[:]) || string(hash) == string(nested[:])
	}
	if !fits {
		return fail(jsonrpc.InvalidParameter, "redeemScript/witnessScript does not match scriptPubKey")
	}
	return nil
}

// hexMember returns a member of an object in hexadecimal, nil where it is not there.
func hexMember(o object, name string) ([]byte, error) {
	v := o.Get(name)
	if v == nil {
		return nil, nil
	}
	s, ok := v.(string)
	if !ok {
		return nil, fail(jsonrpc.TypeError, "JSON value of type %s for field %s is not of expected type string",
			jsonrpc.TypeName(v), name)
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, fail(jsonrpc.InvalidParameter, "%s must be hexadecimal string (not '%s')", name, s)
	}
	return b, nil
}

func parseSigHash(s string) (script.SigHash, error) {
	const alone = script.SigHashAnyoneCanPay
	switch s {
	case "DEFAULT":
		return script.SigHashDefault, nil
	case "ALL":
		return script.SigHashAll, nil
	case "ALL|ANYONECANPAY":
		return script.SigHashAll | alone, nil
	case "NONE":
		return script.SigHashNone, nil
	case "NONE|ANYONECANPAY":
		return script.SigHashNone | alone, nil
	case "SINGLE":
		return script.SigHashSingle, nil
	case "SINGLE|ANYONECANPAY":
		return script.SigHashSingle | alone, nil
	}
	return 0, fail(jsonrpc.InvalidParameter, "'%s' is not a valid sighash parameter.", s)
}
