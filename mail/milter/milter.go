// Package milter asks a filter in another program what it thinks of a message: a virus scanner, rspamd,
// OpenDKIM.
//
// It is the mail server's side of Sendmail's milter protocol, version 6, as libmilter 1.0 and Postfix
// speak it, over TCP or a Unix socket. A Session is one conversation, for one SMTP connection; each step of
// that is shown to the filter as it happens, unless the filter said at the beginning that it is not
// interested, and each may bring an Answer. At the end of a message the filter may ask for changes of
// its header.
//
// The package does not decide what becomes of a message or what to do without an answer, does not
// change anything itself, and does not offer to change the envelope or the body.
package milter

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Config says where a filter is.
type Config struct {
	Network string // "tcp" or "unix"
	Address string // "127.0.0.1:8891", "/run/opendkim/opendkim.sock"
	// Timeout is how long the filter may take to be connected to, and for each answer. 0: 30 seconds.
	Timeout time.Duration
	// EndTimeout is how long it may take at the end of a message, where it does its work; each time it
	// says that it is still working that begins anew. 0: 5 minutes.
	EndTimeout time.Duration
	// Dial opens connections. nil: net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// maxChunk is the most of a body that goes into one packet.
const maxChunk = 65535

// Session is one conversation with a filter. It is for one goroutine; after an error it can only be
// closed.
//
//	Open Connect Helo ( Mail Rcpt* Data Header* EndHeader Body* End | Abort )* Close
type Session struct {
	cfg  Config
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	stop func() bool // the watch over Open's context

	version  uint32
	actions  uint32 // that it may ask for
	protocol uint32 // what it does not want to see or to answer
	skipBody bool   // it has seen enough of this message's
	open     bool   // a message is under way
	scratch  []byte
}

// Open connects to a filter and agrees with it on what is to be shown. The end of ctx ends the session.
func Open(ctx context.Context, cfg Config) (*Session, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.EndTimeout == 0 {
		cfg.EndTimeout = 5 * time.Minute
	}
	dial := cfg.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	dialing, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	conn, err := dial(dialing, cfg.Network, cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	s := &Session{cfg: cfg, conn: conn, r: bufio.NewReader(conn), w: bufio.NewWriterSize(conn, 32<<10)}
	s.stop = context.AfterFunc(ctx, func() { conn.Close() })
	if err := s.negotiate(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// negotiate tells the filter what we can do and hears what it wants (SMFIC_OPTNEG).
func (s *Session) negotiate() error {
	b := binary.BigEndian.AppendUint32(nil, protocolVersion)
	b = binary.BigEndian.AppendUint32(b, offeredActions)
	b = binary.BigEndian.AppendUint32(b, offeredProtocol)
	if err := s.send('O', b); err != nil {
		return err
	}
	code, data, err := s.read(s.cfg.Timeout)
	if err != nil {
		return err
	}
	if code != 'O' || len(data) < 12 {
		return fmt.Errorf("filter: answered the greeting with %q and %d octets", code, len(data))
	}
	s.version = binary.BigEndian.Uint32(data)
	if s.version < 2 || s.version > protocolVersion {
		return fmt.Errorf("filter: speaks version %d, want 2 to %d", s.version, protocolVersion)
	}
	// Some ask for everything there is, whatever was offered; what they get is what was.
	s.actions = binary.BigEndian.Uint32(data[4:]) & offeredActions
	s.protocol = binary.BigEndian.Uint32(data[8:]) & offeredProtocol
	return nil
}

// ChangesHeader reports whether the filter may want to change or delete fields of a message.
func (s *Session) ChangesHeader() bool { return s.actions&actChangeHeaders != 0 }

// Macro is a name and a value that a filter can look up: "{auth_authen}", "i".
type Macro struct{ Name, Value string }

// Connect tells who has connected. The name is the one that was looked up; one that was not is the
// address in brackets.
func (s *Session) Connect(name string, from netip.AddrPort, macros ...Macro) (Answer, error) {
	if err := s.macros('C', macros); err != nil {
		return Answer{}, err
	}
	b := appendString(s.scratch[:0], name)
	switch ip := from.Addr().Unmap().WithZone(""); {
	case !ip.IsValid():
		b = append(b, 'U')
	case ip.Is4():
		b = binary.BigEndian.AppendUint16(append(b, '4'), from.Port())
		b = appendString(b, ip.String())
	default:
		b = binary.BigEndian.AppendUint16(append(b, '6'), from.Port())
		b = appendString(b, ip.String())
	}
	return s.ask('C', b, noConnect, noReplyConnect)
}

// Helo tells what the client calls itself.
func (s *Session) Helo(name string, macros ...Macro) (Answer, error) {
	if err := s.macros('H', macros); err != nil {
		return Answer{}, err
	}
	return s.ask('H', appendString(s.scratch[:0], name), noHelo, noReplyHelo)
}

// Mail begins a message: its reverse path without brackets, and the parameters of MAIL.
func (s *Session) Mail(from string, params []string, macros ...Macro) (Answer, error) {
	s.open, s.skipBody = true, false
	return s.path('M', from, params, macros, noMail, noReplyMail)
}

// Rcpt tells of a recipient. An answer that refuses is about this one only.
func (s *Session) Rcpt(to string, params []string, macros ...Macro) (Answer, error) {
	return s.path('R', to, params, macros, noRcpt, noReplyRcpt)
}

func (s *Session) path(cmd byte, path string, params []string, macros []Macro,
	skip, mute uint32) (Answer, error) {
	if err := s.macros(cmd, macros); err != nil {
		return Answer{}, err
	}
	b := appendString(s.scratch[:0], "<"+path+">")
	for _, p := range params {
		b = appendString(b, p)
	}
	return s.ask(cmd, b, skip, mute)
}

// Data tells that the message follows.
func (s *Session) Data(macros ...Macro) (Answer, error) {
	if s.version < 4 {
		return Answer{}, nil
	}
	if err := s.macros('T', macros); err != nil {
		return Answer{}, err
	}
	return s.ask('T', nil, noData, noReplyData)
}

// Header shows a field: its name, and what follows the colon, folded as it was received.
func (s *Session) Header(name string, value []byte) (Answer, error) {
	b := appendString(s.scratch[:0], name)
	v := strings.TrimSuffix(strings.TrimSuffix(string(value), "\n"), "\r")
	if s.protocol&leadingSpace == 0 {
		v = strings.TrimPrefix(v, " ")
	}
	b = appendString(b, strings.ReplaceAll(v, "\r\n", "\n"))
	return s.ask('L', b, noHeaders, noReplyHeader)
}

// EndHeader tells that the header has ended.
func (s *Session) EndHeader(macros ...Macro) (Answer, error) {
	if err := s.macros('N', macros); err != nil {
		return Answer{}, err
	}
	return s.ask('N', nil, noEndHeader, noReplyEndHeader)
}

// Body shows a piece of the body.
func (s *Session) Body(p []byte) (Answer, error) {
	for len(p) > 0 && !s.skipBody {
		n := min(len(p), maxChunk)
		a, err := s.ask('B', p[:n], noBody, noReplyBody)
		if err != nil || a.Verdict != Continue {
			return a, err
		}
		p = p[n:]
	}
	return Answer{}, nil
}

// End tells that the message has ended, and returns what the filter wants to be changed, and its last
// word.
func (s *Session) End(macros ...Macro) (Answer, []Change, error) {
	s.open = false
	if err := s.macros('E', macros); err != nil {
		return Answer{}, nil, err
	}
	if err := s.send('E', nil); err != nil {
		return Answer{}, nil, err
	}
	var changes []Change
	size := 0
	for {
		code, data, err := s.read(s.cfg.EndTimeout)
		if err != nil {
			return Answer{}, nil, err
		}
		c, isChange, err := parseChange(code, data, s.protocol&leadingSpace != 0)
		if err != nil {
			return Answer{}, nil, err
		}
		if !isChange {
			a, err := parseAnswer(code, data)
			return a, changes, err
		}
		if size += len(data); len(changes) == maxChanges || size > maxChangeBytes {
			return Answer{}, nil, errors.New("filter: asks for too many changes")
		}
		changes = append(changes, c)
	}
}

// Abort gives a message up that was begun, if one was.
func (s *Session) Abort() error {
	if !s.open {
		return nil
	}
	s.open = false
	if err := s.send('A', nil); err != nil {
		return err
	}
	return s.flush()
}

// Close ends the conversation.
func (s *Session) Close() error {
	s.stop()
	s.conn.SetDeadline(time.Now().Add(time.Second)) // for a last word
	if s.version != 0 {
		if s.open {
			s.send('A', nil)
		}
		s.send('Q', nil)
		s.w.Flush()
	}
	return s.conn.Close()
}

// macros sends the macros that belong to the next command.
func (s *Session) macros(cmd byte, list []Macro) error {
	if len(list) == 0 {
		return nil
	}
	b := append(s.scratch[:0], cmd)
	for _, m := range list {
		if m.Value != "" {
			b = appendString(appendString(b, m.Name), m.Value)
		}
	}
	s.scratch = b
	return s.send('D', b)
}

// ask sends a command, unless the filter does not want to see it, and returns the answer, unless it will not
// give one.
func (s *Session) ask(cmd byte, data []byte, skip, mute uint32) (Answer, error) {
	if cmd != 'B' && data != nil {
		s.scratch = data
	}
	if s.protocol&skip != 0 {
		return Answer{}, nil
	}
	if err := s.send(cmd, data); err != nil {
		return Answer{}, err
	}
	if s.protocol&mute != 0 {
		return Answer{}, nil
	}
	code, data, err := s.read(s.cfg.Timeout)
	if err != nil {
		return Answer{}, err
	}
	a, err := parseAnswer(code, data)
	if err == nil && code == 's' && cmd == 'B' {
		s.skipBody = true
	}
	if cmd != 'R' && cmd != 'C' && cmd != 'H' && a.Verdict != Continue {
		s.open = false
	}
	return a, err
}

// appendString appends a string and the NUL that ends it. A NUL inside would end it early.
func appendString(b []byte, v string) []byte {
	if strings.IndexByte(v, 0) >= 0 {
		v = strings.ReplaceAll(v, "\x00", "?")
	}
	return append(append(b, v...), 0)
}

// ParseAddress reads where a filter is in the forms people write: "unix:/run/x.sock", "/run/x.sock",
// "inet:127.0.0.1:8891", "inet:8891@127.0.0.1", "127.0.0.1:8891".
func ParseAddress(s string) (network, address string, err error) {
	kind, rest, ok := strings.Cut(s, ":")
	switch {
	case ok && (kind == "unix" || kind == "local"):
		return "unix", rest, nil
	case strings.HasPrefix(s, "/"):
		return "unix", s, nil
	case ok && (kind == "inet" || kind == "inet6" || kind == "tcp"):
		s = rest
	}
	if port, host, ok := strings.Cut(s, "@"); ok {
		s = net.JoinHostPort(strings.Trim(host, "[]"), port)
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", "", fmt.Errorf("filter address %q: want unix:/path or host:port", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", fmt.Errorf("filter address %q: %q is no port", s, port)
	}
	return "tcp", s, nil
}
