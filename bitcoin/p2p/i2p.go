package p2p

import (
	"context"
	"net"
	"time"

	"github.com/tallypost/tallypost/bitcoin/p2p/proxy"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

const (
	maxUnusedSessions = 10 // of I2P that are kept for other tries
	i2pWait           = time.Second
	i2pWaitMost       = 5 * time.Minute
)

func (n *Node) newSession(keyFile string) *proxy.SAM {
	return &proxy.SAM{
		Router: n.cfg.Proxies[wire.NetI2P], KeyFile: keyFile, Dial: n.dialWithin, Infof: n.infof,
		Debugf: func(format string, args ...any) { n.debugIn("i2p", format, args...) },
	}
}

// dialI2P connects to a node of I2P: from our own destination if nodes can connect to it, else from one that
// is for this connection alone, so that nobody can tell that two are ours.
func (n *Node) dialI2P(ctx context.Context, at wire.AddrPort) (dialed, error) {
	s := n.i2p
	if s == nil {
		s = n.unusedSession()
	}
	conn, me, err := s.Connect(ctx, at)
	if err != nil {
		if n.i2p == nil {
			n.keepUnused(s)
		}
		return dialed{}, err
	}
	if n.i2p == nil {
		conn = &sessionConn{Conn: conn, session: s}
	}
	return dialed{conn, me.String()}, nil
}

func (n *Node) unusedSession() *proxy.SAM {
	n.mu.Lock()
	defer n.mu.Unlock()
	if k := len(n.unused); k > 0 {
		s := n.unused[k-1]
		n.unused = n.unused[:k-1]
		return s
	}
	return n.newSession("")
}

func (n *Node) keepUnused(s *proxy.SAM) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.unused) < maxUnusedSessions && !n.closed {
		n.unused = append(n.unused, s)
		return
	}
	s.Close()
}

// i2pLoop takes connections by I2P, one after the other.
func (n *Node) i2pLoop(ctx context.Context) {
	var known wire.AddrPort
	for wait := i2pWait; ctx.Err() == nil; {
		me, err := n.acceptI2P(ctx, &known)
		if err == nil {
			wait = i2pWait
			continue
		}
		if ctx.Err() == nil {
			n.debugIn("i2p", "Error accepting: %v", err)
		}
		if !me && known.Valid() {
			n.forgetLocal(known)
			known = wire.AddrPort{}
		}
		if !n.sleep(ctx, wait) {
			return
		}
		wait = min(wait+time.Second, i2pWaitMost)
	}
}

// acceptI2P waits for one connection; listening says whether we can be connected to.
func (n *Node) acceptI2P(ctx context.Context, known *wire.AddrPort) (listening bool, err error) {
	conn, me, err := n.i2p.Listen(ctx)
	if err != nil {
		return false, err
	}
	if *known != me {
		n.addLocal(me, localManual)
		*known = me
	}
	peer, err := n.i2p.Accept(ctx, conn)
	if err != nil {
		return true, err
	}
	n.takeConn(ctx, conn, peer, Listen{bound: me.String()})
	return true, nil
}

// sessionConn is a connection that has a session for itself.
type sessionConn struct {
	net.Conn
	session *proxy.SAM
}

// Close ends both.
func (c *sessionConn) Close() error {
	err := c.Conn.Close()
	c.session.Close()
	return err
}
