// Package memnet is a network in memory: hosts with addresses, links between them that are slow,
// lose, are cut and mended again, and connections that behave as TCP's do at their ends.
//
// A connection is a net.Conn with half-close, deadlines, resets and bounded buffers; what a link
// loses is sent again, so loss shows as delay, as it does to users of TCP. All time is that of a
// clock.Clock, all chance comes from a seed, and no goroutine is started: it runs under
// testing/synctest and in a lab of many nodes. It does not do datagrams, names or congestion
// control.
package memnet

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
)

// Config describes a Network. The zero value is one without delay or loss on the machine's clock.
type Config struct {
	// Clock is what latency and deadlines run by. Nil: clock.Real.
	Clock clock.Clock
	// Seed decides all chance. Two runs that open the same connections in the same order between each
	// pair of hosts, and write the same on them, see the same losses and delays.
	Seed uint64
	// Link is what connects two hosts that SetLink has not said otherwise of.
	Link Link
	// BufferBytes bounds what is under way and not yet read in each direction of a connection.
	// Zero: 256 KiB.
	BufferBytes int
	// Backlog is how many connections wait to be accepted by a listener; further ones are as lost.
	// Zero: 128.
	Backlog int
	// ConnectTimeout is when a dial gives up. Zero: 2 minutes, about what Linux takes.
	ConnectTimeout time.Duration
}

// Link is the way from one host to another. The zero value is immediate, endless and perfect.
type Link struct {
	// Latency is the time one way; up to Jitter is added by chance to each segment, order kept.
	Latency, Jitter time.Duration
	// Bandwidth is in octets per second, shared by all connections in this direction. Zero: endless.
	Bandwidth int
	// Loss is the probability that a segment, or a try to connect, is lost and has to be sent again
	// after a time-out that doubles each time.
	Loss float64
	// Reset is the probability that sending a segment resets the connection.
	Reset float64
}

// Network is a set of hosts. It may be used from many goroutines.
type Network struct {
	cfg Config

	cuts atomic.Int32 // how many of cut, group and down are in force: none is the common case

	mu        sync.Mutex // guards what follows
	links     map[pair]*wire
	dials     map[pair]uint64
	listeners map[netip.AddrPort]*Listener
	conns     map[*Conn]bool
	ports     map[netip.Addr]uint16
	cut       map[pair]bool
	group     map[netip.Addr]int
	down      map[netip.Addr]bool
	change    chan struct{} // closed when a connection may pass again
}

// pair is a direction: from, to.
type pair struct{ from, to netip.Addr }

// wire is the state of one direction of a link.
type wire struct {
	Link
	busy time.Time // when the last octet given to it will have left
}

// New returns a Network without listeners.
func New(cfg Config) *Network {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.BufferBytes <= 0 {
		cfg.BufferBytes = 256 << 10
	}
	if cfg.Backlog <= 0 {
		cfg.Backlog = 128
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = 2 * time.Minute
	}
	return &Network{
		cfg:       cfg,
		links:     make(map[pair]*wire),
		dials:     make(map[pair]uint64),
		listeners: make(map[netip.AddrPort]*Listener),
		conns:     make(map[*Conn]bool),
		ports:     make(map[netip.Addr]uint16),
		cut:       make(map[pair]bool),
		group:     make(map[netip.Addr]int),
		down:      make(map[netip.Addr]bool),
		change:    make(chan struct{}),
	}
}

// SetLink sets the link between two hosts, both directions, for what is sent from now on.
func (n *Network) SetLink(a, b netip.Addr, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wire(pair{a, b}).Link = l
	n.wire(pair{b, a}).Link = l
}

// wire is called with mu held.
func (n *Network) wire(p pair) *wire {
	w := n.links[p]
	if w == nil {
		w = &wire{Link: n.cfg.Link}
		if p.from == p.to {
			w.Link = Link{} // a host reaches itself at once
		}
		n.links[p] = w
	}
	return w
}

// Cut lets nothing through between two hosts until Heal or Mend: connections stall, dials hang.
func (n *Network) Cut(a, b netip.Addr) {
	n.topology(func() { n.cut[pair{a, b}], n.cut[pair{b, a}] = true, true })
}

// Mend takes back a Cut.
func (n *Network) Mend(a, b netip.Addr) {
	n.topology(func() {
		delete(n.cut, pair{a, b})
		delete(n.cut, pair{b, a})
	})
}

// Partition lets hosts of different groups not reach each other; those in no group are one more. It
// replaces an earlier partition.
func (n *Network) Partition(groups ...[]netip.Addr) {
	n.topology(func() {
		clear(n.group)
		for i, g := range groups {
			for _, host := range g {
				n.group[host] = i + 1
			}
		}
	})
}

// Unplug cuts a host off from all others until Plug; its own processes go on.
func (n *Network) Unplug(host netip.Addr) { n.topology(func() { n.down[host] = true }) }

// Plug takes back Unplug.
func (n *Network) Plug(host netip.Addr) { n.topology(func() { delete(n.down, host) }) }

// Heal takes back every Cut, Partition and Unplug.
func (n *Network) Heal() {
	n.topology(func() {
		clear(n.cut)
		clear(n.group)
		clear(n.down)
	})
}

func (n *Network) topology(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	n.cuts.Store(int32(len(n.cut) + len(n.group) + len(n.down)))
	close(n.change)
	n.change = make(chan struct{})
}

// passes says whether p is open now; if not, the channel is closed when that may have changed.
func (n *Network) passes(p pair) (bool, <-chan struct{}) {
	if n.cuts.Load() == 0 {
		return true, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.from == p.to {
		return true, nil
	}
	shut := n.cut[p] || n.down[p.from] || n.down[p.to] || n.group[p.from] != n.group[p.to]
	return !shut, n.change
}

// Kill ends what runs on a host as the death of a process does: its listeners are closed, and its
// connections are reset.
func (n *Network) Kill(host netip.Addr) {
	n.mu.Lock()
	var listeners []*Listener
	for at, l := range n.listeners {
		if at.Addr() == host {
			listeners = append(listeners, l)
		}
	}
	n.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	n.reset(func(from, _ netip.Addr) bool { return from == host })
}

// Reset resets every connection between two hosts.
func (n *Network) Reset(a, b netip.Addr) {
	n.reset(func(from, to netip.Addr) bool { return from == a && to == b })
}

func (n *Network) reset(which func(from, to netip.Addr) bool) {
	n.mu.Lock()
	var hit []*Conn
	for c := range n.conns {
		if which(c.in.way.to, c.in.way.from) {
			hit = append(hit, c)
		}
	}
	n.mu.Unlock()
	for _, c := range hit {
		c.Reset()
	}
}

// chance returns the source of chance for the next connection from one host to another.
func (n *Network) chance(p pair) *rand.Rand {
	n.mu.Lock()
	n.dials[p]++
	nth := n.dials[p]
	n.mu.Unlock()
	return rand.New(rand.NewPCG(n.cfg.Seed, mix(p, nth)))
}

// mix makes a number of a direction and a count: FNV-1a, the same in every run.
func mix(p pair, nth uint64) uint64 {
	h := uint64(14695981039346656037)
	from, to := p.from.As16(), p.to.As16()
	for _, b := range append(from[:], to[:]...) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return (h ^ nth) * 1099511628211
}

// schedule gives n octets to the wire now and returns when they arrive, and whether that reset the
// connection instead.
func (n *Network) schedule(p pair, octets int, dice *rand.Rand) (time.Time, bool) {
	now := n.cfg.Clock.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.wire(p)
	at := now
	if w.Bandwidth > 0 {
		if w.busy.After(at) {
			at = w.busy
		}
		at = at.Add(time.Duration(float64(octets) / float64(w.Bandwidth) * float64(time.Second)))
		w.busy = at
	}
	at = at.Add(w.delay(dice)).Add(w.again(dice, max(minRTO, 2*w.Latency)))
	return at, w.Reset > 0 && dice.Float64() < w.Reset
}

// Times of retransmission: the least of a connection (Linux), and the first of a dial (RFC 6298).
const (
	minRTO     = 200 * time.Millisecond
	connectRTO = time.Second
	maxLosses  = 15 // in a row; tcp_retries2 of Linux
)

func (l Link) delay(dice *rand.Rand) time.Duration {
	if l.Jitter <= 0 {
		return l.Latency
	}
	return l.Latency + time.Duration(dice.Int64N(int64(l.Jitter)))
}

// again is the time that losses cost: the time-out rto for the first, twice that for the next.
func (l Link) again(dice *rand.Rand, rto time.Duration) (wait time.Duration) {
	for range maxLosses {
		if l.Loss <= 0 || dice.Float64() >= l.Loss {
			break
		}
		wait += rto
		rto *= 2
	}
	return wait
}
