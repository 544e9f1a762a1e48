package rpc

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/index"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

// maxRESTHeaders is how many headers are returned at a time (Core's MAX_REST_HEADERS_RESULTS).
const maxRESTHeaders = 2000

// restHash reads a hash of 64 hexadecimal digits.
func restHash(s string) (bitcoin.Hash, error) {
	h, err := bitcoin.ParseHash(s)
	if err != nil || len(s) != 64 {
		return h, restError(http.StatusBadRequest, "Invalid hash: %s", s)
	}
	return h, nil
}

func (a *API) restTx(r *restRequest) (*restAnswer, error) {
	txid, err := restHash(r.path)
	if err != nil {
		return nil, err
	}
	if x := a.txIndex(); x != nil {
		x.Wait(r.ctx)
	}
	tx, block, err := a.txByID(txid)
	if err != nil || tx == nil {
		return nil, restError(http.StatusNotFound, "%s not found", r.path)
	}
	return &restAnswer{bin: tx.Append(nil), json: func() (any, error) {
		o := a.txJSON(tx, true, nil, false)
		if block != (bitcoin.Hash{}) {
			o.Set("blockhash", block)
		}
		return o, nil
	}}, nil
}

// restEntry finds a block, and says so where it is not here.
func (a *API) restEntry(ctx context.Context, s string) (chain.Entry, []byte, error) {
	h, err := restHash(s)
	if err != nil {
		return chain.Entry{}, nil, err
	}
	e, ok := a.chain.Lookup(h)
	if !ok {
		return e, nil, restError(http.StatusNotFound, "%s not found", s)
	}
	raw, err := a.blockBytes(ctx, e)
	switch {
	case errors.Is(err, p2p.ErrNoBlock):
		return e, nil, restError(http.StatusNotFound, "%s not available (%v)", s, err)
	case errors.Is(err, chain.ErrPruned):
		return e, nil, restError(http.StatusNotFound, "%s not available (pruned data)", s)
	case errors.Is(err, chain.ErrNoData):
		return e, nil, restError(http.StatusNotFound, "%s not available (not fully downloaded)", s)
	case err != nil:
		return e, nil, restError(http.StatusInternalServerError, "I/O error reading %s", s)
	}
	return e, raw, nil
}

func (a *API) restBlock(r *restRequest, verbosity int64) (*restAnswer, error) {
	e, raw, err := a.restEntry(r.ctx, r.path)
	if err != nil {
		return nil, err
	}
	return &restAnswer{bin: raw, json: func() (any, error) {
		b, err := bitcoin.ParseBlock(raw)
		if err != nil {
			return nil, restError(http.StatusInternalServerError, "I/O error reading %s", r.path)
		}
		return a.blockJSON(e, b, verbosity)
	}}, nil
}

func (a *API) restBlockPart(r *restRequest) (*restAnswer, error) {
	var part [2]uint64
	for i, name := range []string{"offset", "size"} {
		text, err := r.param(name, "")
		if err != nil {
			return nil, err
		}
		if part[i], err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, restError(http.StatusBadRequest, "Block part %s missing or invalid", name)
		}
	}
	_, raw, err := a.restEntry(r.ctx, r.path)
	if err != nil {
		return nil, err
	}
	offset, size := part[0], part[1]
	if size == 0 || offset >= uint64(len(raw)) || size > uint64(len(raw))-offset {
		return nil, restError(http.StatusBadRequest, "Bad block part offset/size %d/%d for %s", offset, size,
			r.path)
	}
	return &restAnswer{bin: raw[offset : offset+size],
		noJSON: "JSON output is not supported for this request type"}, nil
}

// restCount reads how many headers are wanted, and the rest of the path: the count in it, as it once was, or
// in the query.
func restCount(r *restRequest, parts []string, usage string) (count int, hash string, err error) {
	var text string
	switch len(parts) {
	case 2:
		text, hash = parts[0], parts[1]
	case 1:
		hash = parts[0]
		if text, err = r.param("count", "5"); err != nil {
			return 0, "", err
		}
	default:
		return 0, "", restError(http.StatusBadRequest, "Invalid URI format. Expected %s", usage)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n < 1 || n > maxRESTHeaders {
		return 0, "", restError(http.StatusBadRequest,
			"Header count is invalid or out of acceptable range (1-%d): %s", maxRESTHeaders, text)
	}
	return int(n), hash, nil
}

// restPart returns up to count blocks of the best chain from one on; none where it is not part of it.
func (a *API) restPart(hash bitcoin.Hash, count int) []chain.Entry {
	e, ok := a.chain.Lookup(hash)
	if !ok || !e.Active {
		return nil
	}
	path := a.chain.Path(a.chain.Tip().Hash, e.Height, count)
	if len(path) == 0 || path[0].Hash != hash { // it left the chain meanwhile
		return nil
	}
	return path
}

func (a *API) restHeaders(r *restRequest) (*restAnswer, error) {
	count, text, err := restCount(r, strings.Split(r.path, "/"), "/rest/headers/<hash>.<ext>?count=<count>")
	if err != nil {
		return nil, err
	}
	h, err := restHash(text)
	if err != nil {
		return nil, err
	}
	list := a.restPart(h, count)
	bin := []byte{}
	for i := range list {
		bin = list[i].Header.Append(bin)
	}
	return &restAnswer{bin: bin, json: func() (any, error) {
		out := []any{}
		for i := range list {
			out = append(out, a.headerJSON(list[i]))
		}
		return out, nil
	}}, nil
}

// restFilterIndex returns the index of a type of filters.
func (a *API) restFilterIndex(kind string) (*index.FilterIndex, error) {
	if kind != "basic" {
		return nil, restError(http.StatusBadRequest, "Unknown filtertype %s", kind)
	}
	if x := a.filterIndex(); x != nil {
		return x, nil
	}
	return nil, restError(http.StatusBadRequest, "Index is not enabled for filtertype %s", kind)
}

func (a *API) restFilterHeaders(r *restRequest) (*restAnswer, error) {
	kind, rest, _ := strings.Cut(r.path, "/")
	parts := strings.Split(rest, "/")
	if !strings.Contains(r.path, "/") {
		parts = nil
	}
	count, text, err := restCount(r, parts,
		"/rest/blockfilterheaders/<filtertype>/<blockhash>.<ext>?count=<count>")
	if err != nil {
		return nil, err
	}
	h, err := restHash(text)
	if err != nil {
		return nil, err
	}
	x, err := a.restFilterIndex(kind)
	if err != nil {
		return nil, err
	}
	list := a.restPart(h, count)
	ready := x.Wait(r.ctx)
	bin, headers := []byte{}, []bitcoin.Hash{}
	for i := range list {
		header, ok := x.FilterHeader(list[i].Hash)
		if !ok {
			_, text := missingFilter(list[i], ready)
			return nil, restError(http.StatusNotFound, "%s", text)
		}
		bin, headers = append(bin, header[:]...), append(headers, header)
	}
	return &restAnswer{bin: bin, json: func() (any, error) { return headers, nil }}, nil
}

func (a *API) restFilter(r *restRequest) (*restAnswer, error) {
	parts := strings.Split(r.path, "/")
	if len(parts) != 2 {
		return nil, restError(http.StatusBadRequest,
			"Invalid URI format. Expected /rest/blockfilter/<filtertype>/<blockhash>")
	}
	h, err := restHash(parts[1])
	if err != nil {
		return nil, err
	}
	filter, err := a.restFilterOf(r.ctx, parts[0], h)
	if err != nil {
		return nil, err
	}
	bin := append([]byte{0}, h[:]...) // type 0 is that of basic filters
	bin = append(bitcoin.AppendCompactSize(bin, uint64(len(filter))), filter...)
	return &restAnswer{bin: bin, json: func() (any, error) {
		return object{{"filter", jsonrpc.Hex(filter)}}, nil
	}}, nil
}

// restFilterOf returns the filter of a block.
func (a *API) restFilterOf(ctx context.Context, kind string, h bitcoin.Hash) ([]byte, error) {
	e, ok := a.chain.Lookup(h)
	if ok && kind == "basic" && a.filtersOfPeers() {
		f, err := a.p2p.FetchFilter(ctx, e)
		if err != nil {
			return nil, restError(http.StatusNotFound, "Filter not found. %v", err)
		}
		return f.Filter, nil
	}
	x, err := a.restFilterIndex(kind)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, restError(http.StatusNotFound, "%v not found", h)
	}
	ready := x.Wait(ctx)
	filter, err := x.Read(h)
	if err != nil {
		_, text := missingFilter(e, ready)
		return nil, restError(http.StatusNotFound, "%s", text)
	}
	return filter, nil
}

func (a *API) restSpent(r *restRequest) (*restAnswer, error) {
	if strings.Contains(r.path, "/") {
		return nil, restError(http.StatusBadRequest, "Invalid URI format. Expected /rest/spenttxouts/<hash>.<ext>")
	}
	e, raw, err := a.restEntry(r.ctx, r.path)
	if err != nil {
		return nil, err
	}
	undo, err := a.chain.Undo(e.Hash)
	if err != nil {
		return nil, restError(http.StatusNotFound, "%s undo not available", r.path)
	}
	b, err := bitcoin.ParseBlock(raw)
	if err != nil {
		return nil, restError(http.StatusInternalServerError, "I/O error reading %s", r.path)
	}
	bin := bitcoin.AppendCompactSize(nil, uint64(len(b.Txs)))
	list := []any{}
	at := 0
	for i := range b.Txs {
		var part consensus.Spent
		if i > 0 { // the coinbase spends nothing
			part = undo.Part(at, at+len(b.Txs[i].In))
			at += len(b.Txs[i].In)
		}
		bin = bitcoin.AppendCompactSize(bin, uint64(part.Len()))
		outs := []any{}
		for j := range part.Outs {
			bin = part.Outs[j].Append(bin)
			outs = append(outs, object{{"value", part.Outs[j].Value},
				{"scriptPubKey", a.scriptJSON(part.Outs[j].Script, true)}})
		}
		list = append(list, outs)
	}
	return &restAnswer{bin: bin, json: func() (any, error) { return list, nil }}, nil
}
