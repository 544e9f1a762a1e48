package smtp

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// command answers one command line.
func (c *Conn) command(line []byte) {
	v, n, arg := parseVerb(line)
	if c.refusing && string(v[:n]) != "QUIT" {
		c.faults += c.v.cfg.MaxErrors / 5 // it gets a few
		c.fault(503, "5.5.1", "this connection was refused, say QUIT")
		return
	}
	switch string(v[:n]) {
	case "HELO", "EHLO", "LHLO":
		c.hello(string(v[:n]), string(arg))
	case "MAIL":
		c.mail(string(arg))
	case "RCPT":
		c.rcpt(string(arg))
	case "DATA":
		c.data(len(arg) > 0)
	case "BDAT":
		c.bdat(arg)
	case "RSET":
		c.rset(len(arg) > 0)
	case "NOOP":
		c.say(250, "2.0.0", "OK")
		c.idle()
	case "QUIT":
		c.quit(len(arg) > 0)
	case "VRFY":
		c.vrfy(len(arg) > 0)
	case "HELP":
		c.say(214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP STARTTLS AUTH QUIT")
		c.idle()
	case "STARTTLS":
		c.starttls(len(arg) > 0)
	case "AUTH":
		c.auth(string(arg))
	case "XCLIENT":
		c.xclient(string(arg))
	case "EXPN", "ETRN", "TURN", "ATRN", "SEND", "SOML", "SAML":
		c.fault(502, "5.5.1", "command not implemented")
	case "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "PRI":
		// A browser that was made to send mail: what follows is not meant for us.
		c.say(554, "5.7.0", "this is no HTTP server")
		c.closing, c.linger = true, true
	default:
		c.fault(500, "5.5.1", "command not known")
	}
}

// inStep closes the connection if the client sent more behind a command whose reply it had to wait
// for (RFC 2920, section 3.1; for clients that did not see PIPELINING, RFC 5321, section 2.1).
func (c *Conn) inStep(after string) bool {
	if early, _ := c.x.readable(); !early {
		return true
	}
	c.desync("you did not wait for the reply to " + after)
	return false
}

// hello answers HELO, EHLO and LHLO (RFC 5321, section 4.1.1.1; RFC 2033, section 4.1).
func (c *Conn) hello(verb, name string) {
	if !c.inStep(verb) {
		return
	}
	if (verb == "LHLO") != c.v.cfg.LMTP {
		c.fault(500, "5.5.1", "command not known: this server speaks "+c.protocolName())
		return
	}
	name, _, _ = strings.Cut(name, " ")
	if name == "" || len(name) > mail.MaxDomain {
		c.fault(501, "5.5.4", verb+" wants your host name")
		return
	}
	c.resetSession()
	c.helo = cleanHelo(name)
	c.esmtp = verb != "HELO"
	if c.esmtp {
		c.offer()
	} else {
		c.say(250, "", c.v.cfg.Hostname)
	}
	c.idle()
}

// offer is the reply to EHLO.
func (c *Conn) offer() {
	c.x.write("250-" + c.v.cfg.Hostname + "\r\n" + c.v.ehlo)
	if hold := c.v.cfg.MaxHold; hold > 0 {
		// RFC 4865, section 3: the longest time, and the latest date.
		c.x.write(fmt.Sprintf("250-FUTURERELEASE %d %s\r\n", hold/time.Second,
			c.v.cfg.Clock.Now().Add(hold).UTC().Format(time.RFC3339)))
	}
	if c.v.cfg.TLS != nil && c.state == nil {
		c.x.write("250-STARTTLS\r\n")
	}
	if c.state != nil {
		c.x.write("250-REQUIRETLS\r\n")
	}
	if mechs := c.mechanisms(); mechs != "" {
		c.x.write("250-AUTH " + mechs + "\r\n")
	}
	if c.trustedXClient() {
		c.x.write("250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n")
	}
	c.x.write("250 ENHANCEDSTATUSCODES\r\n")
}

// cleanHelo replaces what no host name or address literal has.
func cleanHelo(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9',
			strings.ContainsRune("-._:[]", r):
			return r
		}
		return '?'
	}, name)
}

// ehloLines are the lines of the reply to EHLO that do not depend on the connection.
func ehloLines(cfg *Config) string {
	lines := []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN",
		"SIZE " + strconv.FormatInt(cfg.MaxSize, 10)}
	if cfg.BinaryMIME {
		lines = append(lines, "BINARYMIME")
	}
	limits := "LIMITS RCPTMAX=" + strconv.Itoa(cfg.MaxRecipients)
	if cfg.MaxMessages > 0 {
		limits += " MAILMAX=" + strconv.Itoa(cfg.MaxMessages)
	}
	return "250-" + strings.Join(append(lines, limits), "\r\n250-") + "\r\n"
}

// mail answers MAIL (RFC 5321, section 4.1.1.2).
func (c *Conn) mail(arg string) {
	cfg := &c.v.cfg
	switch {
	case !c.mayTransact():
		return
	case c.tx.open:
		// A second sender must not inherit the first one's recipients.
		c.fault(503, "5.5.1", "a transaction is open already, say RSET to give it up")
		return
	case cfg.MaxMessages > 0 && c.mails >= cfg.MaxMessages:
		c.say(421, "4.5.0", "no more messages on this connection, open another")
		c.closing, c.linger = true, true
		return
	}
	path, ok := cutKeyword(arg, "FROM:")
	if !ok {
		c.fault(501, "5.5.2", "want MAIL FROM:<address>")
		return
	}
	from, rest, err := parsePath(path)
	if err != nil {
		c.fault(501, "5.1.7", err.Error())
		return
	}
	p, refusal := parseMailParams(rest, offers{
		esmtp: c.esmtp, binary: cfg.BinaryMIME, requireTLS: c.state != nil,
		maxSize: cfg.MaxSize, maxHold: cfg.MaxHold, now: cfg.Clock.Now(),
	})
	if refusal == nil && !p.SMTPUTF8 && !isASCIIAddress(from) {
		refusal = needsUTF8()
	}
	if refusal != nil {
		c.fault(refusal.Code, refusal.Enhanced, refusal.Text)
		return
	}
	c.tx = transaction{smtputf8: p.SMTPUTF8, binary: p.Body == mail.BodyBinaryMIME}
	if err := c.session.Mail(c.v.ctx, from, p); err != nil {
		c.refuse(err, "MAIL")
		c.tx = transaction{}
		return
	}
	c.tx.open = true
	c.mails++
	c.x.write("250 2.1.0 OK\r\n")
}

// mayTransact refuses MAIL where something must come before it.
func (c *Conn) mayTransact() bool {
	switch {
	case c.helo == "":
		c.fault(503, "5.5.1", "say EHLO first")
	case c.v.cfg.RequireTLS && c.state == nil:
		c.fault(530, "5.7.0", "say STARTTLS first")
	default:
		return true
	}
	return false
}

func isASCIIAddress(a mail.Address) bool { return a.IsASCII() && a.Domain.IsASCII() }

func needsUTF8() *Reply {
	return &Reply{Code: 553, Enhanced: "5.6.7",
		Text: "an address that is not ASCII wants SMTPUTF8 with MAIL"}
}

// rcpt answers RCPT (RFC 5321, section 4.1.1.3).
func (c *Conn) rcpt(arg string) {
	switch {
	case !c.tx.open:
		c.fault(503, "5.5.1", "say MAIL first")
		return
	case c.tx.tried >= c.v.cfg.MaxRecipients:
		// RFC 5321, section 4.5.3.1.10; no fault of the client, who is to send the rest later.
		c.say(452, "4.5.3", "too many recipients, send the rest in another transaction")
		return
	}
	c.tx.tried++
	path, ok := cutKeyword(arg, "TO:")
	if !ok {
		c.fault(501, "5.5.2", "want RCPT TO:<address>")
		return
	}
	addr, rest, err := parsePath(path)
	if err == nil && addr.IsNull() {
		err = errPath
	}
	if err != nil {
		c.fault(501, "5.1.3", err.Error())
		return
	}
	to := mail.Recipient{Address: addr}
	refusal := parseRcptParams(rest, c.esmtp, &to)
	if refusal == nil && !c.tx.smtputf8 && !isASCIIAddress(addr) {
		refusal = needsUTF8()
	}
	if refusal != nil {
		c.fault(refusal.Code, refusal.Enhanced, refusal.Text)
		return
	}
	if err := c.session.Rcpt(c.v.ctx, to); err != nil {
		c.refuse(err, "RCPT")
		return
	}
	c.tx.rcpts++
	c.x.write("250 2.1.5 OK\r\n")
}

// rset answers RSET.
func (c *Conn) rset(hasArg bool) {
	if hasArg {
		c.fault(501, "5.5.4", "RSET takes no argument")
		return
	}
	c.resetSession()
	c.x.write("250 2.0.0 OK\r\n")
	c.idle()
}

// quit answers QUIT.
func (c *Conn) quit(hasArg bool) {
	if hasArg {
		c.fault(501, "5.5.4", "QUIT takes no argument")
		return
	}
	c.say(221, "2.0.0", c.v.cfg.Hostname+" closing the connection")
	c.closing = true
}

// vrfy answers VRFY as RFC 5321, section 3.5.3, has it for servers that do not tell.
func (c *Conn) vrfy(hasArg bool) {
	if !hasArg {
		c.fault(501, "5.5.4", "VRFY wants an address")
		return
	}
	c.say(252, "2.5.2", "cannot verify, send a message and see")
	c.idle()
}

// starttls answers STARTTLS (RFC 3207).
func (c *Conn) starttls(hasArg bool) {
	switch {
	case !c.inStep("STARTTLS"):
		// RFC 3207, section 6, and CVE-2011-0411: what was sent in the clear must not be taken for
		// what comes over TLS.
		return
	case c.v.cfg.TLS == nil:
		c.fault(502, "5.5.1", "no TLS here")
		return
	case c.state != nil:
		c.fault(503, "5.5.1", "TLS is active already")
		return
	case hasArg:
		c.fault(501, "5.5.4", "STARTTLS takes no argument")
		return
	case c.tx.open:
		c.fault(503, "5.5.1", "a transaction is open, say RSET to give it up")
		return
	}
	c.say(220, "2.0.0", "ready for TLS")
	if err := c.x.flush(); err != nil {
		c.lost(err)
		return
	}
	if err := c.startTLS(); err != nil {
		c.lost(err)
		return
	}
	// RFC 3207, section 4.2: "The server MUST discard any knowledge obtained from the client".
	c.resetSession()
	c.helo, c.esmtp, c.account = "", false, ""
}

// data answers DATA (RFC 5321, section 4.1.1.4).
func (c *Conn) data(hasArg bool) {
	switch {
	case len(c.x.buffered()) > 0:
		c.desync("you did not wait for the reply to DATA")
		return
	case hasArg:
		c.fault(501, "5.5.4", "DATA takes no argument")
		return
	case !c.tx.open:
		c.fault(503, "5.5.1", "say MAIL first")
		return
	case c.tx.rcpts == 0:
		c.noRecipients()
		return
	case c.tx.binary:
		c.fault(503, "5.5.1", "a BINARYMIME message comes with BDAT") // RFC 3030, section 3
		return
	}
	c.x.write("354 end the message with a dot on a line by itself\r\n")
	c.body = body{dots: true, bol: true}
	c.receive()
}

func (c *Conn) noRecipients() {
	if c.tx.tried == 0 {
		c.fault(503, "5.5.1", "say RCPT first")
		return
	}
	c.fault(554, "5.5.1", "no valid recipients")
}

// bdat answers the first BDAT of a message (RFC 3030, section 2); those that follow are read by
// moreBDAT.
func (c *Conn) bdat(arg []byte) {
	size, last, ok := parseBDAT(arg)
	if !ok {
		// The chunk cannot be told from the commands behind it.
		c.say(501, "5.5.4", "want BDAT, a number and perhaps LAST; closing the connection")
		c.closing, c.linger = true, true
		return
	}
	c.body = body{left: size, last: last, more: c.moreBDAT, binary: c.tx.binary}
	switch {
	case !c.esmtp:
		c.skipChunk(503, "say EHLO first")
	case !c.tx.open:
		c.skipChunk(503, "say MAIL first")
	case c.tx.tried == 0:
		c.skipChunk(503, "say RCPT first")
	case c.tx.rcpts == 0:
		c.skipChunk(554, "no valid recipients")
	default:
		c.receive()
	}
}

// skipChunk reads over the octets of a BDAT that is refused: RFC 3030, section 2, "the
// receiver-SMTP MUST accept and discard the associated message data before sending the appropriate
// 5XX or 4XX code".
func (c *Conn) skipChunk(code int, text string) {
	c.prepareBody()
	c.body.refusal = &Reply{} // do not look at it
	if c.readOver(true) {
		c.fault(code, "5.5.1", text)
	}
}

// parseBDAT reads the argument of BDAT.
func parseBDAT(arg []byte) (size int64, last, ok bool) {
	number, rest, more := strings.Cut(string(arg), " ")
	n, err := strconv.ParseUint(number, 10, 62)
	if err != nil || number[0] == '+' || len(number) > 19 {
		return 0, false, false
	}
	if more {
		last = true
		ok = strings.EqualFold(strings.TrimRight(rest, " "), "LAST")
		return int64(n), last, ok
	}
	return int64(n), false, true
}

// moreBDAT answers a chunk that was not the last, and reads commands up to the next BDAT. The
// client may give the transaction up instead.
func (c *Conn) moreBDAT() error {
	c.endBody()
	c.say(250, "2.0.0", fmt.Sprintf("%d octets so far", c.body.n))
	for {
		c.x.stopping = true
		line, err := c.x.readLine(maxCommandLine, nil)
		c.x.stopping = false
		if err != nil {
			return err
		}
		whole := len(line)
		if line, err = checkLine(line); err != nil {
			c.body.err = errFraming
			return errFraming
		}
		v, n, arg := parseVerb(line)
		switch string(v[:n]) {
		case "BDAT":
			size, last, ok := parseBDAT(arg)
			if !ok {
				return errFraming
			}
			c.body.left, c.body.last = size, last
			c.beginBody()
			return nil
		case "NOOP":
			c.say(250, "2.0.0", "OK")
		case "RSET", "QUIT", "HELO", "EHLO", "LHLO":
			c.x.r -= whole // for step to read again
			return errAborted
		default:
			c.fault(503, "5.5.1", "BDAT or RSET must follow BDAT")
			if c.closing {
				return errAborted
			}
		}
	}
}
