// Package p2p keeps the node in touch with others: it finds and holds connections, fetches headers and
// blocks, relays transactions and addresses, and serves all of it, by the protocol version 70016 of Bitcoin
// Core (net.cpp, net_processing.cpp).
//
// A peer can send what it likes: every message is bounded before memory is taken for it, what it makes us do
// is bounded by its own account, and what no honest peer sends ends the connection and marks its address.
// Headers of chains with too little work leave no trace (presync). Which of too many inbound peers goes is
// decided by qualities that an attacker cannot have often (SelectEvict).
//
// # Threads
//
// Each peer has two goroutines. One reads: it answers a message before it looks at the next, so that a pong
// says that all before it has been dealt with. The other writes what is queued. One more wakes all peers
// ten times a second for what is due, and one keeps the number of connections. Node.mu guards all that
// peers and Node share; no lock is held while a block or transaction is validated, or over the network.
//
// What is valid, and which chain is best, is not decided here.
package p2p

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/p2p/addrbook"
	"github.com/tallypost/tallypost/bitcoin/p2p/proxy"
	"github.com/tallypost/tallypost/bitcoin/wire"
	"github.com/tallypost/tallypost/internal/clock"
)

// Filters serves BIP 157. It is nil where there is no index.
type Filters interface {
	Filter(hash bitcoin.Hash) (filter []byte, ok bool)
	FilterHash(hash bitcoin.Hash) (h bitcoin.Hash, ok bool)
	FilterHeader(hash bitcoin.Hash) (h bitcoin.Hash, ok bool)
}

// Listen is an address to take connections at.
type Listen struct {
	Listener    net.Listener
	Permissions Permissions // of who comes in there
	Onion       bool        // who comes, comes by Tor

	bound string // our address there, if it is not the connection's
}

// Config of a Node. Chain is needed.
type Config struct {
	Chain   *chain.Chain
	Filters Filters
	Clock   clock.Clock  // nil: the machine's
	Log     *slog.Logger // nil: none

	Listen []Listen
	// Dial makes connections; nil: net.Dialer's DialContext.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Resolve finds the addresses of a name; nil: the system's.
	Resolve func(ctx context.Context, name string) ([]net.IP, error)
	NoDNS   bool // resolve no names

	Proxies   map[wire.Net]string // SOCKS5 servers by network; of I2P, the router
	NameProxy string              // for names; empty: resolve
	// ProxyRandomize gives each connection by a proxy a name of its own (Tor's stream isolation).
	ProxyRandomize bool
	I2PKeyFile     string     // of our I2P destination, where nodes can connect to it; empty: they cannot
	OnlyNets       []wire.Net // to connect to by ourselves; nil: all
	CJDNS          bool       // addresses of fc00::/8 are those of CJDNS, and reached

	Whitelist    []Whitelisted
	Implicit     Permissions // of who is allowed something without saying what; 0: noban, relay, mempool
	Connect      []string    // connect to these only
	ConnectOnly  bool        // -connect was given, be it -connect=0
	AddNodes     []string
	Seeds        []string // ask these for addresses first
	DNSSeeds     []string // nil: the network's, where DNSSeed is set
	DNSSeed      bool
	NoFixedSeeds bool // never fall back on the network's
	// ForceDNSSeed asks the seeds even where the book has addresses.
	ForceDNSSeed bool

	Book        *addrbook.Book // nil: a new one
	Bans        *Bans          // nil: none yet
	AnchorsFile string         // where the block-relay-only peers are remembered; empty for nowhere
	CaptureDir  string         // where all messages are written, a directory for each peer; empty for nowhere

	UserAgent      string
	Services       wire.Services // that we offer
	V2             bool          // encrypted transport
	MaxConnections int           // 0: 125
	BlocksOnly     bool          // no transactions from or to peers
	PeerBloom      bool          // serve BIP 37
	Reconcile      bool          // offer reconciliation of transactions (BIP 330)
	NoListen       bool
	PeerTimeout    time.Duration // 0: 60 seconds
	ConnectTimeout time.Duration // 0: 5 seconds
	MaxSendBuffer  int           // octets; 0: 1,000,000
	MaxRecvBuffer  int           // octets; 0: 5,000,000
	MinimumWork    bitcoin.Uint256
	BanTime        time.Duration // of setban; 0: 24 hours
	PruneMode      bool
	Port           uint16          // by which nodes reach us; 0: the network's
	External       []wire.AddrPort // our addresses, by the operator's word
	Bound          []wire.AddrPort // that we listen at
	Interfaces     []wire.AddrPort // of the machine
	Discover       bool            // use addresses that the operator did not name
	MaxUpload      int64           // octets a day; 0: any
	Inactive       bool            // start with the network off
	MaxTipAge      time.Duration   // of a tip with which the initial download is over; 0: 24 hours
}

// Node holds the connections. Run starts it.
type Node struct {
	cfg   Config
	net   *bitcoin.Network
	chain *chain.Chain
	pool  pool
	clock clock.Clock
	log   *slog.Logger
	book  *addrbook.Book
	bans  *Bans
	i2p   *proxy.SAM // nil: nodes of I2P cannot connect to us

	upload     upload
	onionProxy atomic.Pointer[string] // in place of the configured one
	circuits   atomic.Int64           // connections by a proxy so far
	active     atomic.Bool            // network activity is on
	sent       atomic.Int64
	received   atomic.Int64
	memory     *budget
	keys       [2]uint64 // of groups and choices that peers must not foresee
	schedSkip  atomic.Int64
	synced     atomic.Bool   // the initial download is over
	wake       chan struct{} // the ticker, before its time
	orphanWork chan struct{} // there are orphans to try again
	started    time.Time

	following sync.Mutex // held by who takes notice of the chain; before mu

	mu         sync.Mutex // guards what follows, and what Peer says
	closed     bool
	nextID     PeerID
	peers      map[PeerID]*Peer
	added      []wanted
	fetches    []string // nodes that are to be asked for addresses
	unused     []*proxy.SAM
	tryAnother bool            // one more full peer: the tip may be stale
	extraRelay bool            // now and then one more block-relay-only peer
	caughtUp   bool            // the first sync came to an end
	nonces     map[uint64]bool // of our own version messages
	blocks     blockState
	txs        txDownload
	extra      []*bitcoin.Tx // for compact blocks: lately not accepted
	recent     *recentBlock
	cursor     chain.Cursor // up to where blocks were announced
	tipSeen    time.Time    // when the tip last changed
	getAddrs   map[string]addrCache
	inbound    time.Time // next trickle to inbound peers of all networks
	anchors    []wire.KnownAddr
	local      map[wire.Addr]localAddr
	tasks      schedule

	group sync.WaitGroup // goroutines of peers
}

// New returns a node without connections.
func New(cfg Config) *Node {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Book == nil {
		cfg.Book = addrbook.New(addrbook.Config{})
	}
	if cfg.Bans == nil {
		cfg.Bans, _ = LoadBans("", time.Time{})
	}
	setDefault(&cfg.MaxConnections, 125)
	setDefault(&cfg.PeerTimeout, time.Minute)
	setDefault(&cfg.ConnectTimeout, 5*time.Second)
	setDefault(&cfg.MaxSendBuffer, 1_000_000)
	setDefault(&cfg.MaxRecvBuffer, 5_000_000)
	setDefault(&cfg.BanTime, 24*time.Hour)
	setDefault(&cfg.MaxTipAge, 24*time.Hour)
	setDefault(&cfg.Implicit, PermNoBan|PermRelay|PermMempool)
	n := &Node{
		cfg: cfg, net: cfg.Chain.Network(), chain: cfg.Chain, pool: pool{cfg.Chain}, clock: cfg.Clock,
		log: cfg.Log, book: cfg.Book, bans: cfg.Bans,
		// A message of each peer: who sends slowly takes nothing away from others.
		memory: newBudget(int64(cfg.MaxConnections+maxManual+maxFeelers) * wire.MaxPayload),
		keys:   [2]uint64{rand.Uint64(), rand.Uint64()},
		wake:   make(chan struct{}, 1),
		peers:  map[PeerID]*Peer{}, nonces: map[uint64]bool{},
		getAddrs:   map[string]addrCache{},
		local:      map[wire.Addr]localAddr{},
		orphanWork: make(chan struct{}, 1),
	}
	for _, name := range cfg.AddNodes {
		n.added = append(n.added, wanted{name, cfg.V2})
	}
	if cfg.I2PKeyFile != "" && cfg.Proxies[wire.NetI2P] != "" {
		n.i2p = n.newSession(cfg.I2PKeyFile)
	}
	n.txs = newTxDownload(n.keys, func(format string, args ...any) { n.debugIn("txpackages", format, args...) })
	n.upload.most = cfg.MaxUpload
	n.blocks.init()
	n.active.Store(!cfg.Inactive)
	if n.cfg.Port == 0 {
		n.cfg.Port = n.net.Port
	}
	for _, list := range []struct {
		addrs []wire.AddrPort
		score int
	}{{cfg.External, localManual}, {cfg.Bound, localBind}, {cfg.Interfaces, localIf}} {
		for _, a := range list.addrs {
			n.addLocal(a, list.score)
		}
	}
	return n
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Run takes and makes connections until the context ends; then it closes all and returns.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.started = n.clock.Now()
	n.infof("SetNetworkActive: %v", n.active.Load())
	tip := n.chain.Tip()
	n.cursor = chain.Cursor{Hash: tip.Hash, Height: tip.Height}
	n.tipSeen = n.clock.Now()
	forget := n.chain.OnTip(n.nudge)
	defer forget()
	var loops sync.WaitGroup
	for _, l := range n.cfg.Listen {
		stop := context.AfterFunc(ctx, func() { l.Listener.Close() })
		defer stop()
		loops.Go(func() { n.acceptLoop(ctx, l) })
	}
	n.thread(&loops, "net", func() { n.orphanLoop(ctx) })
	n.startCalling(ctx, &loops)
	n.thread(&loops, "msghand", func() { n.tickLoop(ctx) })
	<-ctx.Done()
	n.closeAll()
	loops.Wait()
	n.group.Wait()
	n.saveAnchors()
	return nil
}

// startCalling starts what makes connections.
func (n *Node) startCalling(ctx context.Context, loops *sync.WaitGroup) {
	if n.cfg.DNSSeed {
		n.thread(loops, "dnsseed", func() { n.seedLoop(ctx) })
	} else {
		n.infof("DNS seeding disabled")
	}
	n.thread(loops, "addcon", func() { n.addedLoop(ctx) })
	switch {
	case !n.cfg.ConnectOnly:
		n.thread(loops, "opencon", func() { n.connectLoop(ctx) })
	case len(n.cfg.Connect) > 0:
		n.thread(loops, "opencon", func() { n.specifiedLoop(ctx) })
	}
	if n.i2p != nil {
		n.thread(loops, "i2paccept", func() { n.i2pLoop(ctx) })
	}
}

// thread starts a loop and tells when it begins and ends, by the name of Core's thread that does the same.
func (n *Node) thread(loops *sync.WaitGroup, name string, loop func()) {
	loops.Go(func() {
		n.infof("%s thread start", name)
		defer n.infof("%s thread exit", name)
		loop()
	})
}

func (n *Node) closeAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if n.i2p != nil {
		n.i2p.Close()
	}
	for _, s := range n.unused {
		s.Close()
	}
	for _, p := range n.peers {
		if p.typ == BlockRelayOnly && !p.closing {
			n.anchors = append(n.anchors, wire.KnownAddr{AddrPort: p.addr, Services: n.book.Services(p.addr)})
		}
		p.close()
	}
}

// nudge wakes the ticker.
func (n *Node) nudge() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *Node) acceptLoop(ctx context.Context, l Listen) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if ctx.Err() == nil {
				n.log.Error("no more connections are taken", "at", l.Listener.Addr(), "err", err)
			}
			return
		}
		n.acceptConn(ctx, c, l)
	}
}

// tickLoop does for all peers what is due, ten times a second or when woken.
func (n *Node) tickLoop(ctx context.Context) {
	for {
		due, stop := n.clock.After(100 * time.Millisecond)
		select {
		case <-due:
		case <-n.wake:
			stop()
		case <-ctx.Done():
			stop()
			return
		}
		n.followChain(ctx)
		n.mu.Lock()
		n.scheduled()
		for _, p := range n.sortedPeers() {
			n.sendDue(p)
		}
		n.mu.Unlock()
	}
}

// debugf writes a line of Core's words to the log that an operator reads to debug.
func (n *Node) debugf(format string, args ...any) { n.debugIn("net", format, args...) }

// debugIn is debugf in one of Core's categories.
func (n *Node) debugIn(category, format string, args ...any) {
	if n.log.Enabled(context.Background(), slog.LevelDebug) {
		n.log.Debug(fmt.Sprintf(format, args...), "cat", category)
	}
}

// infof writes a line to the log whose source is the caller: how much a source may write is limited.
func (n *Node) infof(format string, args ...any) {
	var caller [1]uintptr
	runtime.Callers(2, caller[:])
	r := slog.NewRecord(time.Now(), slog.LevelInfo, fmt.Sprintf(format, args...), caller[0])
	if ctx := context.Background(); n.log.Enabled(ctx, r.Level) {
		n.log.Handler().Handle(ctx, r) // as slog does, it goes on without a log that cannot be written
	}
}
