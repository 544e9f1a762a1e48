package jsonrpc

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// lateConn is a connection on which the server's end comes just before the deadline of a request is set.
type lateConn struct {
	net.Conn
	end   context.CancelFunc
	once  sync.Once
	woken chan struct{} // closed when the end has set its deadline
}

func (c *lateConn) SetReadDeadline(t time.Time) error {
	if time.Until(t) < time.Minute {
		defer close(c.woken)
		return c.Conn.SetReadDeadline(t)
	}
	c.once.Do(func() { c.end(); <-c.woken })
	return c.Conn.SetReadDeadline(t)
}

// lateListener makes one connection of this kind.
type lateListener struct {
	net.Listener
	end context.CancelFunc
}

func (l lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lateConn{Conn: c, end: l.end, woken: make(chan struct{})}, nil
}

// TestEndBeforeDeadline: a server that ends does not wait for a connection that says nothing, also where it
// ends while that connection begins to wait for a request.
func TestEndBeforeDeadline(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	s := NewServer(Config{Timeout: time.Hour}, nil)
	go func() { ended <- s.Serve(ctx, lateListener{l, cancel}) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the server waits for a request")
	}
}
