package main

import (
	"net"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// maxHeaders is how many headers a message carries (BIP 31, Core's MAX_HEADERS_RESULTS).
const maxHeaders = 2000

// peer is a node that has headers and nothing else.
type peer struct {
	l       net.Listener
	net     *bitcoin.Network
	headers []bitcoin.Header // behind that of the genesis block
	heights map[bitcoin.Hash]int
}

// newPeer makes a chain that ends now, and listens.
func newPeer(n int) (*peer, error) {
	p := &peer{net: bitcoin.Regtest(), heights: map[bitcoin.Hash]int{}}
	prev := p.net.Genesis.Hash()
	p.heights[prev] = 0
	start := uint32(time.Now().Unix()) - uint32(n)
	for i := range n {
		h := bitcoin.Header{Version: 0x20000000, PrevBlock: prev, MerkleRoot: bitcoin.Hash{byte(i), byte(i >> 8), byte(i >> 16)},
			Time: start + uint32(i), Bits: p.net.Genesis.Header.Bits}
		for !bitcoin.MeetsTarget(h.Hash(), h.Bits, p.net.PowLimit) {
			h.Nonce++
		}
		prev = h.Hash()
		p.heights[prev] = i + 1
		p.headers = append(p.headers, h)
	}
	var err error
	if p.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := p.l.Accept()
			if err != nil {
				return
			}
			go p.talk(c)
		}
	}()
	return p, nil
}

func (p *peer) addr() string { return p.l.Addr().String() }

func (p *peer) close() { p.l.Close() }

// talk answers for headers until the connection ends.
func (p *peer) talk(c net.Conn) {
	defer c.Close()
	conn := wire.NewConn(c, false, wire.Config{Magic: p.net.Magic})
	if conn.Handshake() != nil {
		return
	}
	for {
		f, err := conn.ReadFrame()
		if err != nil {
			return
		}
		m, err := wire.Parse(f.Command, f.Payload)
		if err != nil {
			return
		}
		for _, reply := range p.answer(m) {
			if _, err := conn.WriteMessage(reply); err != nil {
				return
			}
		}
	}
}

func (p *peer) answer(m wire.Message) []wire.Message {
	switch m := m.(type) {
	case *wire.Version:
		return []wire.Message{&wire.Version{Protocol: wire.ProtocolVersion, Time: time.Now().Unix(), Nonce: 1,
			Services: wire.ServiceNetwork | wire.ServiceWitness, UserAgent: "/footprint/",
			StartHeight: int32(len(p.headers))}, &wire.WTxIDRelay{}, &wire.VerAck{}}
	case *wire.Ping:
		return []wire.Message{&wire.Pong{Nonce: m.Nonce}}
	case *wire.GetHeaders:
		at := slices.IndexFunc(m.Hashes, func(h bitcoin.Hash) bool { _, ok := p.heights[h]; return ok })
		if at < 0 {
			return nil
		}
		from := p.heights[m.Hashes[at]]
		return []wire.Message{&wire.Headers{Headers: p.headers[from:min(from+maxHeaders, len(p.headers))]}}
	}
	return nil
}
