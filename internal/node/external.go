package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/web"
)

const (
	// askInterval is how often a bitcoind of the user's is asked how it is.
	askInterval = 10 * time.Second
	// askTimeout bounds one call: a node that is busy with a block answers late.
	askTimeout = 30 * time.Second
)

// external is a bitcoind that somebody else runs, spoken to by its RPC. What a bridge wants of it are headers
// and blocks (getblockheader, getblock) and that it takes transactions (sendrawtransaction); here it is asked
// for its state, and what can be verified of that is: the network by the hash of its first block, the tip by
// its proof of work.
type external struct {
	cfg    Bitcoin
	net    *bitcoin.Network
	log    *slog.Logger
	client *http.Client
	status atomic.Pointer[web.BitcoinStatus]
}

func newExternal(b Bitcoin, log *slog.Logger) (*external, error) {
	n, err := bitcoin.NetworkByName(b.Network)
	if err != nil {
		return nil, err
	}
	if b.Cookie == "" && b.User == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("bitcoin.cookie: %w: set it, or user and password", err)
		}
		b.Cookie = filepath.Join(home, ".bitcoin", n.DataDir, ".cookie")
	}
	x := &external{cfg: b, net: n, log: log, client: &http.Client{Timeout: askTimeout}}
	x.status.Store(&web.BitcoinStatus{Mode: b.Mode, Network: b.Network, State: web.BitcoinStarting})
	return x, nil
}

func (x *external) Status() web.BitcoinStatus { return *x.status.Load() }

func (x *external) Close() { x.client.CloseIdleConnections() }

// Run asks the node how it is until ctx ends.
func (x *external) Run(ctx context.Context) error {
	defer x.Close()
	for {
		s, err := x.ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		was := x.Status()
		if err != nil {
			s = web.BitcoinStatus{State: web.BitcoinFailed, Error: err.Error()}
		}
		s.Mode, s.Network = x.cfg.Mode, x.cfg.Network
		if s.Error != was.Error && s.Error != "" {
			x.log.Warn("the bitcoind does not serve", "url", x.cfg.URL, "err", s.Error)
		}
		x.status.Store(&s)
		if clock.Sleep(ctx, clock.Real{}, askInterval) != nil {
			return nil
		}
	}
}

// dial returns a client with the credentials of now: a cookie is another one after each start of the node.
func (x *external) dial() (*jsonrpc.Client, error) {
	c := &jsonrpc.Client{URL: x.cfg.URL, User: x.cfg.User, Password: x.cfg.Password, HTTP: x.client}
	if c.User != "" {
		return c, nil
	}
	b, err := os.ReadFile(x.cfg.Cookie)
	if err != nil {
		return nil, fmt.Errorf("%w: does bitcoind run, and may this user read its cookie? bitcoin.cookie "+
			"names the file, or set bitcoin.user and password", err)
	}
	c.User, c.Password = jsonrpc.ParseCookie(b)
	return c, nil
}

// chainInfo is what is looked at of getblockchaininfo and getnetworkinfo.
type chainInfo struct {
	Blocks   int     `json:"blocks"`
	Headers  int     `json:"headers"`
	Best     string  `json:"bestblockhash"`
	Progress float64 `json:"verificationprogress"`
	Initial  bool    `json:"initialblockdownload"`

	Agent string `json:"subversion"`
	Peers int    `json:"connections"`
}

// ask returns how the node is.
func (x *external) ask(ctx context.Context) (s web.BitcoinStatus, err error) {
	c, err := x.dial()
	if err != nil {
		return s, err
	}
	call := func(into any, method string, params ...any) {
		if err == nil {
			err = callInto(ctx, c, into, method, params)
		}
	}
	var genesis, tip string
	var info chainInfo
	call(&genesis, "getblockhash", 0)
	if err == nil && genesis != x.net.Genesis.Hash().String() {
		return s, fmt.Errorf("it is of another network than bitcoin.network = %q says: its first block is %.64s",
			x.cfg.Network, genesis)
	}
	call(&info, "getblockchaininfo")
	call(&info, "getnetworkinfo")
	call(&tip, "getblockheader", info.Best, false)
	var warming *jsonrpc.Error
	if errors.As(err, &warming) && warming.Code == jsonrpc.InWarmup {
		return web.BitcoinStatus{State: web.BitcoinStarting, Doing: warming.Message}, nil
	}
	if err != nil {
		return s, err
	}
	header, err := x.verifyTip(tip, info.Best)
	if err != nil {
		return s, err
	}
	s = web.BitcoinStatus{State: web.BitcoinReady, Node: info.Agent, Progress: info.Progress, Height: info.Blocks,
		Headers: info.Headers, Tip: info.Best, TipTime: time.Unix(int64(header.Time), 0), Peers: info.Peers}
	if info.Initial {
		s.State = web.BitcoinSyncing
		s.Doing = fmt.Sprintf("bitcoind synchronizes  %.1f%%  height %d of %d", 100*s.Progress, s.Height, s.Headers)
	}
	return s, nil
}

// verifyTip reads the header of the tip, which must have the hash that it is said to have, and its proof of
// work.
func (x *external) verifyTip(text, hash string) (h bitcoin.Header, err error) {
	b, err := hex.DecodeString(text)
	if err == nil {
		h, err = bitcoin.ParseHeader(b)
	}
	switch {
	case err != nil:
		return h, fmt.Errorf("the header of its tip: %w", err)
	case h.Hash().String() != hash || !bitcoin.MeetsTarget(h.Hash(), h.Bits, x.net.PowLimit):
		return h, fmt.Errorf("the header of its tip %.64s is another or has no proof of work", hash)
	}
	return h, nil
}

func callInto(ctx context.Context, c *jsonrpc.Client, into any, method string, params []any) error {
	if params == nil {
		params = []any{}
	}
	v, err := c.Call(ctx, method, params)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(jsonrpc.AppendValue(nil, v), into); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}
