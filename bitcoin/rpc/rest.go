package rpc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

// The REST interface (Bitcoin Core doc/REST-interface.md, rest.cpp): what anybody who can connect may read,
// without a password, in octets, hexadecimal or JSON by the end of the path.

// restRequest is one request.
type restRequest struct {
	ctx    context.Context
	path   string // without prefix and format
	format string // "bin", "hex", "json" or empty
	query  string
	body   []byte
}

// param returns a parameter of the query, or a default. The error is for the caller.
func (r *restRequest) param(name, def string) (string, error) {
	v, err := url.ParseQuery(r.query)
	if err != nil {
		return "", restError(http.StatusBadRequest, "URI parsing failed, it likely contained RFC 3986 invalid "+
			"characters")
	}
	if !v.Has(name) {
		return def, nil
	}
	return v.Get(name), nil
}

// restFailure is an answer that is an error.
type restFailure struct {
	status int
	text   string
}

func (e *restFailure) Error() string { return e.text }

func restError(status int, format string, args ...any) error {
	return &restFailure{status, fmt.Sprintf(format, args...)}
}

// restAnswer is what there is to answer, in the forms that there are. What is nil is not a form of it.
type restAnswer struct {
	bin  []byte
	hex  string // where it is not that of bin
	json func() (any, error)
	// onlyJSON says that the error about the form names no other.
	onlyJSON bool
	noJSON   string // the error for who wants JSON
}

// REST answers requests for paths below /rest/. It is a jsonrpc.Handler.
func (a *API) REST(ctx context.Context, req *http.Request, body []byte) (jsonrpc.Response, bool) {
	r := &restRequest{ctx: ctx, body: body}
	uri := req.RequestURI
	for _, p := range a.restPaths() {
		rest, ok := strings.CutPrefix(uri, p.prefix)
		if !ok {
			continue
		}
		r.parse(rest)
		answer, err := p.answer(r)
		if err == nil {
			var resp jsonrpc.Response
			if resp, err = answer.response(r.format); err == nil {
				return resp, true
			}
		}
		return restRefusal(err), true
	}
	return jsonrpc.Response{}, false
}

// restRefusal is the response for an error.
func restRefusal(err error) jsonrpc.Response {
	var e *restFailure
	if !errors.As(err, &e) {
		e = &restFailure{http.StatusInternalServerError, err.Error()}
	}
	return jsonrpc.Response{Status: e.status, Type: "text/plain", Body: []byte(e.text + "\r\n")}
}

// RESTWarmup is the answer while the node starts.
func RESTWarmup(doing string) jsonrpc.Response {
	return restRefusal(restError(http.StatusServiceUnavailable, "Service temporarily unavailable: %s", doing))
}

// IsREST reports whether a request is one for REST.
func IsREST(req *http.Request) bool { return strings.HasPrefix(req.RequestURI, "/rest/") }

func (r *restRequest) parse(rest string) {
	path, query, ok := strings.Cut(rest, "?")
	if i := strings.LastIndexByte(rest, '?'); ok {
		path = rest[:i]
	}
	r.query = query
	r.path = path
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		switch f := path[i+1:]; f {
		case "bin", "hex", "json":
			r.format, r.path = f, path[:i]
		case "":
			r.path = path[:i]
		}
	}
}

func (r *restAnswer) response(format string) (jsonrpc.Response, error) {
	resp := jsonrpc.Response{Status: http.StatusOK}
	switch {
	case format == "bin" && r.bin != nil:
		resp.Type, resp.Body = "application/octet-stream", r.bin
	case format == "hex" && (r.bin != nil || r.hex != ""):
		resp.Type, resp.Body = "text/plain", []byte(r.hex+"\n")
		if r.hex == "" {
			resp.Body = append(hex.AppendEncode(nil, r.bin), '\n')
		}
	case format == "json" && r.json != nil:
		v, err := r.json()
		if err != nil {
			return resp, err
		}
		resp.Type, resp.Body = "application/json", append(jsonrpc.AppendValue(nil, v), '\n')
	case format == "json" && r.noJSON != "":
		return resp, restError(http.StatusBadRequest, "%s", r.noJSON)
	case r.onlyJSON:
		return resp, restError(http.StatusNotFound, "output format not found (available: json)")
	default:
		return resp, restError(http.StatusNotFound, "output format not found (available: .bin, .hex, .json)")
	}
	return resp, nil
}

type restPath struct {
	prefix string
	answer func(*restRequest) (*restAnswer, error)
}

// restPaths are the paths, the longer before those that they begin with.
func (a *API) restPaths() []restPath {
	return []restPath{
		{"/rest/tx/", a.restTx},
		{"/rest/block/notxdetails/", func(r *restRequest) (*restAnswer, error) { return a.restBlock(r, 1) }},
		{"/rest/block/", func(r *restRequest) (*restAnswer, error) { return a.restBlock(r, 3) }},
		{"/rest/blockpart/", a.restBlockPart},
		{"/rest/blockfilter/", a.restFilter},
		{"/rest/blockfilterheaders/", a.restFilterHeaders},
		{"/rest/chaininfo", a.restChainInfo},
		{"/rest/mempool/", a.restMempool},
		{"/rest/headers/", a.restHeaders},
		{"/rest/getutxos", a.restCoins},
		{"/rest/deploymentinfo/", a.restDeployments},
		{"/rest/deploymentinfo", a.restDeployments},
		{"/rest/blockhashbyheight/", a.restHashByHeight},
		{"/rest/spenttxouts/", a.restSpent},
	}
}
