// Package tor asks a Tor that runs beside the node for an onion service by which other nodes reach it, and for
// the address of its SOCKS port (control-spec; Bitcoin Core torcontrol.cpp).
//
// The connection to the control port is kept: the service ends with it. Where Tor goes away it is tried again,
// at times that grow from a second to ten minutes.
package tor

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/durable"
)

// Times and sizes of the protocol and of Bitcoin Core.
const (
	retryFirst  = time.Second
	retryGrowth = 1.5
	retryMost   = 10 * time.Minute
	// commandTimeout is how long Tor has for a reply. It makes a service without waiting for the network.
	commandTimeout = time.Minute

	cookieSize = 32
	nonceSize  = 32
	serverKey  = "Tor safe cookie authentication server-to-controller hash"
	clientKey  = "Tor safe cookie authentication controller-to-server hash"

	// newKey asks for a service with a key of its own, of the kind whose name is its public key (version 3).
	newKey = "NEW:ED25519-V3"
	// DefaultSOCKS is where Tor takes connections if it does not say where.
	DefaultSOCKS = "127.0.0.1:9050"
)

// Config of a Controller.
type Config struct {
	Control  string // host:port of the control port
	Password string // empty: no password, or the cookie
	KeyFile  string // where the service's key is kept
	Target   string // host:port where the node takes the service's connections
	Port     uint16 // of the service, the network's own: another would tell it from other nodes'

	Clock clock.Clock
	Log   *slog.Logger // debugging lines are of the category tor
	// Dial connects to the control port; nil: net.Dialer's DialContext.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// OnSOCKS is told where Tor's SOCKS port is; nil: it is not asked for.
	OnSOCKS func(addr string)
	// OnService is told of the service while it is there, and OnEnd once it is not.
	OnService func(wire.AddrPort)
	OnEnd     func(wire.AddrPort)
}

// Controller keeps an onion service.
type Controller struct {
	cfg Config
	key string // as ADD_ONION takes it
}

// New returns a controller; Run runs it.
func New(cfg Config) *Controller {
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	return &Controller{cfg: cfg}
}

func (c *Controller) debugf(format string, args ...any) {
	c.cfg.Log.Debug(fmt.Sprintf(format, args...), "cat", "tor")
}

// Run keeps the service until ctx ends.
func (c *Controller) Run(ctx context.Context) {
	if b, err := os.ReadFile(c.cfg.KeyFile); err == nil {
		c.debugf("Reading cached private key from %s", c.cfg.KeyFile)
		c.key = strings.TrimSpace(string(b))
	}
	for wait := retryFirst; ; {
		connected, err := c.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if connected {
			wait = retryFirst
		}
		c.debugf("Not connected to Tor control port %s, retrying in %.2f s: %v", c.cfg.Control, wait.Seconds(), err)
		if clock.Sleep(ctx, c.cfg.Clock, wait) != nil {
			return
		}
		wait = min(time.Duration(float64(wait)*retryGrowth), retryMost)
	}
}

// session is one connection to the control port.
func (c *Controller) session(ctx context.Context) (connected bool, err error) {
	conn, err := c.cfg.Dial(ctx, "tcp", c.cfg.Control)
	if err != nil {
		return false, err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	c.debugf("Successfully connected!")
	s := session{c: c, conn: conn, in: bufio.NewReader(conn)}
	if err := s.authenticate(); err != nil {
		c.cfg.Log.Warn("tor: " + err.Error())
	} else {
		service, err := s.serve()
		if err != nil {
			c.cfg.Log.Warn("tor: " + err.Error())
		}
		if service.Valid() {
			c.cfg.OnService(service)
			defer c.cfg.OnEnd(service)
		}
	}
	// Nothing more is said; who hangs up ends the service. Without one nothing changes until Tor is started anew.
	_, err = io.Copy(io.Discard, s.in)
	return true, err
}

// session speaks with a Tor.
type session struct {
	c    *Controller
	conn net.Conn
	in   *bufio.Reader
}

// ask sends a command and returns the reply. A reply of failure is no error.
func (s *session) ask(command string) (reply, error) {
	// A deadline of the system's clock: the peer is a process, and the node's clock may stand still.
	if err := s.conn.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
		return reply{}, err
	}
	if _, err := io.WriteString(s.conn, command+"\r\n"); err != nil {
		return reply{}, err
	}
	r, err := readReply(s.in)
	if err != nil {
		return r, err
	}
	return r, s.conn.SetDeadline(time.Time{})
}

// authenticate proves to Tor that we may control it: by the password if there is one, else by nothing if that
// is enough, else by knowing its cookie.
func (s *session) authenticate() error {
	info, err := s.ask("PROTOCOLINFO 1")
	if err != nil {
		return err
	}
	if info.code != codeOK {
		return errors.New("Requesting protocol info failed")
	}
	methods, cookie := map[string]bool{}, ""
	for _, line := range info.lines {
		kind, rest, _ := strings.Cut(line, " ")
		switch m := mapping(rest); kind {
		case "AUTH":
			for name := range strings.SplitSeq(m["METHODS"], ",") {
				s.c.debugf("Supported authentication method: %s", name)
				methods[name] = true
			}
			cookie = m["COOKIEFILE"]
		case "VERSION":
			s.c.debugf("Connected to Tor version %s", m["Tor"])
		}
	}
	switch password := s.c.cfg.Password; {
	case password != "" && !methods["HASHEDPASSWORD"]:
		return errors.New("Password provided with -torpassword, but HASHEDPASSWORD authentication is not available")
	case password != "":
		s.c.debugf("Using HASHEDPASSWORD authentication")
		return s.prove(" " + quote(password))
	case methods["NULL"]:
		s.c.debugf("Using NULL authentication")
		return s.prove("")
	case methods["SAFECOOKIE"]:
		s.c.debugf("Using SAFECOOKIE authentication, reading cookie authentication from %s", cookie)
		return s.safeCookie(cookie)
	case methods["HASHEDPASSWORD"]:
		return errors.New("The only supported authentication mechanism left is password, but no password provided " +
			"with -torpassword")
	}
	return errors.New("No supported authentication method")
}

// quote writes a string as control-spec, section 2.1.1, has it. A line's end would begin another command.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r", `\r`, "\n", `\n`).Replace(s) + `"`
}

func (s *session) prove(proof string) error {
	r, err := s.ask("AUTHENTICATE" + proof)
	if err != nil {
		return err
	}
	if r.code != codeOK {
		return errors.New("Authentication failed")
	}
	s.c.debugf("Authentication successful")
	return nil
}

// safeCookie proves that we have read Tor's cookie without telling it to what may only look like Tor
// (control-spec, section 3.24).
func (s *session) safeCookie(file string) error {
	cookie, err := readCookie(file)
	if err != nil {
		return err
	}
	var nonce [nonceSize]byte
	rand.Read(nonce[:])
	r, err := s.ask("AUTHCHALLENGE SAFECOOKIE " + hex.EncodeToString(nonce[:]))
	if err != nil {
		return err
	}
	if r.code != codeOK {
		return errors.New("SAFECOOKIE authentication challenge failed")
	}
	kind, rest, _ := strings.Cut(r.lines[0], " ")
	if kind != "AUTHCHALLENGE" {
		return errors.New("Invalid reply to AUTHCHALLENGE")
	}
	m := mapping(rest)
	serverNonce, err1 := hex.DecodeString(m["SERVERNONCE"])
	serverHash, err2 := hex.DecodeString(m["SERVERHASH"])
	if errors.Join(err1, err2) != nil || len(serverHash) == 0 {
		return fmt.Errorf("Error parsing AUTHCHALLENGE parameters: %q", rest)
	}
	if len(serverNonce) != nonceSize {
		return errors.New("ServerNonce is not 32 bytes, as required by spec")
	}
	answer := func(key string) []byte {
		h := hmac.New(sha256.New, []byte(key))
		h.Write(cookie)
		h.Write(nonce[:])
		h.Write(serverNonce)
		return h.Sum(nil)
	}
	if !hmac.Equal(serverHash, answer(serverKey)) {
		return errors.New("ServerHash does not match expected ServerHash: what answers at the control port does " +
			"not know Tor's cookie")
	}
	return s.prove(" " + hex.EncodeToString(answer(clientKey)))
}

func readCookie(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("Authentication cookie %s could not be opened (check permissions)", file)
	}
	defer f.Close()
	cookie, err := io.ReadAll(io.LimitReader(f, cookieSize+1))
	if err != nil || len(cookie) != cookieSize {
		return nil, fmt.Errorf("Authentication cookie %s is not exactly %d bytes, as is required by the spec", file,
			cookieSize)
	}
	return cookie, nil
}

// serve has Tor make the service.
func (s *session) serve() (service wire.AddrPort, err error) {
	if s.c.cfg.OnSOCKS != nil {
		r, err := s.ask("GETINFO net/listeners/socks")
		if err != nil {
			return service, err
		}
		at := socksAddr(r)
		s.c.debugf("Configuring onion proxy for %s", at)
		s.c.cfg.OnSOCKS(at)
	}
	key := s.c.key
	if key == "" || strings.ContainsAny(key, " \r\n") {
		key = newKey
	}
	r, err := s.ask(fmt.Sprintf("ADD_ONION %s Port=%d,%s", key, s.c.cfg.Port, s.c.cfg.Target))
	switch {
	case err != nil:
		return service, err
	case r.code == codeUnrecognized:
		return service, errors.New("Add onion failed with unrecognized command (You probably need to upgrade Tor)")
	case r.code != codeOK:
		return service, fmt.Errorf("Add onion failed; error code %d", r.code)
	}
	s.c.debugf("ADD_ONION successful")
	var id string
	for _, line := range r.lines {
		m := mapping(line)
		if m["ServiceID"] != "" {
			id = m["ServiceID"]
		}
		if m["PrivateKey"] != "" {
			key = m["PrivateKey"]
		}
	}
	if service.Addr, err = wire.ParseAddr(id + ".onion"); err != nil || service.Net != wire.NetTorV3 {
		return wire.AddrPort{}, fmt.Errorf("Error parsing ADD_ONION parameters: %q", r.lines)
	}
	service.Port = s.c.cfg.Port
	s.c.cfg.Log.Info(fmt.Sprintf("Got tor service ID %s, advertising service %s", id, service))
	if s.c.key = key; key == newKey {
		return service, nil
	}
	if err := durable.ReplaceFile(s.c.cfg.KeyFile, []byte(key)); err != nil {
		return service, fmt.Errorf("Error writing service private key to %s: %w", s.c.cfg.KeyFile, err)
	}
	s.c.debugf("Cached service private key to %s", s.c.cfg.KeyFile)
	return service, nil
}

// socksAddr returns where Tor's SOCKS port is, one of loopback if there is any, or where it is by default.
func socksAddr(r reply) string {
	at := ""
	for _, line := range r.lines {
		list, ok := strings.CutPrefix(line, "net/listeners/socks=")
		for addr := range strings.FieldsSeq(list) {
			if addr = strings.Trim(addr, `"'`); !ok || r.code != codeOK {
				continue
			}
			if _, _, err := net.SplitHostPort(addr); err != nil {
				continue // a socket of Unix
			}
			if at = addr; strings.HasPrefix(addr, "127.0.0.1:") {
				return at
			}
		}
	}
	if at == "" {
		return DefaultSOCKS
	}
	return at
}
