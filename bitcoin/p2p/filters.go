package p2p

import (
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// filterRange checks a request for block filters (BIP 157) and returns the block that it ends with. Who asks
// for what we do not offer is dropped.
func (n *Node) filterRange(p *Peer, kind uint8, start uint32, stop bitcoin.Hash, most int) (chain.Entry, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	refuse := func(format string, args ...any) (chain.Entry, bool) {
		n.debugf(format+", disconnecting peer=%d", append(args, p.id)...)
		p.close()
		return chain.Entry{}, false
	}
	if kind != wire.BasicFilter || n.cfg.Filters == nil || !n.services(p).Has(wire.ServiceCompactFilters) {
		return refuse("requested unsupported block filter type: %d", kind)
	}
	e, ok := n.chain.Lookup(stop)
	if !ok || !n.mayServe(e) {
		return refuse("requested invalid block hash: %s", stop)
	}
	if int64(start) > int64(e.Height) {
		return refuse("sent invalid getcfilters/getcfheaders with start height %d and stop height %d",
			start, e.Height)
	}
	if int64(e.Height)-int64(start) >= int64(most) {
		return refuse("requested too many cfilters/cfheaders: %d / %d", int64(e.Height)-int64(start)+1, most)
	}
	return e, true
}

func (n *Node) onGetCFilters(p *Peer, m *wire.GetCFilters) {
	stop, ok := n.filterRange(p, m.Type, m.Start, m.Stop, wire.MaxCFilters)
	if !ok {
		return
	}
	for _, e := range n.chain.Path(stop.Hash, bitcoin.Height(m.Start), wire.MaxCFilters) {
		filter, ok := n.cfg.Filters.Filter(e.Hash)
		if !ok || !p.waitRoom() {
			return
		}
		p.push(&wire.CFilter{Type: m.Type, Block: e.Hash, Filter: filter})
	}
}

func (n *Node) onGetCFHeaders(p *Peer, m *wire.GetCFHeaders) {
	stop, ok := n.filterRange(p, m.Type, m.Start, m.Stop, wire.MaxCFHeaders)
	if !ok {
		return
	}
	answer := &wire.CFHeaders{Type: m.Type, Stop: m.Stop}
	if m.Start > 0 {
		prev, ok := n.chain.Ancestor(stop.Hash, bitcoin.Height(m.Start)-1)
		if !ok {
			return
		}
		if answer.PrevHeader, ok = n.cfg.Filters.FilterHeader(prev.Hash); !ok {
			return
		}
	}
	for _, e := range n.chain.Path(stop.Hash, bitcoin.Height(m.Start), wire.MaxCFHeaders) {
		h, ok := n.cfg.Filters.FilterHash(e.Hash)
		if !ok {
			return
		}
		answer.Hashes = append(answer.Hashes, h)
	}
	p.push(answer)
}

func (n *Node) onGetCFCheckpt(p *Peer, m *wire.GetCFCheckpt) {
	stop, ok := n.filterRange(p, m.Type, 0, m.Stop, 1<<31-1)
	if !ok {
		return
	}
	answer := &wire.CFCheckpt{Type: m.Type, Stop: m.Stop}
	for h := bitcoin.Height(wire.CFCheckInterval); h <= stop.Height; h += wire.CFCheckInterval {
		e, ok := n.chain.Ancestor(stop.Hash, h)
		if !ok {
			return
		}
		header, ok := n.cfg.Filters.FilterHeader(e.Hash)
		if !ok {
			return
		}
		answer.Headers = append(answer.Headers, header)
	}
	p.push(answer)
}
