package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
)

// maxReply bounds one reply, all lines together, in octets.
const maxReply = 64 << 10

// ClientConfig says how a client speaks. Hello must be set.
type ClientConfig struct {
	Hello string // our host name or address literal
	LMTP  bool   // RFC 2033

	// NoChunking and NoPipelining do without what the server offers, for servers that offer it
	// wrongly.
	NoChunking, NoPipelining bool
	// PlaintextAuth allows Auth without TLS.
	PlaintextAuth bool

	// Timeouts; the defaults are those of RFC 5321, section 4.5.3.2.
	GreetingTimeout time.Duration // 5 minutes
	CommandTimeout  time.Duration // EHLO, MAIL, RCPT and others: 5 minutes
	DataTimeout     time.Duration // reply to DATA: 2 minutes
	BlockTimeout    time.Duration // to write a piece of the message: 3 minutes
	FinalTimeout    time.Duration // reply to the end of the message: 10 minutes

	Clock clock.Clock // default: the machine's
}

func (c *ClientConfig) fill() {
	setDefault(&c.GreetingTimeout, 5*time.Minute)
	setDefault(&c.CommandTimeout, 5*time.Minute)
	setDefault(&c.DataTimeout, 2*time.Minute)
	setDefault(&c.BlockTimeout, 3*time.Minute)
	setDefault(&c.FinalTimeout, 10*time.Minute)
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
}

// Client is one connection to a server. It is not safe for concurrent use. After an error that is
// no *Reply the connection is of no more use; Reusable tells.
type Client struct {
	x   wire
	cfg ClientConfig

	greeting Reply
	ext      Extensions
	esmtp    bool
	state    *tls.ConnectionState

	stop  atomic.Bool
	dead  error // why the connection is of no more use
	mails int   // transactions so far
	dirty bool  // a transaction may be open: RSET must come before the next
}

// Errors of a Client about what the server does not offer, or the caller did not heed. Nothing of
// the message has been sent, and the connection is as good as before.
var (
	ErrNoStartTLS     = errors.New("server does not offer STARTTLS")
	ErrNoAuth         = errors.New("server offers no mechanism of AUTH that can be used")
	ErrNeeds8BitMIME  = errors.New("message is 8-bit and the server does not offer 8BITMIME")
	ErrNeedsBinary    = errors.New("message is BINARYMIME, which the server does not offer")
	ErrNeedsSMTPUTF8  = errors.New("message needs SMTPUTF8 and the server does not offer it")
	ErrNeedsTLS       = errors.New("message demands REQUIRETLS, which is not to be had here")
	ErrNeedsHold      = errors.New("message is to be held longer than the server offers to")
	ErrTooLarge       = errors.New("message is larger than the server takes")
	ErrMalformed      = errors.New("message has a bare CR, a bare LF or a NUL in it")
	ErrAddress        = errors.New("address cannot be sent")
	ErrNoMoreMessages = errors.New("server takes no more messages on this connection (MAILMAX)")
)

var errUnasked = errors.New("server sent a reply that nobody asked for")

// NewClient returns a client for a connection, over TLS if that is a *tls.Conn after its handshake.
// Hello comes next.
func NewClient(conn net.Conn, cfg ClientConfig) *Client {
	cfg.fill()
	c := &Client{cfg: cfg}
	sock := conn
	if t, ok := conn.(*tls.Conn); ok {
		s := t.ConnectionState()
		c.state = &s
	}
	c.x.init(sock, cfg.Clock, &c.stop)
	c.x.stopping, c.x.brusque = true, true
	return c
}

// Hello reads the greeting and introduces us. A server that refuses is a *Reply among the errors.
func (c *Client) Hello(ctx context.Context) error {
	defer c.heed(ctx)()
	r, err := c.reply(ctx, c.cfg.GreetingTimeout)
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	c.greeting = r
	if r.Code != 220 {
		return fmt.Errorf("greeting: %w", &r)
	}
	return c.hello(ctx)
}

// hello says EHLO, or HELO where that is not understood (RFC 5321, section 3.2), or LHLO.
func (c *Client) hello(ctx context.Context) error {
	verb := "EHLO"
	if c.cfg.LMTP {
		verb = "LHLO"
	}
	r, err := c.ask(ctx, verb+" "+c.cfg.Hello)
	if err == nil && r.Permanent() && !c.cfg.LMTP {
		verb = "HELO"
		r, err = c.ask(ctx, verb+" "+c.cfg.Hello)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if r.Code != 250 {
		return fmt.Errorf("%s: %w", verb, &r)
	}
	c.ext, c.esmtp = Extensions{}, verb != "HELO"
	if c.esmtp {
		c.ext = parseExtensions(r.Text)
	}
	return nil
}

// Greeting returns the server's first reply.
func (c *Client) Greeting() Reply { return c.greeting }

// Extensions returns what the server offered last.
func (c *Client) Extensions() Extensions { return c.ext }

// TLS returns the state of the connection's TLS; nil for plaintext.
func (c *Client) TLS() *tls.ConnectionState { return c.state }

// Peer returns what is known of the server: the address, and version, cipher and certificate of its
// TLS. Its name is for the caller, who looked it up, to add.
func (c *Client) Peer() mail.Peer {
	p := mail.Peer{}
	if a := c.x.sock.RemoteAddr(); a != nil {
		p.Addr = a.String()
		if ap := addrPort(a); ap.IsValid() {
			p.Addr = ap.Addr().String()
		}
	}
	if c.state != nil {
		p.SetTLS(*c.state)
	}
	return p
}

// StartTLS upgrades the connection and introduces us anew: what the server said in the clear is
// forgotten (RFC 3207, section 4.2).
func (c *Client) StartTLS(ctx context.Context, cfg *tls.Config) error {
	if !c.ext.StartTLS {
		return ErrNoStartTLS
	}
	defer c.heed(ctx)()
	r, err := c.ask(ctx, "STARTTLS")
	if err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	if r.Code != 220 {
		return fmt.Errorf("STARTTLS: %w", &r)
	}
	if len(c.x.buffered()) > 0 {
		// Sent in the clear, to be read as if it had come over TLS (CVE-2011-0411).
		return c.broken(fmt.Errorf("STARTTLS: %w", errUnasked))
	}
	err = c.x.handshake(ctx, func(under net.Conn) *tls.Conn { return tls.Client(under, cfg) })
	if err != nil {
		return c.broken(fmt.Errorf("TLS handshake: %w", c.cause(ctx, err)))
	}
	state := c.x.tls.ConnectionState()
	c.state, c.ext = &state, Extensions{}
	return c.hello(ctx)
}

// Reusable reports whether another message can be sent on the connection: it has not failed, the
// server has neither closed it nor said anything in the meantime, as far as one can see, and its
// LIMITS allow.
func (c *Client) Reusable() bool {
	return c.quiet() == nil && (c.ext.MailMax == 0 || c.mails < c.ext.MailMax)
}

// Noop asks for nothing, to see whether the server is still there.
func (c *Client) Noop(ctx context.Context) error { return c.simple(ctx, "NOOP") }

// Reset gives up whatever transaction there may be.
func (c *Client) Reset(ctx context.Context) error {
	err := c.simple(ctx, "RSET")
	if err == nil {
		c.dirty = false
	}
	return err
}

func (c *Client) simple(ctx context.Context, line string) error {
	defer c.heed(ctx)()
	r, err := c.ask(ctx, line)
	if err == nil && r.Code/100 != 2 {
		err = &r
	}
	if err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return nil
}

// Quit says goodbye and closes the connection. The error tells whether the server answered; the
// connection is closed in any case.
func (c *Client) Quit(ctx context.Context) error {
	var err error
	if c.dead == nil {
		err = c.simple(ctx, "QUIT")
	}
	return errors.Join(err, c.Close())
}

// Close closes the connection without a word. What was read and not used is forgotten.
func (c *Client) Close() error {
	if c.dead == nil {
		c.dead = net.ErrClosed
	}
	c.x.close(false)
	return nil
}

// heed makes the end of ctx end whatever the client waits for, until the function it returns is
// called.
func (c *Client) heed(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() {
		c.stop.Store(true)
		c.x.sock.SetDeadline(aLongTimeAgo)
	})
	return func() {
		if !stop() {
			c.broken(ctx.Err())
		}
		c.x.release()
	}
}

// broken notes that the connection is of no more use.
func (c *Client) broken(err error) error {
	if c.dead == nil {
		c.dead = err
	}
	return err
}

// cause prefers the reason why ctx ended over what that did to the connection.
func (c *Client) cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// ask sends one command and returns the reply to it.
func (c *Client) ask(ctx context.Context, line string) (Reply, error) {
	return c.askWithin(ctx, line, c.cfg.CommandTimeout)
}

func (c *Client) askWithin(ctx context.Context, line string,
	patience time.Duration) (Reply, error) {
	if err := c.quiet(); err != nil {
		return Reply{}, err
	}
	c.x.write(line)
	c.x.write("\r\n")
	return c.reply(ctx, patience)
}

// quiet makes sure that the server has not spoken out of turn: what it sent would be taken for the
// reply to what we send next.
func (c *Client) quiet() error {
	if c.dead != nil {
		return c.dead
	}
	some, closed := c.x.readable()
	switch {
	case closed:
		return c.broken(io.EOF)
	case !some:
		return nil
	}
	c.x.patience = time.Second
	if r, err := readReply(&c.x); err == nil {
		return c.broken(fmt.Errorf("%w: %w", errUnasked, &r)) // "421 timeout", most likely
	}
	return c.broken(errUnasked)
}

// reply reads the next reply. After 421 the server closes the connection (RFC 5321, section 3.8).
func (c *Client) reply(ctx context.Context, patience time.Duration) (Reply, error) {
	if c.dead != nil {
		return Reply{}, c.dead
	}
	c.x.patience = patience
	r, err := readReply(&c.x)
	if err != nil {
		return r, c.broken(c.cause(ctx, err))
	}
	if r.Code == 421 {
		c.broken(&r)
	}
	return r, nil
}

var errReply = errors.New("malformed reply")

// readReply reads the lines of one reply (RFC 5321, section 4.2.1).
func readReply(x *wire) (Reply, error) {
	var r Reply
	for octets := 0; ; {
		line, err := x.readLine(maxReply-octets, nil)
		if err == errLine {
			return r, fmt.Errorf("%w: longer than %d octets", errReply, maxReply)
		}
		if err != nil {
			return r, err
		}
		octets += len(line)
		last, err := r.addLine(strings.TrimRight(string(line), "\r\n"))
		if err != nil || last {
			return r, err
		}
		if octets >= maxReply {
			return r, fmt.Errorf("%w: longer than %d octets", errReply, maxReply)
		}
	}
}

// addLine adds a line, without its line end, to a reply.
func (r *Reply) addLine(line string) (last bool, err error) {
	code, text, ok := splitReplyLine(line)
	if !ok || r.Code != 0 && code != r.Code {
		return false, fmt.Errorf("%w: line %.80q", errReply, line)
	}
	last = len(line) < 4 || line[3] != '-'
	enhanced, rest := cutEnhanced(code, text)
	if r.Code == 0 {
		r.Code, r.Enhanced, r.Text, r.Raw = code, enhanced, rest, line
		return last, nil
	}
	if enhanced != "" && enhanced == r.Enhanced {
		text = rest
	}
	r.Text += "\n" + text
	r.Raw += "\n" + line
	return last, nil
}

// splitReplyLine splits "250-text".
func splitReplyLine(line string) (code int, text string, ok bool) {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, "", false
	}
	for i := range 3 {
		if line[i] < '0' || line[i] > '9' {
			return 0, "", false
		}
		code = code*10 + int(line[i]-'0')
	}
	if code < 200 || code > 599 {
		return 0, "", false
	}
	if len(line) > 4 {
		text = line[4:]
	}
	return code, text, true
}

// cutEnhanced splits an enhanced status code off the text of a reply (RFC 2034, section 4).
func cutEnhanced(code int, text string) (enhanced, rest string) {
	word, rest, _ := strings.Cut(text, " ")
	if !validEnhanced(code, word) {
		return "", text
	}
	return word, rest
}
