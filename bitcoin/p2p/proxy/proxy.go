// Package proxy reaches nodes by way of others: SOCKS5 servers, as that of Tor, and the router of I2P.
//
// A server is named by host and port, or by the path of a socket behind "unix:". What it sends is bounded,
// and waited for no longer than said. Which server is for which network is decided elsewhere.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Dial connects to a server; net.Dialer's DialContext is one.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// ErrUnreachable says that the server itself was not reached: nothing is known of the node behind it.
var ErrUnreachable = errors.New("the proxy cannot be reached")

// unixPrefix begins the name of a server at a socket in the file system.
const unixPrefix = "unix:"

// connect reaches a server.
func (d Dial) connect(ctx context.Context, server string) (net.Conn, error) {
	network := "tcp"
	addr, local := strings.CutPrefix(server, unixPrefix)
	if local {
		network = "unix"
	}
	c, err := d(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return c, nil
}

// within lets f use a connection for so long, and no longer than the context lasts. After an error the
// connection is closed.
func within(ctx context.Context, c net.Conn, d time.Duration, f func() error) error {
	c.SetDeadline(time.Now().Add(d))
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.Close()
		return err
	}
	return c.SetDeadline(time.Time{})
}

// readLine reads up to the next line feed and nothing behind it: that is for whoever gets the connection.
func readLine(r io.Reader, most int) (string, error) {
	var line []byte
	var b [1]byte
	for len(line) < most {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return "", fmt.Errorf("received too many bytes without a terminator (%d)", most)
}
