package proxy

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

const (
	samPort = 0 // SAM 3.1 knows no ports: all are this one
	// samTimeout is how long the router may take: to find a destination it asks its network.
	samTimeout = 3 * time.Minute
	maxSAMLine = 65536
	maxSAMKey  = 16384 // octets of a key file; those of today are of 679
)

// i2pBase64 is base64 as I2P writes it.
var i2pBase64 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~")

// ErrI2PPort says that a node is at a port: the router does not know any.
var ErrI2PPort = errors.New("connection refused due to arbitrary port")

// SAM is a session with an I2P router, by its protocol SAM 3.1. It begins when it is first needed, and
// again after the router dropped it. It may be used by many goroutines.
type SAM struct {
	Router  string
	KeyFile string // of our own destination, made where absent; empty: each session has a new one
	Dial    Dial
	Debugf  func(format string, args ...any)
	Infof   func(format string, args ...any)

	mu      sync.Mutex // guards what follows; held while the router is asked for a session
	control net.Conn   // the session lasts as long as this does
	id      string
	me      wire.AddrPort
}

// samReply is a line that the router sent.
type samReply struct {
	asked, full string
	keys        map[string]string
}

func (r samReply) get(key string) (string, error) {
	if v, ok := r.keys[key]; ok {
		return v, nil
	}
	return "", fmt.Errorf("Missing %s= in the reply to \"%s\": \"%s\"", key, r.asked, r.full)
}

// ask sends a line and reads the reply.
func ask(ctx context.Context, c net.Conn, line string) (r samReply, err error) {
	r = samReply{asked: line, keys: map[string]string{}}
	if strings.HasPrefix(line, "SESSION CREATE") {
		r.asked = "SESSION CREATE ..." // our private key is in it
	}
	err = within(ctx, c, samTimeout, func() error {
		if _, err := c.Write([]byte(line + "\n")); err != nil {
			return err
		}
		r.full, err = readLine(c, maxSAMLine)
		return err
	})
	for _, word := range strings.Split(r.full, " ") {
		if key, value, ok := strings.Cut(word, "="); ok {
			r.keys[key] = value
		}
	}
	return r, err
}

// mustOK is ask where only one result is good.
func mustOK(ctx context.Context, c net.Conn, line string) (samReply, error) {
	r, err := ask(ctx, c, line)
	if err != nil {
		return r, err
	}
	if result, err := r.get("RESULT"); err != nil || result != "OK" {
		c.Close()
		return r, fmt.Errorf("Unexpected reply to \"%s\": \"%s\"", r.asked, r.full)
	}
	return r, nil
}

// hello opens a connection to the router.
func (s *SAM) hello(ctx context.Context) (net.Conn, error) {
	c, err := s.Dial.connect(ctx, s.Router)
	if err != nil {
		return nil, fmt.Errorf("Cannot connect to %s: %w", s.Router, ErrUnreachable)
	}
	if _, err := mustOK(ctx, c, "HELLO VERSION MIN=3.1 MAX=3.1"); err != nil {
		return nil, err
	}
	return c, nil
}

// alive reports whether the other end still holds a connection on which it has nothing to say.
func alive(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	defer c.SetReadDeadline(time.Time{})
	_, err := c.Read(make([]byte, 1))
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// session begins a session unless there is one, and returns its name and our address in it.
func (s *SAM) session(ctx context.Context) (string, wire.AddrPort, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.control != nil && alive(s.control) {
		return s.id, s.me, nil
	}
	s.end()
	kind := "persistent"
	if s.KeyFile == "" {
		kind = "transient"
	}
	var random [5]byte
	rand.Read(random[:])
	id := hex.EncodeToString(random[:])
	s.Debugf("Creating %s SAM session %s with %s", kind, id, s.Router)
	c, err := s.hello(ctx)
	if err != nil {
		return "", wire.AddrPort{}, err
	}
	key, err := s.create(ctx, c, id)
	if err == nil {
		s.me, err = ownAddr(key)
	}
	if err != nil {
		c.Close()
		return "", wire.AddrPort{}, err
	}
	s.control, s.id = c, id
	s.Infof("%s SAM session %s created, my address=%s", strings.ToUpper(kind[:1])+kind[1:], id, s.me)
	return s.id, s.me, nil
}

// create has the router begin a session, and returns the private key of our destination.
func (s *SAM) create(ctx context.Context, c net.Conn, id string) ([]byte, error) {
	// Signatures of type 7 are Ed25519; types 4 and 0 of encryption are what routers of today speak.
	const style = "SESSION CREATE STYLE=STREAM ID=%s DESTINATION=%s i2cp.leaseSetEncType=4,0 " +
		"inbound.quantity=%d outbound.quantity=%d"
	if s.KeyFile == "" {
		r, err := mustOK(ctx, c, fmt.Sprintf(style, id, "TRANSIENT SIGNATURE_TYPE=7", 1, 1))
		if err != nil {
			return nil, err
		}
		return r.key("DESTINATION")
	}
	key, err := s.ownKey(ctx, c)
	if err != nil {
		return nil, err
	}
	_, err = mustOK(ctx, c, fmt.Sprintf(style, id, i2pBase64.EncodeToString(key), 3, 3))
	return key, err
}

func (r samReply) key(name string) ([]byte, error) {
	text, err := r.get(name)
	if err != nil {
		return nil, err
	}
	key, err := i2pBase64.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("Cannot decode Base64: %q", text)
	}
	return key, nil
}

// ownKey reads our private key, or has the router make one and keeps it.
func (s *SAM) ownKey(ctx context.Context, c net.Conn) ([]byte, error) {
	key, err := os.ReadFile(s.KeyFile)
	if err == nil && len(key) > maxSAMKey {
		return nil, fmt.Errorf("I2P private key %s: %d octets are too many", s.KeyFile, len(key))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	r, err := ask(ctx, c, "DEST GENERATE SIGNATURE_TYPE=7")
	if err != nil {
		return nil, err
	}
	if key, err = r.key("PRIV"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.KeyFile, key, 0o600); err != nil {
		return nil, fmt.Errorf("Cannot save I2P private key to %q: %w", s.KeyFile, err)
	}
	return key, nil
}

// ownAddr returns the address of a private key: it begins with the destination, 387 octets and a
// certificate whose length is in the last two of them ("Common structures", Destination).
func ownAddr(key []byte) (wire.AddrPort, error) {
	const base, certLength = 387, 385
	if len(key) < base {
		return wire.AddrPort{}, fmt.Errorf("The private key is too short (%d < %d)", len(key), base)
	}
	size := base + int(binary.BigEndian.Uint16(key[certLength:]))
	if size > len(key) {
		return wire.AddrPort{}, fmt.Errorf("Certificate length (%d) designates that the private key should "+
			"be %d bytes, but it is only %d bytes", size-base, size, len(key))
	}
	return destAddr(key[:size]), nil
}

// destAddr is the address of a destination: its hash.
func destAddr(dest []byte) wire.AddrPort {
	h := sha256.Sum256(dest)
	a, _ := wire.NewAddr(wire.NetI2P, h[:])
	return wire.AddrPort{Addr: a, Port: samPort}
}

// Connect connects to a node, and returns what we are called there. An error is ErrUnreachable where the
// router is at fault, so that nothing is known of the node.
func (s *SAM) Connect(ctx context.Context, to wire.AddrPort) (c net.Conn, me wire.AddrPort, err error) {
	if to.Port != samPort {
		return nil, me, fmt.Errorf("Error connecting to %s, %w %d", to, ErrI2PPort, to.Port)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("Error connecting to %s: %w", to, err)
			s.check()
		}
	}()
	id, me, err := s.session(ctx)
	if err != nil {
		return nil, me, unreachable(err)
	}
	if c, err = s.hello(ctx); err != nil {
		return nil, me, unreachable(err)
	}
	r, err := mustOK(ctx, c, "NAMING LOOKUP NAME="+to.Addr.String())
	if err != nil {
		return nil, me, unreachable(err)
	}
	dest, err := r.get("VALUE")
	if err == nil {
		r, err = ask(ctx, c, fmt.Sprintf("STREAM CONNECT ID=%s DESTINATION=%s SILENT=false", id, dest))
	}
	if err != nil {
		c.Close()
		return nil, me, unreachable(err)
	}
	if err := s.result(r); err != nil {
		c.Close()
		return nil, me, err
	}
	return c, me, nil
}

func unreachable(err error) error {
	if errors.Is(err, ErrUnreachable) {
		return err
	}
	return samFault{err}
}

// samFault is a failure of the router in the router's words.
type samFault struct{ error }

func (f samFault) Is(target error) bool { return target == ErrUnreachable }

// result judges the reply to a stream command.
func (s *SAM) result(r samReply) error {
	switch result, err := r.get("RESULT"); {
	case err != nil:
		return unreachable(err)
	case result == "OK":
		return nil
	case result == "INVALID_ID":
		s.Close() // a new session the next time
		return unreachable(errors.New("Invalid session id"))
	case result == "CANT_REACH_PEER", result == "TIMEOUT":
		return fmt.Errorf("%q", r.full)
	}
	return unreachable(fmt.Errorf("%q", r.full))
}

// Listen prepares to be connected to, and returns our address. Accept waits.
func (s *SAM) Listen(ctx context.Context) (net.Conn, wire.AddrPort, error) {
	id, me, err := s.session(ctx)
	if err != nil {
		return nil, me, err
	}
	c, err := s.hello(ctx)
	if err != nil {
		s.check()
		return nil, me, err
	}
	r, err := ask(ctx, c, fmt.Sprintf("STREAM ACCEPT ID=%s SILENT=false", id))
	if err == nil {
		err = s.result(r)
	}
	if err != nil {
		c.Close()
		s.check()
		return nil, me, err
	}
	return c, me, nil
}

// Accept waits until a node connects by a connection of Listen, which is its connection then, and returns
// where it is. After an error the connection is closed.
func (s *SAM) Accept(ctx context.Context, c net.Conn) (wire.AddrPort, error) {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	line, err := readLine(c, maxSAMLine)
	if !stop() {
		err = ctx.Err()
	}
	var dest []byte
	if err == nil {
		dest, err = i2pBase64.DecodeString(line)
	}
	if err != nil {
		c.Close()
		if strings.Contains(line, "RESULT=I2P_ERROR") {
			s.Close()
			return wire.AddrPort{}, fmt.Errorf("unexpected reply that hints the session is unusable: %s", line)
		}
		s.check()
		return wire.AddrPort{}, err
	}
	return destAddr(dest), nil
}

// check ends a session whose connection is gone.
func (s *SAM) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.control != nil && !alive(s.control) {
		s.Debugf("Control socket error: closed")
		s.end()
	}
}

// Close ends the session.
func (s *SAM) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

// end forgets the session; with mu held.
func (s *SAM) end() {
	if s.control != nil {
		s.Infof("Destroying SAM session %s", s.id)
		s.control.Close()
	}
	s.control, s.id = nil, ""
}
