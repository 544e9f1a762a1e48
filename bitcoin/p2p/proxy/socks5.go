package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// socksTimeout is how long a SOCKS5 server may take for all of it (Core's g_socks5_recv_timeout).
const socksTimeout = 20 * time.Second

// SOCKS5 is a server that connects to where it is told (RFC 1928).
type SOCKS5 struct {
	Server string
	Dial   Dial
	// User and Password are sent where User is set. Tor takes each pair to another circuit, so that the
	// exit of one connection knows nothing of another (stream isolation).
	User, Password string
}

// Refused is the reply of a server that could not connect.
type Refused byte

// Error says what the reply means: RFC 1928, section 6, and Tor's extended errors.
func (r Refused) Error() string {
	switch r {
	case 1:
		return "general failure"
	case 2:
		return "connection not allowed"
	case 3:
		return "network unreachable"
	case 4:
		return "host unreachable"
	case 5:
		return "connection refused"
	case 6:
		return "TTL expired"
	case 7:
		return "protocol error"
	case 8:
		return "address type not supported"
	case 0xf0:
		return "onion service descriptor can not be found"
	case 0xf1:
		return "onion service descriptor is invalid"
	case 0xf2:
		return "onion service introduction failed"
	case 0xf3:
		return "onion service rendezvous failed"
	case 0xf4:
		return "onion service missing client authorization"
	case 0xf5:
		return "onion service wrong client authorization"
	case 0xf6:
		return "onion service invalid address"
	case 0xf7:
		return "onion service introduction timed out"
	}
	return fmt.Sprintf("unknown (0x%02x)", byte(r))
}

// The numbers of RFC 1928 and RFC 1929.
const (
	socksVersion  = 5
	authVersion   = 1
	methodNone    = 0
	methodUser    = 2
	commandDial   = 1
	typeIPv4      = 1
	typeName      = 3
	typeIPv6      = 4
	maxNameOctets = 255
)

// Connect has the server connect to a host. An address goes as a name too, for all servers understand that.
func (s SOCKS5) Connect(ctx context.Context, host string, port uint16) (net.Conn, error) {
	if len(host) > maxNameOctets {
		return nil, errors.New("Hostname too long")
	}
	c, err := s.Dial.connect(ctx, s.Server)
	if err != nil {
		return nil, err
	}
	err = within(ctx, c, socksTimeout, func() error {
		if err := s.greet(c); err != nil {
			return err
		}
		return request(c, host, port)
	})
	if err != nil {
		return nil, fmt.Errorf("Socks5() connect to %s:%d failed: %w", host, port, err)
	}
	return c, nil
}

// greet agrees on how to authenticate and does so.
func (s SOCKS5) greet(c io.ReadWriter) error {
	hello := []byte{socksVersion, 1, methodNone}
	if s.User != "" {
		hello = []byte{socksVersion, 2, methodNone, methodUser}
	}
	var answer [2]byte
	if err := exchange(c, hello, answer[:]); err != nil {
		return err
	}
	switch {
	case answer[0] != socksVersion:
		return errors.New("Proxy failed to initialize")
	case answer[1] == methodNone:
		return nil
	case answer[1] != methodUser || s.User == "":
		return fmt.Errorf("Proxy requested wrong authentication method %02x", answer[1])
	case len(s.User) > maxNameOctets || len(s.Password) > maxNameOctets:
		return errors.New("Proxy username or password too long")
	}
	auth := append([]byte{authVersion, byte(len(s.User))}, s.User...)
	auth = append(append(auth, byte(len(s.Password))), s.Password...)
	if err := exchange(c, auth, answer[:]); err != nil {
		return err
	}
	if answer != [2]byte{authVersion, 0} {
		return errors.New("Proxy authentication unsuccessful")
	}
	return nil
}

// request asks for the connection, and reads over the address by which the server made it.
func request(c io.ReadWriter, host string, port uint16) error {
	ask := append([]byte{socksVersion, commandDial, 0, typeName, byte(len(host))}, host...)
	ask = append(ask, byte(port>>8), byte(port))
	var answer [4]byte
	if err := exchange(c, ask, answer[:]); err != nil {
		return err
	}
	switch {
	case answer[0] != socksVersion:
		return errors.New("Proxy failed to accept request")
	case answer[1] != 0:
		return Refused(answer[1])
	case answer[2] != 0:
		return errors.New("malformed proxy response")
	}
	size := 0
	switch answer[3] {
	case typeIPv4:
		size = 4
	case typeIPv6:
		size = 16
	case typeName:
		var n [1]byte
		if _, err := io.ReadFull(c, n[:]); err != nil {
			return err
		}
		size = int(n[0])
	default:
		return errors.New("malformed proxy response")
	}
	var bound [maxNameOctets + 2]byte
	_, err := io.ReadFull(c, bound[:size+2])
	return err
}

func exchange(c io.ReadWriter, ask, answer []byte) error {
	if _, err := c.Write(ask); err != nil {
		return err
	}
	_, err := io.ReadFull(c, answer)
	return err
}
