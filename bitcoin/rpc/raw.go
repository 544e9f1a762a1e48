package rpc

import (
	"context"
	"encoding/hex"
	"math"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// defaultMaxRate is the fee rate above which a transaction of ours is taken for a mistake: 0.10 BTC/kvB.
const defaultMaxRate = bitcoin.Coin / 10

func (a *API) rawMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "rawtransactions", Name: "getrawtransaction",
			Params: "txid:s verbosity|verbose:v? blockhash:s?", Run: a.getRawTransaction,
			Doc: "Returns a transaction of the mempool or, with -txindex, of any block; or of a block that " +
				"is named."},
		{Category: "rawtransactions", Name: "decoderawtransaction", Params: "hexstring:s iswitness:b?",
			Run: run(a.decodeRawTransaction), Doc: "Return a JSON object representing the serialized, " +
				"hex-encoded transaction."},
		{Category: "rawtransactions", Name: "decodescript", Params: "hexstring:s",
			Run: run(a.decodeScript), Doc: "Decode a hex-encoded script."},
		{Category: "rawtransactions", Name: "createrawtransaction",
			Params: "inputs:a outputs:v locktime:i? replaceable:b? version:U?",
			Usage: `[{"txid":"hex","vout":n,"sequence":n},...] [{"address":amount,...},{"data":"hex"},...] ` +
				`( locktime replaceable version )`,
			Run: run(a.createRawTransaction),
			Doc: "Create a transaction spending the given inputs and creating new outputs."},
	}
}

func (a *API) getRawTransaction(ctx context.Context, c call) (any, error) {
	txid, err := jsonrpc.ParseHash(c.Any(0), "parameter 1")
	if err != nil {
		return nil, err
	}
	if txid == a.net.Genesis.Header.MerkleRoot {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "The genesis block coinbase is not considered an "+
			"ordinary transaction and cannot be retrieved")
	}
	v, err := verbosity(c.Any(1), 0)
	if err != nil {
		return nil, err
	}
	tx, in, err := a.findTx(ctx, c, txid)
	if err != nil {
		return nil, err
	}
	if v <= 0 {
		return jsonrpc.Hex(tx.Append(nil)), nil
	}
	var o object
	if c.Has(2) {
		o.Set("in_active_chain", in.Active)
	}
	var spent *consensus.Spent
	if in != nil && v >= 2 && in.Status&blockstore.HaveUndo != 0 {
		if _, spent, err = a.txInBlock(ctx, *in, txid, true); err != nil {
			return nil, err
		}
	}
	o = append(o, a.txJSON(tx, true, spent, v >= 2)...)
	if in != nil {
		o = append(o, a.placeJSON(in)...)
	}
	return o, nil
}

// placeJSON says which block has a transaction.
func (a *API) placeJSON(in *chain.Entry) object {
	o := object{{"blockhash", in.Hash}}
	if !in.Active {
		return *o.Set("confirmations", 0)
	}
	o.Set("confirmations", int(a.chain.Tip().Height-in.Height)+1)
	return *o.Set("time", in.Header.Time).Set("blocktime", in.Header.Time)
}

// findTx returns the transaction that getrawtransaction asks for, and its block, if it is in one.
func (a *API) findTx(ctx context.Context, c call, txid bitcoin.Hash) (*bitcoin.Tx, *chain.Entry, error) {
	if c.Has(2) {
		h, err := jsonrpc.ParseHash(c.Any(2), "parameter 3")
		if err != nil {
			return nil, nil, err
		}
		e, ok := a.chain.Lookup(h)
		if !ok {
			return nil, nil, fail(jsonrpc.InvalidAddressOrKey, "Block hash not found")
		}
		tx, _, err := a.txInBlock(ctx, e, txid, false)
		return tx, &e, err
	}
	ready := false
	if x := a.txIndex(); x != nil {
		ready = x.Wait(ctx)
	}
	tx, hash, err := a.txByID(txid)
	if err != nil {
		return nil, nil, fail(jsonrpc.InternalError, "%v", err)
	}
	if tx != nil {
		if e, ok := a.chain.Lookup(hash); ok && hash != (bitcoin.Hash{}) {
			return tx, &e, nil
		}
		return tx, nil, nil
	}
	text := "No such mempool or blockchain transaction"
	if a.txIndex() == nil {
		text = "No such mempool transaction. Use -txindex or provide a block hash to enable blockchain " +
			"transaction queries"
	} else if !ready {
		text = "No such mempool transaction. Blockchain transactions are still in the process of being indexed"
	}
	return nil, nil, fail(jsonrpc.InvalidAddressOrKey, "%s. Use gettransaction for wallet transactions.", text)
}

func (a *API) poolTx(txid bitcoin.Hash) (tx *bitcoin.Tx) {
	a.withPool(func(p *mempool.Pool) {
		if e := p.Get(txid); e != nil {
			tx = e.Tx
		}
	})
	return tx
}

// txInBlock returns a transaction of a block, and what it spends if that is wanted and known.
func (a *API) txInBlock(ctx context.Context, e chain.Entry, txid bitcoin.Hash, withSpent bool) (*bitcoin.Tx,
	*consensus.Spent, error) {
	raw, err := a.blockBytes(ctx, e)
	if err != nil {
		return nil, nil, fail(jsonrpc.MiscError, "Block not available")
	}
	b, err := bitcoin.ParseBlock(raw)
	if err != nil {
		return nil, nil, fail(jsonrpc.MiscError, "Block not available")
	}
	at := 0
	for i := range b.Txs {
		tx := &b.Txs[i]
		if tx.TxID() != txid {
			if i > 0 {
				at += len(tx.In)
			}
			continue
		}
		if !withSpent || i == 0 || e.Status&blockstore.HaveUndo == 0 {
			return tx, nil, nil
		}
		undo, err := a.chain.Undo(e.Hash)
		if err != nil {
			return tx, nil, nil
		}
		part := undo.Part(at, at+len(tx.In))
		return tx, &part, nil
	}
	return nil, nil, fail(jsonrpc.InvalidAddressOrKey, "No such transaction found in the provided block. "+
		"Use gettransaction for wallet transactions.")
}

func (a *API) decodeRawTransaction(c call) (any, error) {
	old, witness := true, true
	if c.Has(1) {
		witness = c.Bool(1, true)
		old = !witness
	}
	tx, ok := decodeTx(c.String(0, ""), old, witness)
	if !ok {
		return nil, fail(jsonrpc.DeserializationError, "TX decode failed")
	}
	return a.txJSON(tx, false, nil, false), nil
}

func (a *API) decodeScript(c call) (any, error) {
	s, err := hex.DecodeString(c.String(0, ""))
	if err != nil {
		return nil, fail(jsonrpc.InvalidParameter, "argument must be hexadecimal string (not '%s')",
			c.String(0, ""))
	}
	o := a.scriptJSON(s, false)
	kind, parts := script.Solve(s)
	wrap := false
	switch kind {
	case script.BareMultisig, script.PubKey, script.PubKeyHash, script.WitnessV0KeyHash,
		script.WitnessV0ScriptHash, script.NonStandard:
		wrap = script.HasValidOps(s) && !script.IsUnspendable(s) && !onlyTapscript(s)
	}
	if !wrap {
		return o, nil
	}
	p2sh, _ := a.net.Address(script.PayToScriptHash(script.Hash160(s)))
	o.Set("p2sh", p2sh)
	var inner []byte
	switch kind {
	case script.PubKey:
		if len(parts[0]) == 33 {
			h := script.Hash160(parts[0])
			inner = script.PayToWitness(0, h[:])
		}
	case script.PubKeyHash:
		inner = script.PayToWitness(0, parts[0])
	case script.BareMultisig, script.NonStandard:
		for _, key := range parts {
			if len(key) == 65 {
				return o, nil // no witness may have a key that is not compressed
			}
		}
		h := sha256Sum(s)
		inner = script.PayToWitness(0, h[:])
	}
	if inner != nil {
		segwit := a.scriptJSON(inner, true, s)
		addr, _ := a.net.Address(script.PayToScriptHash(script.Hash160(inner)))
		segwit.Set("p2sh-segwit", addr)
		o.Set("segwit", segwit)
	}
	return o, nil
}

// onlyTapscript reports whether a script has operations that exist in tapscript alone (BIP 342).
func onlyTapscript(s []byte) bool {
	for len(s) > 0 {
		op, _, rest, ok := script.Next(s)
		if !ok {
			return false
		}
		switch s = rest; {
		case op == 80, op == 98, op >= 126 && op <= 129, op >= 131 && op <= 134, op == 137, op == 138,
			op == 141, op == 142, op >= 149 && op <= 153, op >= 186 && op <= 254:
			return true
		}
	}
	return false
}

func (a *API) createRawTransaction(c call) (any, error) {
	tx := &bitcoin.Tx{Version: 2}
	if v := c.Int(4, 2); c.Has(4) {
		if v < 1 || v > 3 {
			return nil, fail(jsonrpc.InvalidParameter, "Invalid parameter, version out of range(1~3)")
		}
		tx.Version = uint32(v)
	}
	if l := c.Int(2, 0); l < 0 || l > math.MaxUint32 {
		return nil, fail(jsonrpc.InvalidParameter, "Invalid parameter, locktime out of range")
	} else {
		tx.LockTime = uint32(l)
	}
	replaceable := c.Bool(3, true)
	for _, v := range c.Array(0) {
		in, err := inputFrom(v, replaceable, tx.LockTime)
		if err != nil {
			return nil, err
		}
		tx.In = append(tx.In, in)
	}
	outs, err := a.outputsFrom(c.Any(1))
	if err != nil {
		return nil, err
	}
	tx.Out = outs
	if c.Has(3) && replaceable && len(tx.In) > 0 {
		signals := false
		for i := range tx.In {
			signals = signals || tx.In[i].Sequence <= math.MaxUint32-2
		}
		if !signals {
			return nil, fail(jsonrpc.InvalidParameter, "Invalid parameter combination: Sequence number(s) "+
				"contradict replaceable option")
		}
	}
	return jsonrpc.Hex(tx.Append(nil)), nil
}

func inputFrom(v any, replaceable bool, lockTime uint32) (in bitcoin.TxIn, err error) {
	o, ok := v.(object)
	if !ok {
		return in, fail(jsonrpc.TypeError, "JSON value of type %s is not of expected type object",
			jsonrpc.TypeName(v))
	}
	if in.PrevOut.TxID, err = jsonrpc.ParseHash(o.Get("txid"), "txid"); err != nil {
		return in, err
	}
	n, ok := jsonInt(o.Get("vout"))
	if !ok {
		return in, fail(jsonrpc.InvalidParameter, "Invalid parameter, missing vout key")
	}
	if n < 0 {
		return in, fail(jsonrpc.InvalidParameter, "Invalid parameter, vout cannot be negative")
	}
	in.PrevOut.Index = uint32(n)
	switch {
	case replaceable:
		in.Sequence = math.MaxUint32 - 2
	case lockTime > 0:
		in.Sequence = math.MaxUint32 - 1
	default:
		in.Sequence = math.MaxUint32
	}
	if o.Has("sequence") {
		s, ok := jsonInt(o.Get("sequence"))
		if !ok || s < 0 || s > math.MaxUint32 {
			return in, fail(jsonrpc.InvalidParameter, "Invalid parameter, sequence number is out of range")
		}
		in.Sequence = uint32(s)
	}
	return in, nil
}

// outputsFrom reads outputs: an object, or an array of objects, of addresses with amounts, or "data".
func (a *API) outputsFrom(v any) (outs []bitcoin.TxOut, err error) {
	var members object
	switch v := v.(type) {
	case object:
		members = v
	case []any:
		for _, e := range v {
			o, ok := e.(object)
			if !ok {
				return nil, fail(jsonrpc.InvalidParameter,
					"Invalid parameter, key-value pair not an object as expected")
			}
			if len(o) != 1 {
				return nil, fail(jsonrpc.InvalidParameter,
					"Invalid parameter, key-value pair must contain exactly one key")
			}
			members = append(members, o...)
		}
	case nil:
		return nil, fail(jsonrpc.InvalidParameter, "Invalid parameter, output argument must be non-null")
	default:
		return nil, fail(jsonrpc.TypeError, "JSON value of type %s is not of expected type array",
			jsonrpc.TypeName(v))
	}
	seen := map[string]bool{}
	for _, m := range members {
		if m.Name == "data" {
			if seen["data"] {
				return nil, fail(jsonrpc.InvalidParameter, "Invalid parameter, duplicate key: data")
			}
			seen["data"] = true
			s, _ := m.Value.(string)
			b, err := hex.DecodeString(s)
			if err != nil || len(b) == 0 && s != "" {
				return nil, fail(jsonrpc.InvalidParameter, "Data must be hexadecimal string (not '%s')", s)
			}
			outs = append(outs, bitcoin.TxOut{
				Script: script.AppendPush([]byte{byte(script.OpReturn)}, b)})
			continue
		}
		to, err := a.net.ParseAddress(m.Name)
		if err != nil {
			return nil, fail(jsonrpc.InvalidAddressOrKey, "Invalid Bitcoin address: %s", m.Name)
		}
		if seen[string(to)] {
			return nil, fail(jsonrpc.InvalidParameter, "Invalid parameter, duplicated address: %s", m.Name)
		}
		seen[string(to)] = true
		amount, err := jsonrpc.ParseAmount(m.Value)
		if err != nil {
			return nil, err
		}
		outs = append(outs, bitcoin.TxOut{Value: amount, Script: to})
	}
	return outs, nil
}
