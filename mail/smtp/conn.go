package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"time"
)

var errHandshake = errors.New("TLS handshake failed")

// Conn is one connection to a server, as its Session sees it. Its methods may be called from the
// methods of the Session only.
type Conn struct {
	v *serving
	x wire

	remote, local net.Addr
	leave         func()
	session       Session

	helo     string
	esmtp    bool // EHLO or LHLO was used last
	state    *tls.ConnectionState
	account  string
	refusing bool // greeted with a refusal: nothing but QUIT is answered (RFC 5321, section 3.1)

	tx        transaction
	mails     int // transactions so far
	faults    int // senseless commands so far
	idling    int // commands since the last message that brought none nearer
	authFails int
	closing   bool // nothing more is read
	linger    bool // the client may still be sending
	body      body
}

// transaction is what MAIL and RCPT said so far.
type transaction struct {
	open     bool // MAIL was accepted
	rcpts    int  // accepted
	tried    int  // RCPT commands, refused ones too
	smtputf8 bool
	binary   bool
}

// RemoteAddr returns the address of the client: as PROXY or XCLIENT gave it, if they did.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// RemoteIP returns the client's IP address, not valid where the connection is of another kind.
func (c *Conn) RemoteIP() netip.Addr { return addrPort(c.remote).Addr() }

// LocalAddr returns the address the client connected to.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// LocalIP returns the IP address the client connected to, as RemoteIP does the client's.
func (c *Conn) LocalIP() netip.Addr { return addrPort(c.local).Addr() }

// Helo returns the name the client gave with HELO, EHLO or LHLO; empty before. It is a claim. It
// can be put in a header field: characters that no host name or address literal has are replaced by
// '?'.
func (c *Conn) Helo() string { return c.helo }

// TLS returns the state of the connection's TLS; nil for plaintext.
func (c *Conn) TLS() *tls.ConnectionState { return c.state }

// Account returns the account that AUTH opened; empty before.
func (c *Conn) Account() string { return c.account }

// Submission reports whether the connection came in on a submission port.
func (c *Conn) Submission() bool { return c.v.cfg.Submission }

// Protocol returns the word for the "with" clause of Received (RFC 3848; RFC 6531, section 4.3).
func (c *Conn) Protocol() string {
	if !c.esmtp {
		return "SMTP"
	}
	p := "ESMTP"
	if c.v.cfg.LMTP {
		p = "LMTP"
	}
	if c.tx.smtputf8 {
		p = "UTF8SMTP"
		if c.v.cfg.LMTP {
			p = "UTF8LMTP"
		}
	}
	if c.state != nil {
		p += "S"
	}
	if c.account != "" {
		p += "A"
	}
	return p
}

func newConn(v *serving, sock net.Conn) *Conn {
	c := &Conn{v: v, remote: sock.RemoteAddr(), local: sock.LocalAddr()}
	c.x.init(sock, v.cfg.Clock, &v.stop)
	c.x.patience = v.cfg.CommandTimeout
	return c
}

func (c *Conn) wakeUp() { c.x.wake() }

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	if a == nil {
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// serve is the life of a connection. A panic ends it and no other.
func (c *Conn) serve() {
	defer c.end()
	if err := c.open(); err != nil {
		c.lost(err)
		return
	}
	for !c.closing {
		if err := c.step(); err != nil {
			c.lost(err)
			return
		}
	}
}

// end closes the session and the connection.
func (c *Conn) end() {
	if p := recover(); p != nil {
		c.v.cfg.Log.Error("panic in a session", "peer", c.remote, "panic", p,
			"stack", string(debug.Stack()))
		c.x.out = c.x.out[:0] // no telling what was to be said
		c.say(421, "4.3.0", "internal error, closing the connection")
	}
	c.x.flush() // the client need not wait for what the session does now
	func() {
		defer func() {
			if p := recover(); p != nil {
				c.v.cfg.Log.Error("panic at the end of a session", "peer", c.remote, "panic", p)
			}
		}()
		c.resetSession()
		if c.session != nil {
			c.session.Logout()
		}
	}()
	c.x.close(c.linger)
	if c.leave != nil {
		c.leave()
	}
}

// open brings the connection to its greeting.
func (c *Conn) open() error {
	cfg := &c.v.cfg
	if err := c.readProxyHeader(); err != nil {
		return err
	}
	if err := c.admit(); err != nil {
		c.refuseConn(err)
		c.closing = true
		return nil
	}
	if cfg.ImplicitTLS {
		if err := c.startTLS(); err != nil {
			return err
		}
	}
	if err := c.newSession(); err != nil {
		c.refuseConn(err)
		return nil
	}
	if early, err := c.talksEarly(); err != nil {
		return err
	} else if early {
		c.desync("you spoke before the greeting")
		return nil
	}
	c.greet()
	return nil
}

func (c *Conn) greet() { c.say(220, "", c.v.cfg.Hostname+" "+c.protocolName()+" ready") }

func (c *Conn) admit() error {
	if c.v.cfg.Admit == nil {
		return nil
	}
	leave, err := c.v.cfg.Admit(c.v.ctx, addrPort(c.remote))
	if err == nil {
		c.leave = leave
	}
	return err
}

func (c *Conn) protocolName() string {
	if c.v.cfg.LMTP {
		return "LMTP"
	}
	return "ESMTP"
}

func (c *Conn) newSession() error {
	s, err := c.v.cfg.NewSession(c.v.ctx, c)
	if err != nil {
		return err
	}
	c.session = s
	return nil
}

// refuseConn greets with a refusal. After 421 and 521 the connection is closed (RFC 7504, section
// 3); after others the client is to say QUIT (RFC 5321, section 3.1).
func (c *Conn) refuseConn(err error) {
	r := c.refusalOf(err, "session")
	c.say(r.Code, r.Enhanced, r.Text)
	if r.Code == 421 || r.Code == 521 {
		c.closing, c.linger = true, true
		return
	}
	c.refusing = true
	c.x.patience = min(c.x.patience, 30*time.Second)
}

// talksEarly waits for the greeting delay, or looks but once, whether the client speaks before it
// may.
func (c *Conn) talksEarly() (bool, error) {
	if len(c.x.buffered()) > 0 {
		return true, nil
	}
	delay := c.v.cfg.GreetDelay
	if delay == 0 {
		early, _ := c.x.readable()
		return early, nil
	}
	patience := c.x.patience
	c.x.patience, c.x.readBy = delay, time.Time{}
	err := c.x.fill()
	c.x.patience, c.x.readBy = patience, time.Time{}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// step reads and answers one command.
func (c *Conn) step() error {
	if c.v.stop.Load() {
		return errStopped
	}
	c.x.stopping = true
	line, err := c.x.readLine(maxCommandLine, longerLine)
	c.x.stopping = false
	if err == errLine {
		return c.longLine()
	}
	if err != nil {
		return err
	}
	if line, err = checkLine(line); err != nil {
		return c.badLine(err)
	}
	c.command(line)
	if !c.esmtp && !c.closing {
		// RFC 2920, section 3.1: only who has seen PIPELINING may use it.
		c.inStep("your commands")
	}
	return nil
}

// longerLine allows AUTH its long lines.
func longerLine(line []byte) int {
	if len(line) > 5 && (line[0]|0x20) == 'a' && (line[1]|0x20) == 'u' && (line[2]|0x20) == 't' &&
		(line[3]|0x20) == 'h' && line[4] == ' ' {
		return maxAuthLine
	}
	return 0
}

// longLine answers a command line that is too long (RFC 5321, section 4.5.3.1.4): where it ends is clear, so
// what follows is heard, unless no end is in sight.
func (c *Conn) longLine() error {
	refusal := &Reply{Code: 500, Enhanced: "5.5.2",
		Text: fmt.Sprintf("line too long: the limit is %d octets", maxCommandLine)}
	if longerLine(c.x.buffered()) > 0 {
		refusal = errAuthLong
	}
	whole, err := c.x.skipLine(maxSkippedLine)
	switch {
	case err == errLine:
		c.say(refusal.Code, refusal.Enhanced, refusal.Text+", closing the connection")
		c.closing, c.linger = true, true
	case err != nil:
		return err
	case !whole:
		return c.badLine(errBareLF)
	default:
		c.fault(refusal.Code, refusal.Enhanced, refusal.Text)
	}
	return nil
}

// badLine answers a command line that has a wrong line end or control characters in it.
func (c *Conn) badLine(err error) error {
	if err == errBareLF {
		c.say(500, "5.5.2", err.Error())
		c.closing, c.linger = true, true
		return nil
	}
	c.fault(500, "5.5.2", err.Error())
	return nil
}

// lost ends a connection on which nothing more can be read, with what there is left to say.
func (c *Conn) lost(err error) {
	log := c.v.cfg.Log
	switch {
	case errors.Is(err, errStopped):
		c.say(421, "4.3.2", c.v.cfg.Hostname+" is shutting down, try again later")
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.say(421, "4.4.2", c.v.cfg.Hostname+" waited too long for you, closing the connection")
	case errors.Is(err, errTooSlow):
		c.say(421, "4.4.2", "you send too slowly, closing the connection")
	case errors.Is(err, errLine):
		c.say(500, "5.5.2", fmt.Sprintf("line too long: the limit is %d octets", maxCommandLine))
		c.linger = true
	case errors.Is(err, errFraming):
		c.say(421, "4.7.0", "no telling where your next command begins, closing the connection")
		c.linger = true
	}
	log.Debug("connection lost", "peer", c.remote, "helo", c.helo, "err", err)
	c.closing = true
}

// say queues a reply; before TLS there is nobody to hear it where TLS comes first.
func (c *Conn) say(code int, enhanced, text string) {
	if c.v.cfg.ImplicitTLS && c.state == nil {
		return
	}
	c.x.hold()
	c.x.out = appendReply(c.x.out, code, enhanced, text, c.tx.smtputf8)
	if len(c.x.out) > outSize-maxReplyLine {
		c.x.flush()
	}
}

// fault refuses a command that makes no sense; after too many the connection is closed.
func (c *Conn) fault(code int, enhanced, text string) {
	c.faults++
	c.say(code, enhanced, text)
	if c.faults >= c.v.cfg.MaxErrors && !c.closing {
		c.hangUp("too many errors")
	}
}

// idle counts a command that is allowed but brings no message nearer.
func (c *Conn) idle() {
	if c.idling++; c.idling >= idleFactor*c.v.cfg.MaxErrors && !c.closing {
		c.hangUp("too many commands without a message")
	}
}

// idleFactor is how many idle commands weigh as much as an error: 100 in all, as Postfix allows,
// with the default of MaxErrors.
const idleFactor = 5

// hangUp closes the connection with a reason.
func (c *Conn) hangUp(why string) {
	c.say(421, "4.7.0", why+", closing the connection")
	c.closing, c.linger = true, true
}

// refuse sends what a method of the session returned as error. It is no fault of the client:
// mailing lists have dead addresses. A session that has heard enough answers 421.
func (c *Conn) refuse(err error, doing string) {
	r := c.refusalOf(err, doing)
	if r.Code == 421 {
		c.closing, c.linger = true, true
	}
	c.say(r.Code, r.Enhanced, r.Text)
}

// refusalOf returns the reply for an error: itself, if it is one that refuses.
func (c *Conn) refusalOf(err error, doing string) *Reply {
	var r *Reply
	if errors.As(err, &r) && r.Code >= 400 && r.Code <= 599 {
		if r.Enhanced == "" {
			r = &Reply{Code: r.Code, Enhanced: defaultEnhanced(r.Code), Text: r.Text}
		}
		return r
	}
	c.v.cfg.Log.Error("session failed", "doing", doing, "peer", c.remote, "helo", c.helo,
		"err", err)
	return &Reply{Code: 451, Enhanced: "4.3.0", Text: "local error, try again later"}
}

// desync closes the connection because the client sent octets where it had to wait: they may have
// been put there by somebody else, so they are not looked at.
func (c *Conn) desync(what string) {
	c.say(554, "5.5.0", "protocol synchronization error: "+what)
	c.closing, c.linger = true, true
}

// resetSession ends the transaction.
func (c *Conn) resetSession() {
	if c.tx.open && c.session != nil {
		c.session.Reset()
	}
	c.tx = transaction{}
}

// startTLS does the handshake.
func (c *Conn) startTLS() error {
	ctx, cancel := context.WithTimeout(c.v.ctx, time.Minute)
	defer cancel()
	err := c.x.handshake(ctx, func(under net.Conn) *tls.Conn { return tls.Server(under, c.v.tls) })
	if err != nil {
		c.v.cfg.Log.Debug("TLS handshake failed", "peer", c.remote, "err", err)
		return errHandshake
	}
	state := c.x.tls.ConnectionState()
	c.state = &state
	return nil
}
