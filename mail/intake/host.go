package intake

import (
	"context"
	"errors"
	"net/netip"

	"github.com/tallypost/tallypost/internal/dns"
)

// pending is something that is being found out.
type pending[T any] struct {
	done  chan struct{}
	value T
}

// find starts to find something out. Whoever calls it must call get before he ends.
func find[T any](f func() T) *pending[T] {
	p := &pending[T]{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.value = f()
	}()
	return p
}

// get waits for the value.
func (p *pending[T]) get() T {
	<-p.done
	return p.value
}

// host is what can be known of a client by its address alone. It is found out once for a connection, while the
// client goes on.
type host struct {
	ip     netip.Addr
	cancel context.CancelFunc
	iprev  *pending[iprevResult]
	listed *pending[[]listing] // nil: no lists are asked
}

// meet begins to find out about a client.
func (in *Intake) meet(ctx context.Context, ip netip.Addr) *host {
	h := &host{ip: ip}
	ctx, h.cancel = context.WithTimeout(ctx, in.dnsTimeout)
	h.iprev = find(func() iprevResult { return in.checkIPRev(ctx, ip) })
	if in.lists.any() && isPublic(ip) {
		h.listed = find(func() []listing { return in.lists.ask(ctx, ip) })
	}
	return h
}

// listings waits for what the lists say.
func (h *host) listings() []listing {
	if h.listed == nil {
		return nil
	}
	return h.listed.get()
}

// close ends whatever still runs.
func (h *host) close() {
	h.cancel()
	h.iprev.get()
	h.listings()
}

// isPublic reports whether a list can have an opinion of an address.
func isPublic(ip netip.Addr) bool {
	return ip.IsGlobalUnicast() && !ip.IsPrivate()
}

type iprevResult struct {
	result string // RFC 8601, section 2.7.3
	name   string // confirmed; empty otherwise
}

// maxNames is how many names of an address are looked up forth, as RFC 7208 has it for "ptr".
const maxNames = 10

// checkIPRev looks the address up back and forth (RFC 8601, section 3).
func (in *Intake) checkIPRev(ctx context.Context, ip netip.Addr) iprevResult {
	if !ip.IsValid() {
		return iprevResult{result: "permerror"}
	}
	names, _, err := in.resolver.PTR(ctx, ip)
	if errors.Is(err, dns.ErrNotFound) {
		return iprevResult{result: "fail"}
	}
	if err != nil {
		return iprevResult{result: "temperror"}
	}
	result := "fail"
	for _, name := range names[:min(len(names), maxNames)] {
		addrs, _, err := in.resolver.Addrs(ctx, name)
		if err != nil {
			if !errors.Is(err, dns.ErrNotFound) {
				result = "temperror"
			}
			continue
		}
		for _, addr := range addrs {
			if addr.Unmap() == ip {
				return iprevResult{result: "pass", name: name}
			}
		}
	}
	return iprevResult{result: result}
}
