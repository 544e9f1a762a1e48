package rpc

import (
	"context"
	"errors"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// submitMethods are the ways into the mempool (Bitcoin Core rpc/mempool.cpp).
func (a *API) submitMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "rawtransactions", Name: "sendrawtransaction",
			Params: "hexstring:s maxfeerate:m? maxburnamount:m?", Run: a.sendRawTransaction,
			Doc: "Submit a raw transaction (serialized, hex-encoded) to local node and network."},
		{Category: "rawtransactions", Name: "testmempoolaccept", Params: "rawtxs:a maxfeerate:m?",
			Usage: `["rawtx",...] ( maxfeerate )`,
			Run:   a.testMempoolAccept, Doc: "Returns result of mempool acceptance tests indicating if raw " +
				"transaction(s) (serialized, hex-encoded) would be accepted by mempool."},
		{Category: "rawtransactions", Name: "submitpackage",
			Params: "package:a maxfeerate:m? maxburnamount:m?", Usage: `["rawtx",...] ( maxfeerate maxburnamount )`,
			Run: a.submitPackage,
			Doc: "Submit a package of raw transactions (serialized, hex-encoded) to local node."},
	}
}

// maxRate reads a fee rate in BTC/kvB, above which a transaction is not sent.
func maxRate(c call, i int) (mempool.FeeRate, error) {
	v, err := c.Amount(i, defaultMaxRate)
	if err != nil {
		return 0, err
	}
	if v >= bitcoin.Coin {
		return 0, fail(jsonrpc.InvalidParameter, "Fee rates larger than or equal to 1BTC/kvB are not accepted")
	}
	return mempool.FeeRate(v), nil
}

func (a *API) sendRawTransaction(ctx context.Context, c call) (any, error) {
	burn, err := c.Amount(2, 0)
	if err != nil {
		return nil, err
	}
	tx, ok := decodeTx(c.String(0, ""), true, true)
	if !ok {
		return nil, fail(jsonrpc.DeserializationError,
			"TX decode failed. Make sure the tx has at least one input.")
	}
	if burns(tx, burn) {
		return nil, errBurn()
	}
	rate, err := maxRate(c, 1)
	if err != nil {
		return nil, err
	}
	for i := range tx.Out {
		coin, err := a.chain.Coin(bitcoin.OutPoint{TxID: tx.TxID(), Index: uint32(i)}, false)
		if err == nil && !coin.IsSpent() {
			return nil, fail(jsonrpc.VerifyAlreadyInUTXO, "Transaction outputs already in utxo set")
		}
	}
	if have := a.poolTx(tx.TxID()); have != nil {
		a.announce(have)
		return tx.TxID(), nil
	}
	if err := a.submit(ctx, tx, rate); err != nil {
		return nil, err
	}
	a.withPool(func(p *mempool.Pool) { p.MarkUnbroadcast(tx.TxID()) })
	a.announce(tx)
	return tx.TxID(), nil
}

// burns reports whether an output that cannot be spent is worth more than allowed.
func burns(tx *bitcoin.Tx, allowed bitcoin.Amount) bool {
	return slices.ContainsFunc(tx.Out, func(o bitcoin.TxOut) bool {
		return o.Value > allowed && (script.IsUnspendable(o.Script) || !script.HasValidOps(o.Script))
	})
}

func errBurn() error {
	return fail(jsonrpc.VerifyError,
		"Unspendable output exceeds maximum configured by user (maxburnamount)")
}

func (a *API) submit(ctx context.Context, tx *bitcoin.Tx, rate mempool.FeeRate) error {
	if rate > 0 {
		// The limit is for the fee, not for the rate that the pool sees.
		r, err := a.chain.AddTx(ctx, tx, chain.TxOptions{Test: true})
		if err != nil {
			return sendError(err)
		}
		if r.Fee > rate.Fee(tx.VSize()) {
			return fail(jsonrpc.VerifyError, "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)")
		}
	}
	_, err := a.chain.AddTx(ctx, tx, chain.TxOptions{})
	return sendError(err)
}

func (a *API) announce(tx *bitcoin.Tx) {
	if a.p2p != nil {
		a.p2p.RelayTx(tx.TxID(), tx.WTxID())
	}
}

// sendError turns the mempool's refusal into the error of sendrawtransaction (Core's HandleATMPError).
func sendError(err error) error {
	var e *mempool.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &e):
		return fail(jsonrpc.VerifyError, "%v", err)
	case e.Kind == mempool.MissingInputs:
		return fail(jsonrpc.VerifyError, "bad-txns-inputs-missingorspent")
	}
	return fail(jsonrpc.VerifyRejected, "%s", e.Error())
}

// rawTxs reads an array of transactions in hexadecimal.
func rawTxs(list []any) ([]*bitcoin.Tx, error) {
	if len(list) < 1 || len(list) > mempool.MaxPackageCount {
		return nil, fail(jsonrpc.InvalidParameter, "Array must contain between 1 and %d transactions.",
			mempool.MaxPackageCount)
	}
	return decodeTxs(list, func(_ int, s string) error {
		return fail(jsonrpc.DeserializationError, "TX decode failed: %s Make sure the tx has at least one input.", s)
	})
}

// decodeTxs reads an array of transactions in hexadecimal; wrong is the error for one that is none.
func decodeTxs(list []any, wrong func(i int, s string) error) ([]*bitcoin.Tx, error) {
	txs := make([]*bitcoin.Tx, 0, len(list))
	for i, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, fail(jsonrpc.TypeError, "JSON value of type %s is not of expected type string",
				jsonrpc.TypeName(v))
		}
		tx, ok := decodeTx(s, true, true)
		if !ok {
			return nil, wrong(i, s)
		}
		txs = append(txs, tx)
	}
	return txs, nil
}

func (a *API) testMempoolAccept(ctx context.Context, c call) (any, error) {
	rate, err := maxRate(c, 1)
	if err != nil {
		return nil, err
	}
	txs, err := rawTxs(c.Array(0))
	if err != nil {
		return nil, err
	}
	r, err := a.testTxs(ctx, txs)
	if err != nil {
		return nil, err
	}
	out := []any{}
	stop := false
	for i, tx := range txs {
		o := object{{"txid", tx.TxID()}, {"wtxid", tx.WTxID()}}
		if r.Err != nil && r.Err.Err == nil {
			o.Set("package-error", r.Err.Error())
		}
		if !stop {
			var more object
			more, stop = testResult(&r.Txs[i], rate)
			o = append(o, more...)
		}
		out = append(out, o)
	}
	return out, nil
}

// testTxs judges one transaction by itself, several as a package.
func (a *API) testTxs(ctx context.Context, txs []*bitcoin.Tx) (chain.PackageResult, error) {
	if len(txs) > 1 {
		return a.chain.AddPackage(ctx, txs, chain.PackageOptions{Test: true})
	}
	r, err := a.chain.AddTx(ctx, txs[0], chain.TxOptions{Test: true})
	var e *mempool.Error
	switch {
	case errors.As(err, &e):
		return chain.PackageResult{Txs: []chain.PackageTx{{State: chain.Refused, Err: e}}}, nil
	case err != nil:
		return chain.PackageResult{}, err
	}
	return chain.PackageResult{Txs: []chain.PackageTx{{State: chain.Accepted, Fee: r.Fee, VSize: r.VSize,
		Rate: mempool.Rate(r.Modified, r.VSize), Includes: []bitcoin.Hash{txs[0].WTxID()}}}}, nil
}

// testResult describes the judgement of one transaction. After one that pays more than the caller
// allows the rest is not looked at: it would not be sent.
func testResult(t *chain.PackageTx, rate mempool.FeeRate) (o object, stop bool) {
	switch {
	case t.State == chain.Refused && t.Err.Kind == mempool.MissingInputs:
		return object{{"allowed", false}, {"reject-reason", "missing-inputs"}}, false
	case t.State == chain.Refused:
		return object{{"allowed", false}, {"reject-reason", t.Err.Reason},
			{"reject-details", t.Err.Error()}}, false
	case t.State != chain.Accepted:
		return nil, false
	case rate > 0 && t.Fee > rate.Fee(t.VSize):
		return object{{"allowed", false}, {"reject-reason", "max-fee-exceeded"}}, true
	}
	return object{{"allowed", true}, {"vsize", t.VSize}, {"fees", object{{"base", t.Fee},
		{"effective-feerate", bitcoin.Amount(t.Rate)}, {"effective-includes", t.Includes}}}}, false
}

func (a *API) submitPackage(ctx context.Context, c call) (any, error) {
	rate, err := maxRate(c, 1)
	if err != nil {
		return nil, err
	}
	burn, err := c.Amount(2, 0)
	if err != nil {
		return nil, err
	}
	txs, err := rawTxs(c.Array(0))
	if err != nil {
		return nil, err
	}
	for _, tx := range txs {
		if burns(tx, burn) {
			return nil, errBurn()
		}
	}
	if len(txs) > 1 && !mempool.IsChildWithParentsTree(txs) {
		return nil, fail(jsonrpc.VerifyError,
			"package topology disallowed. not child-with-parents or parents depend on each other.")
	}
	r, err := a.chain.AddPackage(ctx, txs, chain.PackageOptions{MaxRate: rate})
	if err != nil {
		return nil, err
	}
	for _, tx := range txs {
		if have := a.poolTx(tx.TxID()); have != nil {
			a.announce(have)
		}
	}
	message := "success"
	if r.Err != nil {
		message = r.Err.Error()
	}
	results := object{}
	for i, tx := range txs {
		results.Set(tx.WTxID().String(), packageResult(tx, &r.Txs[i]))
	}
	replaced := make([]string, 0, len(r.Replaced))
	for _, tx := range r.Replaced {
		replaced = append(replaced, tx.TxID().String())
	}
	slices.Sort(replaced)
	return object{{"package_msg", message}, {"tx-results", results},
		{"replaced-transactions", slices.Compact(replaced)}}, nil
}

func packageResult(tx *bitcoin.Tx, t *chain.PackageTx) object {
	o := object{{"txid", tx.TxID()}}
	switch t.State {
	case chain.Unjudged:
		o.Set("error", "package-not-validated")
	case chain.Refused:
		o.Set("error", t.Err.Error())
	case chain.OtherWitness:
		o.Set("other-wtxid", t.Other)
	case chain.Present:
		o.Set("vsize", t.VSize).Set("fees", object{{"base", t.Fee}})
	case chain.Accepted:
		o.Set("vsize", t.VSize).Set("fees", object{{"base", t.Fee},
			{"effective-feerate", bitcoin.Amount(t.Rate)}, {"effective-includes", t.Includes}})
	}
	return o
}
