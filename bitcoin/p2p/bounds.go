package p2p

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/tallypost/tallypost/bitcoin"
)

// budget is the memory that payloads under way may take, of all peers together.
type budget struct {
	mu   sync.Mutex
	left int64
}

func newBudget(octets int64) *budget { return &budget{left: octets} }

var errBudget = errors.New("no memory left for messages of peers")

// reserve takes memory for a payload, before it is allocated.
func (b *budget) reserve(octets int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if int64(octets) > b.left {
		return errBudget
	}
	b.left -= int64(octets)
	return nil
}

func (b *budget) release(octets int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += int64(octets)
}

// recentSet remembers the last hashes that were put into it: at least half of its size, at most all.
type recentSet struct {
	most     int
	now, old map[bitcoin.Hash]struct{}
}

func newRecentSet(most int) *recentSet { return &recentSet{most: most} }

func (s *recentSet) add(h bitcoin.Hash) {
	if s.now == nil || len(s.now) >= s.most/2 {
		s.old, s.now = s.now, map[bitcoin.Hash]struct{}{}
	}
	s.now[h] = struct{}{}
}

func (s *recentSet) has(h bitcoin.Hash) bool {
	if _, ok := s.now[h]; ok {
		return true
	}
	_, ok := s.old[h]
	return ok
}

func (s *recentSet) reset() { s.now, s.old = nil, nil }

// countedConn counts the octets that pass a connection, the opening of an encrypted one included.
type countedConn struct {
	net.Conn
	n              *Node
	received, sent atomic.Int64
	// When octets last came and went, by our clock, in seconds since 1970; 0: never.
	lastRecv, lastSend atomic.Int64
}

func (c *countedConn) Read(b []byte) (int, error) {
	k, err := c.Conn.Read(b)
	if k > 0 {
		c.lastRecv.Store(c.n.clock.Now().Unix())
	}
	c.received.Add(int64(k))
	c.n.received.Add(int64(k))
	return k, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	k, err := c.Conn.Write(b)
	now := c.n.clock.Now()
	if k > 0 {
		c.lastSend.Store(now.Unix())
	}
	c.sent.Add(int64(k))
	c.n.sent.Add(int64(k))
	c.n.upload.add(k, now)
	return k, err
}
