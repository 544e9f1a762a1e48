// Package rpc is what the node answers when asked as bitcoind is: the methods of Bitcoin Core's JSON-RPC
// interface with their fields, codes and texts (Bitcoin Core 30.99, rpc/*.cpp).
//
// A method that is not here is not known to the node, and says so. How calls come and answers go is package
// jsonrpc's.
package rpc

import (
	"context"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/index"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/miner"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/internal/clock"
)

// Version is the version number that clients compare: that of the Bitcoin Core whose interface this is.
const Version = 309900

// Coins are the unspent outputs, to be looked at one by one.
type Coins interface {
	// All calls yield for each unspent output as of one block, whose hash it returns, in the order of
	// their outpoints.
	All(ctx context.Context, yield func(bitcoin.OutPoint, consensus.Coin) error) (bitcoin.Hash, error)
}

// Files is what the node can tell of its files of blocks.
type Files interface {
	// BlockBytes is the disk that blocks and undo data take.
	BlockBytes() int64
	// CoinBytes is the disk that the coins take.
	CoinBytes() int64
}

// Clock is a clock that can be set.
type Clock interface {
	clock.Clock
	// SetMock makes the time stand still; the zero time lets it run again.
	SetMock(time.Time)
}

// Logging switches what goes to the log.
type Logging interface {
	// Categories returns the categories and whether they are on.
	Categories() map[string]bool
	// Enable switches a category; ok is false where there is none of the name.
	Enable(name string, on bool) (ok bool)
}

// Config of an API. Chain, Network and Clock are needed.
type Config struct {
	Chain   *chain.Chain
	P2P     *p2p.Node
	Clock   Clock
	Log     *slog.Logger
	Coins   Coins      // nil: scantxoutset and gettxoutsetinfo are not there
	Files   Files      // nil: nothing is known of files
	Indexes *index.Set // nil: none
	Logging Logging
	// Notifiers are those of ZeroMQ.
	Notifiers []Notifier

	DataDir    string // of the network
	LogFile    string
	Stop       func() // begins the node's end
	Mining     miner.Options
	Deprecated []string // methods and fields that are wanted though Core drops them
	BanTime    time.Duration
	V2         bool
	Started    time.Time
	Loaded     func() bool // the mempool is complete; nil: it is
	// MempoolFile is where savemempool writes, PlainMempool that it writes the old form.
	MempoolFile  string
	PlainMempool bool
	MinimumWork  bitcoin.Uint256
	Warnings     func() []string // what the operator should know; nil: nothing is
	Server       *jsonrpc.Server // for help and getrpcinfo; set once it is made
}

// API answers calls.
type API struct {
	cfg   Config
	chain *chain.Chain
	net   *bitcoin.Network
	p2p   *p2p.Node
	log   *slog.Logger

	assembled           atomic.Pointer[assembled]
	work                work
	coinScan, blockScan scan
}

// New returns an API.
func New(cfg Config) *API {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &API{cfg: cfg, chain: cfg.Chain, net: cfg.Chain.Network(), p2p: cfg.P2P, log: cfg.Log}
}

// SetServer tells the API which server its methods are called by.
func (a *API) SetServer(s *jsonrpc.Server) { a.cfg.Server = s }

// Describe returns all methods for who wants to know what they take; they cannot be run.
func Describe() []jsonrpc.Method {
	a := new(API)
	return append(append(a.Methods(), a.coinMethods()...), a.netMethods()...)
}

// Methods returns the methods that can be run.
func (a *API) Methods() []jsonrpc.Method {
	list := a.controlMethods()
	list = append(list, a.chainMethods()...)
	list = append(list, a.blockMethods()...)
	list = append(list, a.storageMethods()...)
	list = append(list, a.rawMethods()...)
	list = append(list, a.submitMethods()...)
	list = append(list, a.signMethods()...)
	list = append(list, a.mempoolMethods()...)
	list = append(list, a.miningMethods()...)
	list = append(list, a.utilMethods()...)
	list = append(list, a.descriptorMethods()...)
	list = append(list, a.messageMethods()...)
	list = append(list, a.indexMethods()...)
	list = append(list, a.scanMethods()...)
	list = append(list, a.zmqMethods()...)
	if a.cfg.Coins != nil {
		list = append(list, a.coinMethods()...)
	}
	if a.p2p != nil {
		list = append(list, a.netMethods()...)
	}
	return list
}

type (
	call   = *jsonrpc.Call
	object = jsonrpc.Object
)

// run is a method's body that neither waits nor can be cancelled.
func run(f func(c call) (any, error)) func(context.Context, call) (any, error) {
	return func(_ context.Context, c call) (any, error) { return f(c) }
}

func fail(code jsonrpc.Code, format string, args ...any) error {
	return jsonrpc.Errorf(code, format, args...)
}

func (a *API) now() time.Time { return a.cfg.Clock.Now() }

// lookup returns a block of the index.
func (a *API) lookup(h bitcoin.Hash) (chain.Entry, error) {
	e, ok := a.chain.Lookup(h)
	if !ok {
		return e, fail(jsonrpc.InvalidAddressOrKey, "Block not found")
	}
	return e, nil
}

// withPool calls f with the mempool.
func (a *API) withPool(f func(*mempool.Pool)) {
	a.chain.Mempool(func(p *mempool.Pool, _ *consensus.State) { f(p) })
}

// decodeTx reads a transaction in hexadecimal: with witnesses or in the old form, whichever leaves nothing
// over and looks like one.
func decodeTx(s string, tryOld, tryWitness bool) (*bitcoin.Tx, bool) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, false
	}
	if tryWitness {
		if tx, err := bitcoin.ParseTx(b); err == nil && (!tryOld || saneScripts(tx)) {
			return tx, true
		}
	}
	if tryOld {
		if tx, err := bitcoin.ParseTxNoWitness(b); err == nil && (!tryWitness || saneScripts(tx)) {
			return tx, true
		}
	}
	if tryWitness {
		if tx, err := bitcoin.ParseTx(b); err == nil {
			return tx, true
		}
	}
	return nil, false
}

// warnings says what the node's operator should know (Bitcoin Core node/warnings.cpp, GetWarningsForRpc).
func (a *API) warnings() any {
	list := []string{}
	if a.cfg.Warnings != nil {
		list = append(list, a.cfg.Warnings()...)
	}
	if !slices.Contains(a.cfg.Deprecated, "warnings") {
		return list
	}
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1]
}

type methodBody = func(context.Context, call) (any, error)
