// Package bitcoind is the Bitcoin half as a program of its own, to be used as Bitcoin Core's bitcoind is:
// its flags and bitcoin.conf, its data directory, log, cookie and errors.
//
// FromOptions turns settings into a Config, New puts the parts of a node together, Run runs them until the
// context ends or somebody calls stop. What the parts do is theirs: chain, mempool, p2p, miner, rpc.
package bitcoind

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/index"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/p2p/addrbook"
	"github.com/tallypost/tallypost/bitcoin/rpc"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// Node is a node. It is made by New and ended by Run's end.
type Node struct {
	cfg     Config
	clock   *mockable
	started time.Time
	log     *slog.Logger
	debug   *debugLog
	locks   []*os.File
	logFile *logFile

	store     *blockstore.Store
	chain     *chain.Chain
	indexes   *index.Set
	p2p       *p2p.Node
	api       *rpc.API
	server    *jsonrpc.Server
	stop      context.CancelFunc
	status    atomic.Pointer[Status]
	notifiers []*notifier // of ZeroMQ
	loaded    atomic.Bool // blocks and mempool have been taken in from files

	warnings warnings

	mu      sync.Mutex // guards what follows
	failure error      // what the node ended for
}

// New takes possession of the data directory and begins the log. Nothing runs yet.
func New(cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, clock: new(mockable), started: time.Now(), debug: newDebugLog(cfg.logStyle)}
	n.log, n.debug.mocked = slog.New(n.debug), n.clock.mocked
	n.warnings.wake = make(chan struct{}, 1)
	cfg.setLogging(n.debug)
	if cfg.MockTime != 0 {
		n.clock.SetMock(time.Unix(cfg.MockTime, 0))
	}
	for _, dir := range []string{cfg.DataDir, cfg.Storage.BlocksDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("Cannot write to directory '%s'; check permissions.", dir)
		}
		lock, err := lockDir(dir)
		if err != nil {
			n.Close()
			return nil, err
		}
		n.locks = append(n.locks, lock)
	}
	if err := n.openLog(); err != nil {
		n.Close()
		return nil, err
	}
	if cfg.StaleFees && cfg.Network.Name != "regtest" {
		n.Close()
		return nil, fmt.Errorf("acceptstalefeeestimates is not supported on %s chain.", cfg.Network.Name)
	}
	return n, nil
}

// Close gives back what New took, where Run is not called. After Run there is nothing left to do.
func (n *Node) Close() {
	if n.logFile != nil {
		n.logFile.f.Close()
	}
	for _, lock := range n.locks {
		if lock != nil {
			lock.Close()
		}
	}
	n.locks = nil
}

// Run runs the node until the context ends or it is told to stop. What an error is to be told as, Report
// says.
func (n *Node) Run(ctx context.Context) error {
	defer n.Close()
	defer n.cfg.Line.Set("")
	err := n.run(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		n.log.Error(Report(err), "err", err)
	}
	return err
}

func (n *Node) run(ctx context.Context) (err error) {
	ctx, n.stop = context.WithCancel(ctx)
	defer n.stop()
	if err := n.writePID(); err != nil {
		return err
	}
	defer n.removePID()
	var calls sync.WaitGroup
	defer calls.Wait()
	// Calls are answered until the rest has ended: they wait for the chain.
	serving, endServing := context.WithCancel(context.WithoutCancel(ctx))
	defer endServing()
	if n.cfg.RPCOn {
		if err := n.startServer(serving, &calls); err != nil {
			return err
		}
		defer n.removeCookie()
	}
	if err := n.load(ctx); err != nil {
		return err
	}
	defer func() { err = firstOf(err, n.closeStore()) }()
	if err := n.openIndexes(); err != nil {
		return err
	}
	if reindexing, err := n.chain.Reindexing(); err == nil && !reindexing && n.cfg.Storage.Prune != 0 {
		n.warmup("Pruning blockstore…")
		if err := n.chain.Prune(ctx); err != nil {
			return err
		}
	}
	switch {
	case n.cfg.Storage.Prune != 0 || n.cfg.Storage.HeadersOnly:
	case n.chain.BackgroundSync():
		n.log.Info("Running node in NODE_NETWORK_LIMITED mode until snapshot background sync completes")
	default:
		n.log.Info("Setting NODE_NETWORK in non-prune mode")
	}
	n.warnOfRoom()
	if err := n.startPeers(); err != nil {
		return err
	}
	n.openZMQ()
	n.makeAPI()
	defer context.AfterFunc(ctx, endServing)()
	if n.server != nil {
		n.server.SetWarmup("")
	}
	n.log.Info("init message: Done loading")
	if n.cfg.Ready != nil {
		n.cfg.Ready()
	}
	defer n.runAll(context.WithoutCancel(ctx), n.cfg.Notify.Shutdown)
	var runs sync.WaitGroup
	loaded := sync.OnceFunc(n.chain.BeginLoading())
	defer loaded()
	n.attend(ctx, &runs, loaded)
	err = n.p2p.Run(ctx)
	n.log.Info("Shutdown in progress...")
	n.stop()
	runs.Wait()
	endServing()
	calls.Wait()
	n.mu.Lock()
	failure := n.failure
	n.mu.Unlock()
	n.saveMempool()
	err = firstOf(failure, err, n.saveState())
	n.log.Info("Shutdown done")
	return err
}

// attend starts all that is done beside the peers; loaded is called when blocks and mempool are loaded.
func (n *Node) attend(ctx context.Context, runs *sync.WaitGroup, loaded func()) {
	runs.Go(func() {
		n.log.Info("scheduler thread start") // what is done every now and then
		defer n.log.Info("scheduler thread exit")
		if err := n.chain.Run(ctx); err != nil {
			n.fail(err) // the disk: nothing is trusted after that
		}
	})
	runs.Go(func() { n.initLoad(ctx, loaded) })
	runs.Go(func() { n.watchHeight(ctx) })
	runs.Go(func() { n.runTor(ctx) })
	runs.Go(func() { n.runZMQ(ctx) })
	runs.Go(func() { n.watchProgress(ctx) })
	runs.Go(func() { n.runAll(ctx, n.cfg.Notify.Startup) })
	runs.Go(func() { n.notifyBlocks(ctx) })
	runs.Go(func() { n.watchWarnings(ctx) })
	runs.Go(func() {
		if err := n.indexes.Run(ctx); err != nil {
			n.fail(err)
		}
	})
}

// watchHeight ends the node when the chain has come to -stopatheight.
func (n *Node) watchHeight(ctx context.Context) {
	select {
	case <-n.chain.Stopped():
		n.log.Info("stop at height", "height", n.cfg.Storage.StopAt)
		n.stop()
	case <-ctx.Done():
	}
}

func (n *Node) writePID() error {
	if n.cfg.PIDFile == "" {
		return nil
	}
	if err := os.WriteFile(n.cfg.PIDFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return fmt.Errorf("Unable to create the PID file '%s': %s", n.cfg.PIDFile, systemError(err))
	}
	return nil
}

func (n *Node) removePID() {
	if n.cfg.PIDFile != "" {
		os.Remove(n.cfg.PIDFile)
	}
}

// startServer listens for calls, first, so that no other program can take the place for which there is a
// cookie (CVE-2018-20587), and answers that the node is warming up.
func (n *Node) startServer(ctx context.Context, calls *sync.WaitGroup) error {
	var listeners []net.Listener
	for _, at := range n.cfg.RPCBind {
		l, err := net.Listen("tcp", at.String())
		if err != nil {
			n.log.Warn("Binding RPC on address " + at.Addr().String() + " port " +
				strconv.Itoa(int(at.Port())) + " failed.")
			continue
		}
		n.log.Info("Binding RPC on address " + at.Addr().String() + " port " + strconv.Itoa(int(at.Port())))
		listeners = append(listeners, l)
	}
	if len(listeners) == 0 {
		return errors.New("Unable to start HTTP server. See debug log for details.")
	}
	cfg := n.cfg.RPC
	cfg.Log = n.log
	if n.cfg.REST {
		cfg.Handler = n.rest
	}
	if n.cfg.Pass != "" {
		n.log.Info("Using rpcuser/rpcpassword authentication.")
		cfg.Credentials = append(cfg.Credentials, jsonrpc.NewCredential(n.cfg.User, n.cfg.Pass))
	} else if n.cfg.Cookie != "" {
		cred, err := jsonrpc.WriteCookie(n.cfg.Cookie, fs.FileMode(n.cfg.Perm))
		if err != nil {
			n.log.Warn("Unable to open cookie authentication file for writing", "err", err)
			return errors.New("Unable to start HTTP server. See debug log for details.")
		}
		n.log.Info("Generated RPC authentication cookie " + n.cfg.Cookie)
		n.log.Info("Using random cookie authentication.")
		cfg.Credentials = append(cfg.Credentials, cred)
	} else {
		n.log.Info("RPC authentication cookie file generation is disabled.")
	}
	n.log.Info(fmt.Sprintf("Starting HTTP server with %d worker threads", cfg.Workers))
	n.server = jsonrpc.NewServer(cfg, nil)
	for _, l := range listeners {
		calls.Go(func() {
			if err := n.server.Serve(ctx, l); err != nil {
				n.log.Error("the RPC server ended", "err", err)
			}
		})
	}
	return nil
}

func (n *Node) removeCookie() {
	if n.cfg.Cookie != "" {
		os.Remove(n.cfg.Cookie)
	}
}

func (n *Node) warmup(doing string) {
	if n.server != nil {
		n.server.SetWarmup(doing)
	}
	n.log.Info("init message: " + doing)
	n.show(Status{Doing: doing, Fraction: -1})
}

// startPeers listens for peers and makes the node that speaks with them.
func (n *Node) startPeers() error {
	for _, note := range n.cfg.BookNotes {
		n.log.Info(note)
	}
	n.warmup("Loading P2P addresses…")
	cfg := n.cfg.P2P
	cfg.Chain, cfg.Clock, cfg.Log = n.chain, n.clock, n.log
	if n.indexes.Filters != nil {
		cfg.Filters = n.indexes.Filters
	}
	cfg.AnchorsFile = filepath.Join(n.cfg.DataDir, "anchors.dat")
	var err error
	if cfg.Book, err = n.loadBook(); err != nil {
		return err
	}
	n.warmup("Loading banlist…")
	bans := filepath.Join(n.cfg.DataDir, "banlist.json")
	_, absent := os.Stat(bans)
	if cfg.Bans, err = p2p.LoadBans(bans, n.clock.Now()); err != nil {
		n.log.Warn(err.Error())
	}
	if absent != nil || err != nil {
		n.log.Info("Recreating the banlist database")
		if err := cfg.Bans.Flush(n.clock.Now()); err != nil {
			return fmt.Errorf("Cannot write %s: %w", bans, err)
		}
	}
	n.warmup("Starting network threads…")
	for _, b := range n.cfg.Binds {
		kind := "tcp4"
		if b.Addr.Addr().Is6() {
			kind = "tcp6"
		}
		l, err := net.Listen(kind, b.Addr.String())
		if err != nil && b.Optional {
			n.log.Warn("no connections are taken at an address", "at", b.Addr, "err", err)
			continue
		}
		if err != nil {
			for _, l := range cfg.Listen {
				l.Listener.Close()
			}
			return bindError(b, err)
		}
		n.log.Info("Bound to " + wire.AddrPortFrom(b.Addr).String())
		cfg.Listen = append(cfg.Listen, p2p.Listen{Listener: l, Permissions: b.Permissions, Onion: b.Onion})
	}
	n.p2p = p2p.New(cfg)
	return nil
}

// loadBook reads peers.dat. One that cannot be read stops the node, so that nobody loses what he might
// mend; one of a newer version is put aside.
func (n *Node) loadBook() (*addrbook.Book, error) {
	file := filepath.Join(n.cfg.DataDir, "peers.dat")
	cfg := n.cfg.Book
	cfg.Debugf = func(format string, args ...any) { n.log.Debug(fmt.Sprintf(format, args...), "cat", "addrman") }
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		n.log.Info(fmt.Sprintf("Creating peers.dat because the file was not found (%q)", file))
		return addrbook.New(cfg), nil
	}
	if err == nil {
		var book *addrbook.Book
		if book, err = addrbook.Unmarshal(data, n.cfg.Network.Magic, cfg); err == nil {
			n.log.Info(fmt.Sprintf("Loaded %d addresses from peers.dat", book.Size()))
			return book, nil
		}
	}
	if errors.Is(err, addrbook.ErrVersion) {
		if err := os.Rename(file, file+".bak"); err != nil {
			return nil, errors.New("Failed to rename invalid peers.dat file. Please move or delete it and " +
				"try again.")
		}
		n.log.Info(fmt.Sprintf("Creating new peers.dat because the file version was not compatible (%q). "+
			"Original backed up to peers.dat.bak", file))
		return addrbook.New(cfg), nil
	}
	return nil, fmt.Errorf("Invalid or corrupt peers.dat (%v). If you believe this is a bug, please report "+
		"it to https://github.com/bitcoin/bitcoin/issues. As a workaround, you can move the file (%q) "+
		"out of the way (rename, move, or delete) to have a new one created on the next start.", err, file)
}

// makeAPI gives the server its methods.
func (n *Node) makeAPI() {
	if n.server == nil {
		return
	}
	n.api = rpc.New(rpc.Config{
		Chain: n.chain, P2P: n.p2p, Clock: n.clock, Log: n.log, Coins: coins{n.chain}, Files: n.diskFiles(),
		Indexes: n.indexes, Logging: n.debug, Notifiers: n.activeNotifiers(), DataDir: n.cfg.DataDir,
		LogFile: n.cfg.LogFile, Stop: n.stop, Mining: n.cfg.Mining,
		Loaded: n.loaded.Load, MempoolFile: n.mempoolFile(), PlainMempool: n.cfg.PlainMempool,
		Warnings: n.warn, Deprecated: n.cfg.Deprecated, BanTime: n.cfg.P2P.BanTime, V2: n.cfg.P2P.V2, Started: n.started,
	})
	n.api.SetServer(n.server)
	n.server.Add(n.api.Methods())
}

// saveState writes what is kept beside the chain.
func (n *Node) saveState() error {
	book := n.p2p.Book().Marshal(n.cfg.Network.Magic)
	file := filepath.Join(n.cfg.DataDir, "peers.dat")
	if err := os.WriteFile(file+".new", book, 0o600); err != nil {
		return err
	}
	return errors.Join(os.Rename(file+".new", file), n.p2p.Bans().Flush(n.clock.Now()))
}

func parseHex(s string) ([]byte, error) { return hex.DecodeString(s) }

// parseUint256 reads up to 64 hexadecimal digits.
func parseUint256(s string) (bitcoin.Uint256, error) {
	s = strings.TrimPrefix(s, "0x")
	if len(s) > 64 {
		return bitcoin.Uint256{}, errors.New("more than 64 hexadecimal digits")
	}
	return bitcoin.ParseUint256(strings.Repeat("0", 64-len(s)) + s)
}
