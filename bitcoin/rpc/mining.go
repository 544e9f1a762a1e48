package rpc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/miner"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

const defaultMaxTries = 1_000_000

func (a *API) miningMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "hidden", Name: "generatetoaddress", Params: "nblocks:I address:s maxtries:I?",
			Run: a.generateToAddress, Doc: "Mine to a specified address and return the block hashes."},
		{Category: "hidden", Name: "generatetodescriptor", Params: "num_blocks:I descriptor:s maxtries:u?",
			Run: a.generateToDescriptor,
			Doc: "Mine to a specified descriptor and return the block hashes."},
		{Category: "hidden", Name: "generateblock", Params: "output:s transactions:a submit:b?",
			Usage: `"output" ["rawtx/txid",...] ( submit )`,
			Run:   a.generateBlock, Doc: "Mine a set of ordered transactions to a specified address or " +
				"descriptor and return the block hash."},
		{Category: "hidden", Name: "generate", Run: run(func(c call) (any, error) {
			return nil, fail(jsonrpc.MethodNotFound, "%s", c.Help())
		}), Doc: "has been replaced by the -generate cli option. Refer to -help for more information."},
		{Category: "mining", Name: "submitblock", Params: "hexdata:s dummy:v?", Usage: `"hexdata" ( "dummy" )`,
			Run: a.submitBlock,
			Doc: "Attempts to submit new block to network."},
		{Category: "mining", Name: "submitheader", Params: "hexdata:s", Run: run(a.submitHeader),
			Doc: "Decode the given hexdata as a header and submit it as a candidate chain tip if valid."},
		{Category: "mining", Name: "getblocktemplate", Params: "template_request:o",
			Usage: `{"mode":"str","capabilities":["str",...],"rules":["segwit","str",...],"longpollid":"str","data":"hex"}`,
			Run:   a.getBlockTemplate, Doc: "Returns data needed to construct a block to work on (BIP 22)."},
		{Category: "mining", Name: "getmininginfo", Run: run(a.getMiningInfo),
			Doc: "Returns a json object containing mining-related information."},
		{Category: "mining", Name: "getnetworkhashps", Params: "nblocks:I? height:I?",
			Run: run(a.getNetworkHashPS),
			Doc: "Returns the estimated network hashes per second based on the last n blocks."},
		{Category: "mining", Name: "prioritisetransaction", Params: "txid:h dummy:n? fee_delta:i",
			Run: run(a.prioritise), Doc: "Accepts the transaction into mined blocks at a higher (or " +
				"lower) priority."},
		{Category: "mining", Name: "getprioritisedtransactions", Run: run(a.getPrioritised),
			Doc: "Returns a map of all user-created (see prioritisetransaction) fee deltas by txid."},
	}
}

func (a *API) generateToAddress(ctx context.Context, c call) (any, error) {
	to, err := a.net.ParseAddress(c.String(1, ""))
	if err != nil {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Error: Invalid address")
	}
	return a.mine(ctx, c.Int(0, 0), to, c.Int(2, defaultMaxTries))
}

func (a *API) generateToDescriptor(ctx context.Context, c call) (any, error) {
	to, err := descriptorScript(a.net, c.String(1, ""), false)
	if e := new(jsonrpc.Error); err != nil && !errors.As(err, &e) {
		err = fail(jsonrpc.InvalidAddressOrKey, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return a.mine(ctx, c.Int(0, 0), to, c.Int(2, defaultMaxTries))
}

// mine makes blocks one after another.
func (a *API) mine(ctx context.Context, count int64, to []byte, tries int64) (any, error) {
	hashes := []any{}
	left := uint64(max(tries, 0))
	for int64(len(hashes)) < count && ctx.Err() == nil {
		opts := a.cfg.Mining
		opts.Coinbase = to
		t, err := a.template(opts)
		if err != nil {
			return nil, err
		}
		if !miner.Solve(ctx, a.net, &t.Block.Header, &left) {
			if left == 0 || ctx.Err() != nil {
				break
			}
			continue // all nonces tried: another time, another template
		}
		if err := a.submitOwn(ctx, t.Block); err != nil {
			return nil, fail(jsonrpc.InternalError, "ProcessNewBlock, block not accepted: %v", err)
		}
		hashes = append(hashes, t.Block.Hash())
	}
	return hashes, nil
}

// submitOwn takes a block of our own into the chain.
func (a *API) submitOwn(ctx context.Context, b *bitcoin.Block) error {
	parsed, err := bitcoin.ParseBlock(b.Append(nil))
	if err != nil {
		return err
	}
	_, err = a.chain.Add(ctx, parsed, chain.Source{Requested: true, WorkChecked: true})
	return err
}

// assembled tells of the block that was last made to be mined.
type assembled struct {
	weight int64 // with what is reserved for header and coinbase
	txs    int   // without the coinbase
}

// template makes a block to be mined.
func (a *API) template(opts miner.Options) (*miner.Template, error) {
	t, err := miner.NewTemplate(a.chain, opts, a.now())
	if err == nil {
		a.assembled.Store(&assembled{t.Weight, len(t.Fees)})
	}
	return t, err
}

func (a *API) generateBlock(ctx context.Context, c call) (any, error) {
	to, err := descriptorScript(a.net, c.String(0, ""), false)
	if e := new(jsonrpc.Error); errors.As(err, &e) {
		return nil, err
	}
	if err != nil {
		if to, err = a.net.ParseAddress(c.String(0, "")); err != nil {
			return nil, fail(jsonrpc.InvalidAddressOrKey, "Error: Invalid address or descriptor")
		}
	}
	var txs []bitcoin.Tx
	for _, v := range c.Array(1) {
		s, ok := v.(string)
		if !ok {
			return nil, fail(jsonrpc.TypeError, "JSON value of type %s is not of expected type string",
				jsonrpc.TypeName(v))
		}
		if h, err := bitcoin.ParseHash(s); err == nil {
			tx := a.poolTx(h)
			if tx == nil {
				return nil, fail(jsonrpc.InvalidAddressOrKey, "Transaction %s not in mempool.", s)
			}
			txs = append(txs, *tx)
			continue
		}
		tx, ok := decodeTx(s, true, true)
		if !ok {
			return nil, fail(jsonrpc.DeserializationError,
				"Transaction decode failed for %s. Make sure the tx has at least one input.", s)
		}
		txs = append(txs, *tx)
	}
	t, err := a.templateOf(ctx, to, txs)
	if err != nil {
		return nil, err
	}
	tries := uint64(defaultMaxTries)
	if !miner.Solve(ctx, a.net, &t.Block.Header, &tries) {
		return nil, fail(jsonrpc.MiscError, "Failed to make block.")
	}
	o := object{{"hash", t.Block.Hash()}}
	if !c.Bool(2, true) {
		return *o.Set("hex", jsonrpc.Hex(t.Block.Append(nil))), nil
	}
	if err := a.submitOwn(ctx, t.Block); err != nil {
		return nil, fail(jsonrpc.InternalError, "ProcessNewBlock, block not accepted: %v", err)
	}
	return o, nil
}

// templateOf makes a block of certain transactions that is valid but for its proof of work. While it is judged
// the tip may move on, so it is made again.
func (a *API) templateOf(ctx context.Context, to []byte, txs []bitcoin.Tx) (*miner.Template, error) {
	opts := a.cfg.Mining
	opts.Coinbase, opts.NoTxs = to, true
	for {
		t, err := miner.NewTemplate(a.chain, opts, a.now())
		if err != nil {
			return nil, err
		}
		t.Block.Txs = append(t.Block.Txs, txs...)
		t.Commit(a.net)
		skip := consensus.SkipProofOfWork | consensus.SkipMerkleRoot
		switch err := miner.Check(ctx, a.chain, t.Block, skip, a.now()); {
		case err == nil:
			return t, nil
		case !errors.Is(err, miner.ErrTipChanged) || ctx.Err() != nil:
			return nil, fail(jsonrpc.VerifyError, "TestBlockValidity failed: %v", err)
		}
	}
}

func decodeBlock(s string) (*bitcoin.Block, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, fail(jsonrpc.DeserializationError, "Block decode failed")
	}
	block, _, err := bitcoin.ParseBlockPrefix(b) // what follows is ignored, as Core does here (DecodeHexBlk)
	if err != nil {
		return nil, fail(jsonrpc.DeserializationError, "Block decode failed")
	}
	return block, nil
}

func (a *API) submitBlock(ctx context.Context, c call) (any, error) {
	b, err := decodeBlock(c.String(0, ""))
	if err != nil {
		return nil, err
	}
	before, known := a.chain.Lookup(b.Hash())
	if known && before.Status&blockstore.Invalid != 0 {
		return "duplicate-invalid", nil
	}
	if prev, ok := a.chain.Lookup(b.Header.PrevBlock); ok && prev.Height+1 >= a.net.SegwitHeight {
		b = withReservedValue(b)
	}
	outcome, err := a.chain.Add(ctx, b, chain.Source{Requested: true, WorkChecked: true})
	if err != nil {
		return rejectReason(err)
	}
	switch {
	case outcome == chain.Ignored:
		return "duplicate", nil
	case outcome == chain.Stored, known && before.Status&blockstore.Verified != 0:
		return "inconclusive", nil // nothing was judged now: it had been pruned, maybe
	}
	return nil, nil
}

// withReservedValue gives a coinbase that has a commitment but no witness the reserved value that all use
// (Core's UpdateUncommittedBlockStructures).
func withReservedValue(b *bitcoin.Block) *bitcoin.Block {
	if len(b.Txs) == 0 {
		return b // not a block at all: the rules will say so
	}
	cb := &b.Txs[0]
	if consensus.WitnessCommitment(cb) < 0 || cb.HasWitness() {
		return b
	}
	c := b.Clone()
	c.Txs[0].In[0].Witness = [][]byte{make([]byte, 32)}
	if parsed, err := bitcoin.ParseBlock(c.Append(nil)); err == nil {
		return parsed
	}
	return b
}

// rejectReason is the answer of submitblock to a block that is not valid (BIP 22).
func rejectReason(err error) (any, error) {
	var e *consensus.Error
	if !errors.As(err, &e) {
		return nil, fail(jsonrpc.VerifyError, "%v", err)
	}
	if e.Reason == "" {
		return "rejected", nil
	}
	return e.Reason, nil
}

func (a *API) submitHeader(c call) (any, error) {
	b, err := hex.DecodeString(c.String(0, ""))
	if err != nil {
		return nil, fail(jsonrpc.DeserializationError, "Block header decode failed")
	}
	// What follows the header is passed over, as Core does: some send a whole block.
	h, err := bitcoin.ParseHeader(b[:min(len(b), bitcoin.HeaderSize)])
	if err != nil {
		return nil, fail(jsonrpc.DeserializationError, "Block header decode failed")
	}
	if _, ok := a.chain.Lookup(h.PrevBlock); !ok {
		return nil, fail(jsonrpc.VerifyError, "Must submit previous header (%s) first", h.PrevBlock)
	}
	if _, err := a.chain.AddHeaders([]bitcoin.Header{h}, true); err != nil {
		var e *consensus.Error
		if errors.As(err, &e) {
			return nil, fail(jsonrpc.VerifyError, "%s", e.Reason)
		}
		return nil, fail(jsonrpc.VerifyError, "%v", err)
	}
	return nil, nil
}

func (a *API) getMiningInfo(call) (any, error) {
	tip := a.chain.Tip()
	o := object{{"blocks", tip.Height}}
	if last := a.assembled.Load(); last != nil {
		o.Set("currentblockweight", last.weight).Set("currentblocktx", last.txs)
	}
	o = append(o, object{{"bits", bitsHex(tip.Header.Bits)},
		{"difficulty", bitcoin.Difficulty(tip.Header.Bits)}, {"target", target(tip.Header.Bits)}}...)
	o.Set("networkhashps", a.hashRate(tip, 120))
	pooled := 0
	a.withPool(func(p *mempool.Pool) { pooled = p.Len() })
	o.Set("pooledtx", pooled)
	o.Set("blockmintxfee", bitcoin.Amount(max(a.cfg.Mining.MinRate, 0)))
	o.Set("chain", a.net.Name)
	s, _ := a.chain.State(tip.Hash)
	var h bitcoin.Header
	miner.UpdateTime(&h, &s, a.now())
	o.Set("next", object{{"height", tip.Height + 1}, {"bits", bitsHex(h.Bits)},
		{"difficulty", bitcoin.Difficulty(h.Bits)}, {"target", target(h.Bits)}})
	if a.net.SignetChallenge != nil {
		o.Set("signet_challenge", jsonrpc.Hex(a.net.SignetChallenge))
	}
	o.Set("warnings", a.warnings())
	return o, nil
}

func (a *API) getNetworkHashPS(c call) (any, error) {
	count, height := c.Int(0, 120), c.Int(1, -1)
	if count < -1 || count == 0 {
		return nil, fail(jsonrpc.InvalidParameter,
			"Invalid nblocks. Must be a positive number or -1.")
	}
	tip := a.chain.Tip()
	if height < -1 || height > int64(tip.Height) {
		return nil, fail(jsonrpc.InvalidParameter, "Block does not exist at specified height")
	}
	if height >= 0 {
		tip, _ = a.chain.AtHeight(bitcoin.Height(height))
	}
	return a.hashRate(tip, count), nil
}

// hashRate estimates the hashes a second from the work of the last blocks; -1 takes those since the last
// change of difficulty.
func (a *API) hashRate(e chain.Entry, count int64) float64 {
	if e.Height == 0 {
		return 0
	}
	if count <= 0 {
		count = int64(e.Height%a.net.RetargetInterval()) + 1
	}
	count = min(count, int64(e.Height))
	path := a.chain.Path(e.Hash, e.Height-bitcoin.Height(count), int(count)+1)
	first, last := uint32(math.MaxUint32), uint32(0)
	for i := range path {
		first, last = min(first, path[i].Header.Time), max(last, path[i].Header.Time)
	}
	if first == last || len(path) == 0 {
		return 0
	}
	return e.Work.Sub(path[0].Work).Float64() / float64(last-first)
}

func (a *API) prioritise(c call) (any, error) {
	if v := c.Any(1); v != nil && fmt.Sprint(v) != "0" && fmt.Sprint(v) != "0.0" {
		return nil, fail(jsonrpc.InvalidParameter, "Priority is no longer supported, dummy argument to "+
			"prioritisetransaction must be 0.")
	}
	dusty := false
	a.withPool(func(p *mempool.Pool) {
		if dusty = p.Dusty(c.Hash(0)); !dusty {
			p.Prioritise(c.Hash(0), bitcoin.Amount(c.Int(2, 0)))
		}
	})
	if dusty {
		return nil, fail(jsonrpc.InvalidParameter,
			"Priority is not supported for transactions with dust outputs.")
	}
	return true, nil
}

func (a *API) getPrioritised(call) (any, error) {
	out := object{}
	a.withPool(func(p *mempool.Pool) {
		for txid, delta := range p.Deltas() {
			o := object{{"fee_delta", int64(delta)}, {"in_mempool", false}}
			if e := p.Get(txid); e != nil {
				o = object{{"fee_delta", int64(delta)}, {"in_mempool", true},
					{"modified_fee", int64(e.ModifiedFee())}}
			}
			out.Set(txid.String(), o)
		}
	})
	slices.SortFunc(out, func(x, y jsonrpc.Member) int { return slices.Compare([]byte(x.Name), []byte(y.Name)) })
	return out, nil
}
