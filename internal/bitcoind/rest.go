package bitcoind

import (
	"context"
	"net/http"

	"github.com/tallypost/tallypost/bitcoin/rpc"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

// rest answers what is asked for by REST, once the node has started.
func (n *Node) rest(ctx context.Context, req *http.Request, body []byte) (jsonrpc.Response, bool) {
	if !rpc.IsREST(req) {
		return jsonrpc.Response{}, false
	}
	if doing := n.server.Warmup(); doing != "" {
		return rpc.RESTWarmup(doing), true
	}
	return n.api.REST(ctx, req, body)
}
