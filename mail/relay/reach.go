package relay

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// families remembers whether a version of IP leads anywhere from here. Many machines have an IPv6
// address and no way out: without this each message for a host that has both waits for a time-out
// first.
type families struct {
	mu    sync.Mutex
	state [2]family // guarded by mu; IPv6, IPv4
}

type family struct {
	fails     int // addresses in a row that did not answer
	downUntil time.Time
}

const (
	familyFails = 4
	familyRest  = 10 * time.Minute
)

func (f *families) of(ip netip.Addr) *family {
	if ip.Is4() {
		return &f.state[1]
	}
	return &f.state[0]
}

// down reports whether the version of IP of an address is to be avoided.
func (f *families) down(ip netip.Addr, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.of(ip).downUntil.After(now)
}

// learn notes what came of connecting to an address. It reports whether its version of IP has just
// been found to lead nowhere.
func (f *families) learn(ip netip.Addr, err error, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.of(ip)
	if err == nil || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
		*s = family{} // somebody answered
		return false
	}
	s.fails++
	if !noRoute(err) && s.fails < familyFails || s.downUntil.After(now) {
		return false
	}
	s.fails, s.downUntil = 0, now.Add(familyRest)
	return true
}

// noRoute reports whether an error is our own machine's word that it cannot send there at all.
func noRoute(err error) bool {
	for _, e := range []error{syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// memory is what is remembered of single addresses.
type memory struct {
	mu    sync.Mutex
	hosts map[string]hostMemory // guarded by mu; by target
}

type hostMemory struct {
	shunUntil  time.Time // it did not answer, or broke off: others are tried before it
	clearUntil time.Time // its TLS fails, and without is allowed
}

func (m hostMemory) until() time.Time {
	if m.clearUntil.After(m.shunUntil) {
		return m.clearUntil
	}
	return m.shunUntil
}

const (
	maxMemory  = 10_000
	shunTime   = 20 * time.Minute
	clearTime  = 10 * time.Minute // short: whoever can break a handshake should not gain much by it
	stallShuns = time.Hour        // of a connection that breaks once it carries a message
)

func (m *memory) get(t target) hostMemory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hosts[t.String()]
}

// update changes what is remembered of an address. Where there is too much, what has expired is
// forgotten, and then all.
func (m *memory) update(t target, now time.Time, change func(*hostMemory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := t.String()
	h, known := m.hosts[key]
	if change(&h); !h.until().After(now) {
		delete(m.hosts, key)
		return
	}
	if !known && len(m.hosts) >= maxMemory {
		for k, old := range m.hosts {
			if !old.until().After(now) {
				delete(m.hosts, k)
			}
		}
		if len(m.hosts) >= maxMemory {
			clear(m.hosts)
		}
	}
	m.hosts[key] = h
}

// forgive forgets that an address did not answer, if it was remembered.
func (m *memory) forgive(t target, now time.Time) {
	if m.get(t).shunUntil.IsZero() {
		return
	}
	m.update(t, now, func(h *hostMemory) { h.shunUntil = time.Time{} })
}

// ownAddresses knows which addresses lead back to this server.
type ownAddresses struct {
	listed []netip.AddrPort // not changed

	mu     sync.Mutex
	ifaces map[netip.Addr]bool // guarded by mu; of this machine
	read   time.Time
}

// ifacesAge is how long the list of this machine's addresses is believed.
const ifacesAge = time.Minute

// has reports whether we listen at an address.
func (o *ownAddresses) has(a netip.AddrPort, now time.Time) bool {
	for _, own := range o.listed {
		if own.Port() != a.Port() {
			continue
		}
		if own.Addr().Unmap() == a.Addr() || own.Addr().IsUnspecified() && o.local(a.Addr(), now) {
			return true
		}
	}
	return false
}

func (o *ownAddresses) local(ip netip.Addr, now time.Time) bool {
	if ip.IsLoopback() {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ifaces == nil || now.Sub(o.read) > ifacesAge {
		o.ifaces, o.read = make(map[netip.Addr]bool), now
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return false // then only the greeting can tell
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					o.ifaces[ip.Unmap()] = true
				}
			}
		}
	}
	return o.ifaces[ip]
}
