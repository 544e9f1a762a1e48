package rpc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

// maxRESTCoins is how many coins can be asked for at a time (Core's MAX_GETUTXOS_OUTPOINTS).
const maxRESTCoins = 15

func (a *API) restChainInfo(*restRequest) (*restAnswer, error) {
	return &restAnswer{onlyJSON: true, json: func() (any, error) { return a.getBlockchainInfo(nil) }}, nil
}

func (a *API) restDeployments(r *restRequest) (*restAnswer, error) {
	e := a.chain.Tip()
	if r.path != "" && r.format == "json" {
		h, err := restHash(r.path)
		if err != nil {
			return nil, err
		}
		var ok bool
		if e, ok = a.chain.Lookup(h); !ok {
			return nil, restError(http.StatusBadRequest, "Block not found")
		}
	}
	return &restAnswer{onlyJSON: true, json: func() (any, error) { return a.deploymentInfo(e) }}, nil
}

func (a *API) restHashByHeight(r *restRequest) (*restAnswer, error) {
	h, err := strconv.ParseInt(r.path, 10, 32)
	if err != nil || h < 0 || strings.HasPrefix(r.path, "+") {
		return nil, restError(http.StatusBadRequest, "Invalid height: %s", safeText(r.path))
	}
	e, ok := a.chain.AtHeight(bitcoin.Height(h))
	if !ok {
		return nil, restError(http.StatusNotFound, "Block height out of range")
	}
	return &restAnswer{bin: e.Hash[:], hex: e.Hash.String(), json: func() (any, error) {
		return object{{"blockhash", e.Hash}}, nil
	}}, nil
}

// safeText keeps what may stand in a URI (Core's SAFE_CHARS_URI).
func safeText(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("!*'();:@&=+$,/?#[]-_.~%", r) {
			return r
		}
		return -1
	}, s)
}

// flag reads a parameter that is true or false.
func (r *restRequest) flag(name, def string) (bool, error) {
	v, err := r.param(name, def)
	if err == nil && v != "true" && v != "false" {
		err = restError(http.StatusBadRequest,
			"The \"%s\" query parameter must be either \"true\" or \"false\".", name)
	}
	return v == "true", err
}

func (a *API) restMempool(r *restRequest) (*restAnswer, error) {
	if r.path != "contents" && r.path != "info" {
		return nil, restError(http.StatusBadRequest,
			"Invalid URI format. Expected /rest/mempool/<info|contents>.json")
	}
	answer := &restAnswer{onlyJSON: true}
	if r.path == "info" {
		answer.json = func() (any, error) { return a.getMempoolInfo(nil) }
		return answer, nil
	}
	answer.json = func() (any, error) {
		verbose, err := r.flag("verbose", "true")
		if err != nil {
			return nil, err
		}
		sequence, err := r.flag("mempool_sequence", "false")
		if err != nil {
			return nil, err
		}
		if verbose && sequence {
			return nil, restError(http.StatusBadRequest, "Verbose results cannot contain mempool sequence "+
				"values. (hint: set \"verbose=false\")")
		}
		return a.getRawMempool(jsonrpc.Args(verbose, sequence))
	}
	return answer, nil
}

// restOutPoints reads which coins are asked for: in the path, or in the body as octets or hexadecimal.
func restOutPoints(r *restRequest) (outs []bitcoin.OutPoint, withPool bool, err error) {
	refuse := func(text string) ([]bitcoin.OutPoint, bool, error) {
		return nil, false, restError(http.StatusBadRequest, "%s", text)
	}
	if len(r.path) > 1 {
		parts := strings.Split(r.path[1:], "/")
		if parts[0] == "checkmempool" {
			withPool, parts = true, parts[1:]
		}
		for _, p := range parts {
			id, n, _ := strings.Cut(p, "-")
			txid, err1 := bitcoin.ParseHash(id)
			i, err2 := strconv.ParseUint(n, 10, 32)
			if err1 != nil || err2 != nil || len(id) != 64 {
				return refuse("Parse error")
			}
			outs = append(outs, bitcoin.OutPoint{TxID: txid, Index: uint32(i)})
		}
		if len(outs) == 0 {
			return refuse("Error: empty request")
		}
	} else if len(r.body) == 0 {
		return refuse("Error: empty request")
	}
	body := r.body
	switch r.format {
	case "hex":
		body, _ = hex.DecodeString(string(bytes.TrimSpace(body)))
	case "json":
		if len(outs) == 0 {
			return refuse("Error: empty request")
		}
		return outs, withPool, nil
	}
	if len(body) == 0 || r.format == "" {
		return outs, withPool, nil
	}
	if len(outs) > 0 {
		return refuse("Combination of URI scheme inputs and raw post data is not allowed")
	}
	n, size, err := bitcoin.ReadCompactSize(body[1:])
	if err != nil || uint64(len(body[1+size:])) < n || uint64(len(body[1+size:]))/36 < n {
		return refuse("Parse error")
	}
	for b := body[1+size:]; n > 0; n-- {
		outs = append(outs, bitcoin.OutPoint{TxID: bitcoin.Hash(b[:32]),
			Index: binary.LittleEndian.Uint32(b[32:])})
		b = b[36:]
	}
	return outs, body[0] != 0, nil
}

func (a *API) restCoins(r *restRequest) (*restAnswer, error) {
	outs, withPool, err := restOutPoints(r)
	if err != nil {
		return nil, err
	}
	if r.format == "" {
		return &restAnswer{}, nil
	}
	if len(outs) > maxRESTCoins {
		return nil, restError(http.StatusBadRequest, "Error: max outpoints exceeded (max: %d, tried: %d)",
			maxRESTCoins, len(outs))
	}
	tip := a.chain.Tip()
	bits, text := make([]byte, (len(outs)+7)/8), make([]byte, len(outs))
	var coins []consensus.Coin
	for i, out := range outs {
		coin, err := a.chain.Coin(out, withPool)
		if err != nil {
			return nil, err
		}
		if text[i] = '0'; !coin.IsSpent() {
			text[i] = '1'
			bits[i/8] |= 1 << (i % 8)
			coins = append(coins, coin)
		}
	}
	bin := binary.LittleEndian.AppendUint32(nil, uint32(tip.Height))
	bin = bitcoin.AppendCompactSize(append(bin, tip.Hash[:]...), uint64(len(bits)))
	bin = bitcoin.AppendCompactSize(append(bin, bits...), uint64(len(coins)))
	utxos := []any{}
	for i := range coins {
		height := coins[i].Height
		if height > tip.Height {
			height = mempoolHeight
		}
		bin = binary.LittleEndian.AppendUint32(bin, 0)
		bin = binary.LittleEndian.AppendUint32(bin, uint32(height))
		bin = coins[i].Out.Append(bin)
		utxos = append(utxos, object{{"height", height}, {"value", coins[i].Out.Value},
			{"scriptPubKey", a.scriptJSON(coins[i].Out.Script, true)}})
	}
	return &restAnswer{bin: bin, json: func() (any, error) {
		return object{{"chainHeight", tip.Height}, {"chaintipHash", tip.Hash}, {"bitmap", string(text)},
			{"utxos", utxos}}, nil
	}}, nil
}

// mempoolHeight is the height that coins have which no block made yet (Core's MEMPOOL_HEIGHT).
const mempoolHeight bitcoin.Height = 0x7fffffff
