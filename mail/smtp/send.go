package smtp

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// Stage is the command that decided a recipient's fate.
type Stage uint8

// The stages of a transaction, in order.
const (
	NotSent Stage = iota // nothing was decided: the connection ended before
	AtMail               // MAIL was refused, for all recipients
	AtRcpt               // RCPT was refused
	AtData               // DATA, BDAT or the message was answered
)

// Result is what the server said of one recipient.
type Result struct {
	Stage Stage
	// Reply decided: with a positive code, at AtData, the server has taken the message over.
	Reply Reply
	// Unsure says of NotSent that the whole message was sent: the server may have taken it over, but
	// its answer did not come. Without it, the server cannot have the message.
	Unsure bool
}

// Accepted reports whether the server took the message for this recipient.
func (r Result) Accepted() bool { return r.Stage == AtData && r.Reply.Code/100 == 2 }

const (
	// unawaited is how many commands may be under way: their replies, however long a server makes
	// them, must fit what the sockets of both ends buffer, or both ends wait for each other (RFC
	// 2920, section 3.1).
	unawaited = 100
	// eager is the largest message that is sent with BDAT before the recipients are answered.
	eager = 64 << 10
)

// Send sends a message of size octets to the recipients of env and returns one Result for each, in
// their order. An error says that the connection failed, or that nothing was sent because the
// server cannot take the message as it is (ErrNeeds8BitMIME and others); results already received
// are returned with it, and where the server may have taken the message but did not say so the
// Stage is NotSent and Unsure is set.
//
// The message has CRLF line ends and no dots stuffed; it is checked before anything is sent.
// Several messages can be sent on one connection, see Reusable.
func (c *Client) Send(ctx context.Context, env *mail.Envelope,
	body io.ReaderAt, size int64) ([]Result, error) {
	results := make([]Result, len(env.Recipients))
	if c.dead != nil {
		return results, c.dead
	}
	facts, err := inspect(body, size)
	if err != nil {
		return results, err
	}
	t := sending{c: c, env: env, body: body, facts: facts}
	if err := t.check(); err != nil {
		return results, err
	}
	defer c.heed(ctx)()
	left := make([]int, len(results)) // recipients without a result
	for i := range left {
		left[i] = i
	}
	for len(left) > 0 {
		if !c.Reusable() {
			if c.dead != nil {
				return results, c.dead
			}
			return results, ErrNoMoreMessages
		}
		n := t.take(left)
		err := t.run(ctx)
		later := left[:0]
		for i, r := range t.results {
			r.Unsure = r.Stage == NotSent && t.whole
			results[left[i]] = r
			if t.accepted > 0 && r.tooMany() && err == nil {
				later = append(later, left[i])
			}
		}
		left = append(later, left[n:]...)
		if err != nil {
			return results, c.broken(c.cause(ctx, err))
		}
	}
	return results, nil
}

// tooMany reports whether a recipient was refused only because others were before it: it is to be
// sent in another transaction (RFC 5321, section 4.5.3.1.10).
func (r Result) tooMany() bool {
	e := r.Reply.Enhanced
	return r.Stage == AtRcpt && r.Reply.Code == 452 && (e == "4.5.3" || e == "")
}

// sending is one message on its way, in one or more transactions.
type sending struct {
	c     *Client
	env   *mail.Envelope
	body  io.ReaderAt
	facts facts

	to      []mail.Recipient // of the transaction under way
	results []Result         // of these

	eager    bool // BDAT and the message are sent without waiting for replies to RCPT
	accepted int  // recipients
	whole    bool // the message was sent to its last octet
	refused  bool // MAIL was
	verdict  Reply
}

// check finds out before anything is sent whether the server can take the message.
func (t *sending) check() error {
	e, env := &t.c.ext, t.env
	binary := env.Body == mail.BodyBinaryMIME && t.facts.bad
	switch {
	case binary && (!e.BinaryMIME || !e.Chunking || t.c.cfg.NoChunking):
		return ErrNeedsBinary
	case !binary && t.facts.bad:
		return fmt.Errorf("%w, at octet %d", ErrMalformed, t.facts.badAt)
	case t.facts.eightBit && !e.EightBitMIME && !binary:
		return ErrNeeds8BitMIME
	case e.Size > 0 && t.facts.size > e.Size:
		return fmt.Errorf("%w: %d octets, it takes %d", ErrTooLarge, t.facts.size, e.Size)
	case t.needsUTF8() && !e.SMTPUTF8:
		return ErrNeedsSMTPUTF8
	case env.RequireTLS && (!e.RequireTLS || t.c.state == nil):
		return ErrNeedsTLS
	}
	hold := env.HoldUntil.Sub(t.c.cfg.Clock.Now())
	if hold > 0 && (!e.FutureRelease || hold > e.HoldMax) {
		return ErrNeedsHold
	}
	for i := range env.Recipients {
		if err := checkSendable(env.Recipients[i].Address); err != nil {
			return err
		}
	}
	return checkSendable(env.From)
}

// checkSendable refuses an address that would end the command it stands in: none that was parsed
// does.
func checkSendable(a mail.Address) error {
	for _, s := range [...]string{a.Local, string(a.Domain)} {
		for i := 0; i < len(s); i++ {
			if s[i] < ' ' || s[i] == 0x7f {
				return fmt.Errorf("%w: control character in %q", ErrAddress, a.String())
			}
		}
	}
	return nil
}

// needsUTF8 reports whether the message can only travel with SMTPUTF8: a domain could be sent as
// A-labels, a local part cannot; nor can a header in UTF-8, if that is what it was declared to be.
func (t *sending) needsUTF8() bool {
	if !t.env.From.IsASCII() || t.env.SMTPUTF8 && t.facts.header8 {
		return true
	}
	for i := range t.env.Recipients {
		if !t.env.Recipients[i].Address.IsASCII() {
			return true
		}
	}
	return false
}

// take fills t.to with as many of the recipients as the next transaction may have (RFC 9422), and
// returns how many these are.
func (t *sending) take(left []int) int {
	e := &t.c.ext
	n := len(left)
	if e.RcptMax > 0 {
		n = min(n, e.RcptMax)
	}
	t.to = t.to[:0]
	domains := make(map[mail.Domain]bool, 1)
	for _, i := range left[:n] {
		to := t.env.Recipients[i]
		domains[to.Address.Domain] = true
		if e.RcptDomainMax > 0 && len(domains) > e.RcptDomainMax {
			break
		}
		t.to = append(t.to, to)
	}
	t.results = make([]Result, len(t.to))
	return len(t.to)
}

// run is one transaction.
func (t *sending) run(ctx context.Context) error {
	c := t.c
	if err := c.quiet(); err != nil {
		return err
	}
	c.mails++
	t.accepted, t.whole, t.refused, t.verdict = 0, false, false, Reply{}
	chunking := c.ext.Chunking && !c.cfg.NoChunking && !c.cfg.LMTP
	pipelining := c.ext.Pipelining && !c.cfg.NoPipelining
	t.eager = chunking && pipelining && t.facts.size <= eager
	if err := t.envelope(ctx, pipelining, chunking); err != nil {
		return err
	}
	switch {
	case t.verdict.Code == 354 && t.accepted == 0:
		return t.emptyMessage(ctx)
	case t.accepted == 0:
		c.dirty = true
		return nil
	case t.eager:
		return t.settleChunk(t.verdict)
	case chunking:
		return t.sendChunk(ctx)
	case !pipelining:
		r, err := c.askWithin(ctx, "DATA", c.cfg.DataTimeout)
		if err != nil {
			return err
		}
		t.verdict = r
	}
	if t.verdict.Code != 354 {
		c.dirty = true
		return t.settle(t.verdict)
	}
	return t.sendData(ctx)
}

// envelope sends MAIL and RCPT, with pipelining also what comes after them, and reads the replies.
func (t *sending) envelope(ctx context.Context, pipelining, chunking bool) error {
	// Command 0 is MAIL, 1 to len(t.to) are RCPT, one more is DATA or BDAT.
	window, last := 1, len(t.to)
	if pipelining {
		window = unawaited
		if t.eager || !chunking {
			last++
		}
	}
	if t.c.dirty {
		if err := t.c.simple(ctx, "RSET"); err != nil {
			return err
		}
		t.c.dirty = false
	}
	for sent, answered := 0, 0; answered <= last; answered++ {
		for ; sent <= last && sent-answered < window; sent++ {
			if err := t.command(sent); err != nil {
				return t.lastWords(ctx, err)
			}
		}
		patience := t.c.cfg.CommandTimeout
		if answered > len(t.to) {
			patience = t.c.cfg.DataTimeout
			if t.eager {
				patience = t.c.cfg.FinalTimeout
			}
		}
		r, err := t.c.reply(ctx, patience)
		if err != nil {
			return err
		}
		t.answer(answered, r)
		if t.refused {
			last = sent - 1 // the replies to what is under way are still to be read
		}
	}
	return nil
}

// command queues the i-th command of the envelope.
func (t *sending) command(i int) error {
	x := &t.c.x
	x.hold()
	switch {
	case i == 0:
		x.out = t.appendMail(x.out)
	case i <= len(t.to):
		x.out = t.appendRcpt(x.out, &t.to[i-1])
	case t.eager:
		return t.writeChunk()
	default:
		x.out = append(x.out, "DATA\r\n"...)
	}
	return nil
}

// answer notes the reply to the i-th command of the envelope.
func (t *sending) answer(i int, r Reply) {
	switch {
	case i == 0 && r.Code/100 != 2:
		t.refused = true
		for j := range t.results {
			t.results[j] = Result{Stage: AtMail, Reply: r}
		}
	case i > len(t.to):
		t.verdict = r
	case i > 0 && !t.refused:
		if r.Code/100 == 2 {
			t.accepted++
			return
		}
		t.results[i-1] = Result{Stage: AtRcpt, Reply: r}
	}
}

// settle gives the recipients that were accepted the reply to the message.
func (t *sending) settle(r Reply) error {
	for i := range t.results {
		if t.results[i].Stage == NotSent {
			t.results[i] = Result{Stage: AtData, Reply: r}
		}
	}
	return nil
}

// emptyMessage ends a DATA that the server wants although it took no recipient (RFC 2920, section
// 3.1: the client "should send a single dot").
func (t *sending) emptyMessage(ctx context.Context) error {
	if t.c.cfg.LMTP { // there is a reply for each recipient, so nobody knows how many
		t.c.broken(errUnasked)
		return nil
	}
	t.c.x.write(".\r\n")
	_, err := t.c.reply(ctx, t.c.cfg.FinalTimeout)
	return err
}

// sendChunk sends the whole message with one BDAT.
func (t *sending) sendChunk(ctx context.Context) error {
	if err := t.writeChunk(); err != nil {
		return t.lastWords(ctx, err)
	}
	r, err := t.c.reply(ctx, t.c.cfg.FinalTimeout)
	if err != nil {
		return err
	}
	return t.settleChunk(r)
}

// settleChunk is settle for BDAT. After one that failed servers differ in whether the transaction is
// still open: Exim, for one, waits on with MAIL accepted. RFC 3030, section 2, has the client send
// RSET after a BDAT out of order, as the state is "indeterminate".
func (t *sending) settleChunk(r Reply) error {
	t.c.dirty = t.c.dirty || r.Code/100 != 2
	return t.settle(r)
}

// sendData sends the message after 354 and reads the reply; for LMTP one for each recipient that
// was accepted (RFC 2033, section 4.2).
func (t *sending) sendData(ctx context.Context) error {
	if err := t.writeDots(); err != nil {
		return t.lastWords(ctx, err)
	}
	if !t.c.cfg.LMTP {
		r, err := t.c.reply(ctx, t.c.cfg.FinalTimeout)
		if err != nil {
			return err
		}
		return t.settle(r)
	}
	for i := range t.results {
		if t.results[i].Stage != NotSent {
			continue
		}
		r, err := t.c.reply(ctx, t.c.cfg.FinalTimeout)
		if err != nil {
			return err
		}
		t.results[i] = Result{Stage: AtData, Reply: r}
	}
	return nil
}

// lastWords looks, after a write failed, for what the server may have said before it closed.
func (t *sending) lastWords(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	t.c.x.out = t.c.x.out[:0]
	for {
		r, readErr := t.c.reply(ctx, time.Second)
		if readErr != nil {
			return err
		}
		if !r.Positive() {
			return fmt.Errorf("%w: %w", &r, err)
		}
	}
}

// appendMail appends the MAIL command.
func (t *sending) appendMail(b []byte) []byte {
	e, env := &t.c.ext, t.env
	b = append(append(append(b, "MAIL FROM:<"...), env.From.Wire(e.SMTPUTF8)...), '>')
	if e.HasSize {
		b = strconv.AppendInt(append(b, " SIZE="...), t.facts.size, 10)
	}
	switch {
	case env.Body == mail.BodyBinaryMIME && t.facts.bad:
		b = append(b, " BODY=BINARYMIME"...)
	case t.facts.eightBit:
		b = append(b, " BODY=8BITMIME"...)
	}
	if e.SMTPUTF8 && (env.SMTPUTF8 || t.needsUTF8()) {
		b = append(b, " SMTPUTF8"...)
	}
	if env.RequireTLS {
		b = append(b, " REQUIRETLS"...)
	}
	if e.DSN && env.Ret != "" {
		b = append(append(b, " RET="...), env.Ret...)
	}
	if e.DSN && env.EnvID != "" {
		b = appendXtext(append(b, " ENVID="...), env.EnvID)
	}
	if env.HoldUntil.After(t.c.cfg.Clock.Now()) {
		b = env.HoldUntil.UTC().AppendFormat(append(b, " HOLDUNTIL="...), time.RFC3339)
	}
	return append(b, crlf...)
}

// appendRcpt appends a RCPT command.
func (t *sending) appendRcpt(b []byte, to *mail.Recipient) []byte {
	e := &t.c.ext
	b = append(append(append(b, "RCPT TO:<"...), to.Address.Wire(e.SMTPUTF8)...), '>')
	if e.DSN && to.Notify != 0 {
		b = appendNotify(b, to.Notify)
	}
	if e.DSN && to.ORcpt != "" {
		b = appendORcpt(b, to.ORcpt, e.SMTPUTF8)
	}
	return append(b, crlf...)
}
