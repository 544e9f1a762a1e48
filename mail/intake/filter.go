package intake

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/milter"
	"github.com/tallypost/tallypost/mail/smtp"
)

// Filter is a program that is asked about messages, while they come in, by the milter protocol:
// rspamd, OpenDKIM, a virus scanner. It can refuse a recipient or a message, add fields in front
// of a message and change those it has, and put a message aside; envelope and body it cannot change.
type Filter struct {
	Name string // for replies, verdicts and the log
	At   milter.Config
	// FailClosed defers mail while the filter does not answer. Else mail passes without it, and its
	// verdict says so.
	FailClosed bool
	// Inbound says that it is asked about what comes in on port 25, Submission about what accounts
	// send.
	Inbound, Submission bool
}

// filterPause is how long a filter that did not answer is left alone, so that not every message waits
// until it gives up.
const filterPause = 10 * time.Second

// filter is a Filter and whether it answers, for all sessions.
type filter struct {
	Filter
	clock clock.Clock
	log   *slog.Logger
	up    atomic.Int64 // when it may be asked again, in nanoseconds since 1970
}

// answers reports whether the filter may be asked now.
func (f *filter) answers() bool { return f.clock.Now().UnixNano() >= f.up.Load() }

// failed notes that it did not answer.
func (f *filter) failed(err error) {
	now := f.clock.Now()
	if f.up.Swap(now.Add(filterPause).UnixNano()) <= now.UnixNano() { // not all sessions say so
		f.log.Warn("filter does not answer", "filter", f.Name, "fail_closed", f.FailClosed, "err", err)
	}
}

// asking is the conversation of a session with a filter.
type asking struct {
	f    *filter
	m    *milter.Session // nil: not open
	helo string          // that the filter knows of
	// about the connection
	refusal error // what the filter answered to it
	content bool  // it has nothing against it, and wants to see no more
	// about the transaction
	over    bool // it wants to see no more
	discard bool // it wants the message to be thrown away
	missing bool // it did not answer
}

// filters returns the conversations of the session; they begin with the first MAIL.
func (s *session) filters() []*asking {
	if s.talk == nil {
		for _, f := range s.in.filters {
			if s.conn.Submission() && f.Submission || !s.conn.Submission() && f.Inbound {
				s.talk = append(s.talk, &asking{f: f})
			}
		}
	}
	return s.talk
}

// askMail shows the filters a transaction that begins.
func (s *session) askMail(ctx context.Context, from mail.Address, p smtp.MailParams) error {
	for _, a := range s.filters() {
		if err := a.mail(ctx, s, from, p); err != nil {
			return err
		}
	}
	return nil
}

// askRcpt shows them a recipient.
func (s *session) askRcpt(to mail.Address) error {
	for _, a := range s.filters() {
		if err := a.rcpt(to); err != nil {
			return err
		}
	}
	return nil
}

func (a *asking) rcpt(to mail.Address) error {
	if a.over {
		return a.absence()
	}
	answer, err := a.m.Rcpt(to.Wire(true), nil, milter.Macro{Name: "{rcpt_addr}", Value: to.String()},
		milter.Macro{Name: "{rcpt_host}", Value: to.Domain.ASCII()})
	return a.settle(answer, err)
}

// askReset tells them that the transaction was given up.
func (s *session) askReset() {
	for _, a := range s.talk {
		if a.m != nil && a.m.Abort() != nil {
			a.close()
		}
	}
}

// mail begins a transaction, and the conversation where that is necessary.
func (a *asking) mail(ctx context.Context, s *session, from mail.Address, p smtp.MailParams) error {
	a.over, a.discard, a.missing = a.content, false, false
	if a.content {
		return nil
	}
	if !a.f.answers() {
		return a.fail(nil)
	}
	if err := a.meet(ctx, s); err != nil || a.over {
		return err
	}
	macros := []milter.Macro{{Name: "{mail_addr}", Value: from.String()},
		{Name: "{mail_host}", Value: from.Domain.ASCII()}}
	if name := s.conn.Account(); name != "" {
		macros = append(macros, milter.Macro{Name: "{auth_type}", Value: "SASL"},
			milter.Macro{Name: "{auth_authen}", Value: name})
	}
	answer, err := a.m.Mail(from.Wire(true), mailParams(p), macros...)
	return a.settle(answer, err)
}

// mailParams are the parameters of MAIL as the client gave them.
func mailParams(p smtp.MailParams) (out []string) {
	if p.Size > 0 {
		out = append(out, "SIZE="+strconv.FormatInt(p.Size, 10))
	}
	if p.Body != "" {
		out = append(out, "BODY="+string(p.Body))
	}
	if p.SMTPUTF8 {
		out = append(out, "SMTPUTF8")
	}
	return out
}

// meet opens the conversation and shows the filter the client. Its answer to that stands for all messages of
// the connection.
func (a *asking) meet(ctx context.Context, s *session) error {
	if a.m == nil {
		m, err := milter.Open(ctx, a.f.At)
		if err != nil {
			return a.fail(err)
		}
		a.m, a.helo, a.refusal = m, "", nil
		answer, err := m.Connect(s.clientName(), remote(s.conn), s.connectMacros()...)
		if err := a.settleConn(answer, err); err != nil || a.over {
			return err
		}
	}
	if a.refusal != nil {
		return a.refusal
	}
	if helo := s.conn.Helo(); helo != a.helo {
		answer, err := a.m.Helo(helo, tlsMacros(s.conn.TLS())...)
		a.helo = helo
		return a.settleConn(answer, err)
	}
	return nil
}

// clientName is what a filter is told of the client's name. It is not looked up for the filter's
// sake; those that want to know do so themselves.
func (s *session) clientName() string { return "[" + literal(s.conn.RemoteIP()) + "]" }

func remote(c *smtp.Conn) netip.AddrPort {
	if t, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return t.AddrPort()
	}
	return netip.AddrPortFrom(c.RemoteIP(), 0)
}

func (s *session) connectMacros() []milter.Macro {
	host := s.in.cfg.Hostname
	return []milter.Macro{{Name: "j", Value: host}, {Name: "{daemon_name}", Value: host},
		{Name: "v", Value: "Tallypost"}, {Name: "_", Value: s.clientName()},
		{Name: "{client_addr}", Value: s.conn.RemoteIP().String()}}
}

func tlsMacros(state *tls.ConnectionState) []milter.Macro {
	if state == nil {
		return nil
	}
	return []milter.Macro{
		{Name: "{tls_version}", Value: strings.ReplaceAll(tls.VersionName(state.Version), " ", "v")},
		{Name: "{cipher}", Value: tls.CipherSuiteName(state.CipherSuite)}}
}

// settleConn takes an answer about the connection.
func (a *asking) settleConn(answer milter.Answer, err error) error {
	if err == nil && answer.Verdict == milter.Accept {
		a.content = true
	}
	r := a.settle(answer, err)
	if err == nil && r != nil {
		a.refusal = r
	}
	return r
}

// settle takes an answer about the transaction, or that there is none.
func (a *asking) settle(answer milter.Answer, err error) error {
	if err != nil {
		return a.fail(err)
	}
	switch answer.Verdict {
	case milter.Accept:
		a.over = true
	case milter.Discard:
		a.over, a.discard = true, true
	case milter.Reject, milter.TempFail:
		return &smtp.Reply{Code: answer.Code, Enhanced: answer.Status, Text: answer.Text}
	}
	return nil
}

// fail does without an answer; nil is that there was none a moment ago.
func (a *asking) fail(err error) error {
	if err != nil {
		a.f.failed(err)
	}
	a.close()
	a.over, a.missing = true, true
	return a.absence()
}

// absence is the refusal of what cannot be taken without the filter.
func (a *asking) absence() error {
	if a.missing && a.f.FailClosed {
		return refuse(451, "4.7.1", "the message cannot be checked now: the filter %s does not answer, "+
			"try again later", a.f.Name)
	}
	return nil
}

func (a *asking) close() {
	if a.m != nil {
		a.m.Close()
		a.m = nil
	}
}

// filterWitness shows a message to a filter.
type filterWitness struct {
	*asking
	id mail.ID
}

// begin shows the header.
func (w filterWitness) begin(h mail.Header) error {
	if w.over {
		return w.absence()
	}
	id := milter.Macro{Name: "i", Value: w.id.String()}
	answer, err := w.m.Data(id)
	for _, f := range h.Fields {
		if err != nil || answer.Verdict != milter.Continue {
			break
		}
		answer, err = w.m.Header(f.Name(), f.RawValue())
	}
	if err == nil && answer.Verdict == milter.Continue {
		answer, err = w.m.EndHeader(id)
	}
	return w.settle(answer, err)
}

// Write shows a piece of the body.
func (w filterWitness) Write(p []byte) (int, error) {
	if w.over {
		return len(p), w.absence()
	}
	answer, err := w.m.Body(p)
	return len(p), w.settle(answer, err)
}

// filtered is what filters want of a message in the end.
type filtered struct {
	by     string   // who wants it thrown away; empty: nobody
	aside  string   // why it is to be kept from its recipients; empty: it is not
	spam   string   // why it is to be taken for spam
	edit   edited   // of its header
	absent []string // filters that did not answer
}

// askEnd hears what the filters have to say of the whole message.
func (s *session) askEnd(id mail.ID, h mail.Header) (filtered, error) {
	out := filtered{edit: edited{fields: h.Fields}}
	for _, a := range s.talk {
		changes, err := a.end(id)
		if err != nil {
			return out, err
		}
		if a.discard {
			out.by = a.f.Name
		}
		if a.missing {
			out.absent = append(out.absent, a.f.Name)
		}
		for _, c := range changes {
			out.take(a.f, c)
		}
	}
	return out, nil
}

func (a *asking) end(id mail.ID) ([]milter.Change, error) {
	if a.over {
		return nil, a.absence()
	}
	answer, changes, err := a.m.End(milter.Macro{Name: "i", Value: id.String()})
	return changes, a.settle(answer, err)
}

// take notes one change.
func (out *filtered) take(f *filter, c milter.Change) {
	switch c.Kind {
	case milter.Quarantine:
		out.aside = fmt.Sprintf("the filter %s wants it put aside: %s", f.Name, c.Value)
	case milter.Unasked:
		f.log.Warn("filter wants what it cannot have", "filter", f.Name, "what", c.Name)
	default:
		out.edit.apply(c)
		if isSpamFlag(c) {
			out.spam = fmt.Sprintf("the filter %s says %s:%s", f.Name, c.Name, c.Value)
		}
	}
}

// isSpamFlag reports whether a change is the field by which filters say that a message is spam:
// "X-Spam: Yes" of rspamd, "X-Spam-Flag: YES" and "X-Spam-Status: Yes, ..." of SpamAssassin.
func isSpamFlag(c milter.Change) bool {
	switch strings.ToLower(c.Name) {
	case "x-spam", "x-spam-flag", "x-spam-status":
		word, _, _ := strings.Cut(strings.TrimSpace(c.Value), ",")
		return strings.EqualFold(strings.TrimSpace(word), "yes")
	}
	return false
}

// edited is a header while filters change it. New fields go in front of it, so that the message as it came
// is still the end of what is kept; a field of its own that is changed or deleted takes that away.
type edited struct {
	fields []mail.Field // as the filters saw them
	raw    [][]byte     // what they are now; nil: unchanged altogether
	names  []string     // of those that were changed
	front  []byte
}

func (e *edited) apply(c milter.Change) {
	line := []byte(c.Name + ":" + c.Value + "\r\n")
	switch i := e.find(c); {
	case c.Kind == milter.InsertHeader:
		e.front = append(line, e.front...)
	case c.Kind == milter.AddHeader || i < 0 && c.Value != "":
		e.front = append(e.front, line...)
	case i >= 0:
		if e.raw == nil {
			for _, f := range e.fields {
				e.raw = append(e.raw, f.Raw)
			}
		}
		if c.Value == "" {
			line = nil
		}
		e.raw[i] = line
		e.names = append(e.names, c.Name)
	}
}

// find returns which field a change is about; -1 where there is none.
func (e *edited) find(c milter.Change) int {
	if c.Kind != milter.ChangeHeader {
		return -1
	}
	n := 0
	for i, f := range e.fields {
		if f.Is(c.Name) {
			if n++; n == max(c.Index, 1) {
				return i
			}
		}
	}
	return -1
}

// header returns the header, of which raw is what came in, without what goes in front of it.
func (e *edited) header(raw []byte) []byte {
	if e.raw == nil {
		return raw
	}
	end := 0
	for _, f := range e.fields {
		end += len(f.Raw)
	}
	var out []byte
	for _, b := range e.raw {
		out = append(out, b...)
	}
	return append(out, raw[end:]...)
}

// heldForOperator is when a submission that a filter put aside would be sent if nobody released or dropped it.
const heldForOperator = 10 * 365 * 24 * time.Hour

// heed does what the filters want, but for the header: mail from outside goes to the folder Junk, what an
// account sends is held in the queue until the operator has looked at it.
func (s *session) heed(want *filtered, found *finding) {
	if s.standing() == member {
		if want.aside != "" {
			s.env.HoldUntil = s.in.clock.Now().Add(heldForOperator)
			found.note("held: " + ascii(want.aside))
			s.in.log.Warn("message is held", "account", s.conn.Account(), "why", want.aside)
		}
		return
	}
	if want.aside == "" && want.spam == "" && found.verdict == nil {
		return
	}
	if found.verdict == nil {
		found.verdict = new(verdict)
	}
	v := found.verdict
	for _, why := range []string{want.aside, want.spam} {
		if why != "" {
			v.junk, v.welcome = true, false
			v.add("filter", 0, "%s", why)
		}
	}
	for _, name := range want.absent {
		v.add("filter", 0, "the filter %s did not answer", name)
	}
}

// resign lets a submission be signed as the filters have changed it.
func (sub *submission) resign(e *edited, raw []byte) error {
	if sub.signing == nil || e.raw == nil && e.front == nil {
		return nil
	}
	whole := append([]byte(nil), sub.added...)
	whole = append(append(whole, e.front...), e.header(raw)...)
	h, err := mail.ParseHeader(whole)
	if err != nil {
		return err
	}
	return sub.signing.Replace(h)
}
