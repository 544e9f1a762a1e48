package intake

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// Data takes the message.
func (s *session) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	reply, err := s.data(ctx, r)
	return reply, s.counted("data", err)
}

func (s *session) data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	msg := s.in.queue.NewMessage()
	defer msg.Abort()
	rcv, sub := s.receiver(msg)
	defer rcv.release()
	if _, err := io.Copy(rcv, r); err != nil {
		return smtp.Reply{}, queueReply(err)
	}
	if err := rcv.close(); err != nil {
		return smtp.Reply{}, queueReply(err)
	}
	if err := s.in.limits.size(s.conn.RemoteIP(), s.conn.Account(), rcv.size); err != nil {
		return smtp.Reply{}, err
	}
	if err := s.fits(rcv.size); err != nil {
		return smtp.Reply{}, err
	}
	if n := count(rcv.header, "Received"); n >= s.in.cfg.MaxHops {
		return smtp.Reply{}, refuse(554, "5.4.6", "mail loop: the message has passed %d servers", n)
	}
	if err := s.loops(rcv.header); err != nil {
		return smtp.Reply{}, err
	}
	return s.accept(ctx, msg, rcv, sub)
}

// loops refuses a message that comes back to mailboxes which have had it, as Delivered-To says: delivery
// would return it, and anybody can write that field to have it returned to somebody else. Where others are
// to have the message, too, those mailboxes fail without a report.
func (s *session) loops(h mail.Header) error {
	had := h.All("Delivered-To")
	if len(had) == 0 {
		return nil
	}
	n := 0
	for i := range s.env.Recipients {
		to := &s.env.Recipients[i]
		name := to.Address.String()
		if s.in.accounts.IsLocal(to.Address.Domain) && slices.ContainsFunc(had, func(f mail.Field) bool {
			return strings.EqualFold(strings.TrimSpace(f.Value()), name)
		}) {
			n++
			to.Notify = mail.NotifyNever
		}
	}
	if n > 0 && n == len(s.env.Recipients) {
		return refuse(554, "5.4.6", "mail loop: <%s> has had the message before", s.env.Recipients[0].Address)
	}
	return nil
}

// accept judges a message that is here whole, and puts it into the queue.
func (s *session) accept(ctx context.Context, msg *queue.Incoming, rcv *receiver,
	sub *submission) (smtp.Reply, error) {
	found, err := s.weigh(ctx, rcv)
	if err != nil {
		return smtp.Reply{}, err
	}
	want, err := s.askEnd(msg.ID(), rcv.header)
	if err != nil {
		return smtp.Reply{}, err
	}
	if want.by != "" {
		return s.discarded(msg.ID(), want.by), nil
	}
	s.heed(&want, &found)
	if sub != nil {
		if err = sub.resign(&want.edit, rcv.raw); err == nil {
			found.back, err = sub.finish(ctx)
		}
		if err != nil {
			return smtp.Reply{}, err
		}
	}
	prefix, messageID := s.prefix(msg.ID(), rcv, &want.edit, &found)
	if sub != nil {
		messageID = sub.messageID
	}
	s.archive()
	ev := s.event(messageID, rcv, &found)
	receipt, err := msg.Commit(ctx, prefix, s.env, ev)
	if err != nil {
		return smtp.Reply{}, queueReply(err)
	}
	s.in.log.Info("accepted", "msg", receipt.ID, "from", s.env.From,
		"rcpts", len(s.env.Recipients), "size", rcv.size, "peer", s.conn.RemoteIP(),
		"account", s.conn.Account(), "log", receipt.Index, "verdict", ev.Note)
	if sub != nil {
		sub.warn(ctx)
	}
	return smtp.Reply{Code: 250, Enhanced: "2.0.0",
		Text: fmt.Sprintf("%s queued log=%s#%d", receipt.ID, s.in.origin, receipt.Index)}, nil
}

// archive adds the recipient of copies.
func (s *session) archive() {
	to := s.in.cfg.Archive
	if to.IsNull() {
		return
	}
	copyTo := mail.Recipient{Address: to, Notify: mail.NotifyNever}
	if targets, err := s.in.accounts.Resolve(to); err == nil && len(targets) == 1 {
		copyTo.Address = targets[0].Address
	}
	s.add(copyTo)
}

// discarded is the answer for a message that a filter wants thrown away.
func (s *session) discarded(id mail.ID, by string) smtp.Reply {
	s.in.digest.count("data discarded by the filter " + by)
	s.in.log.Info("discarded", "msg", id, "from", s.env.From, "rcpts", len(s.env.Recipients),
		"peer", s.conn.RemoteIP(), "account", s.conn.Account(), "filter", by)
	return smtp.Reply{Code: 250, Enhanced: "2.0.0",
		Text: fmt.Sprintf("%s taken and thrown away, as the filter %s wants it", id, by)}
}

// receiver returns the receiver of a message, with those who want to see it come in; the submission is nil
// for a stranger's.
func (s *session) receiver(msg *queue.Incoming) (*receiver, *submission) {
	rcv := newReceiver(msg, &s.in.headers)
	who := s.standing()
	if who != friend { // whose fields are of a server of our own
		rcv.forged = s.in.forged
		rcv.witnesses = append(rcv.witnesses, new(mimeScan))
	}
	var sub *submission
	if who == stranger {
		rcv.witnesses = append(rcv.witnesses, s.auth)
		if n := s.in.cfg.SampleBytes; n > 0 {
			rcv.sample = &sample{most: n}
			rcv.witnesses = append(rcv.witnesses, rcv.sample)
		}
	} else {
		sub = s.newSubmission()
		rcv.private = isPrivate
		rcv.witnesses = append(rcv.witnesses, sub)
	}
	for _, a := range s.talk {
		rcv.witnesses = append(rcv.witnesses, filterWitness{a, msg.ID()})
		rcv.hold = rcv.hold || a.m != nil && a.m.ChangesHeader()
	}
	return rcv, sub
}

// forged reports whether a field pretends to be ours.
func (in *Intake) forged(f mail.Field) bool {
	return f.Is(VerdictField) || f.BearsAuthServID(in.cfg.Hostname)
}

// finding is what was found out about a message, and the fields that say so.
type finding struct {
	id      *identity // nil where the client is trusted
	verdict *verdict  // likewise, unless a filter has something against the message
	back    []byte    // fields behind Received
	notes   []string  // for the event
}

func (f *finding) note(words string) { f.notes = append(f.notes, words) }

// weigh judges a message of a stranger.
func (s *session) weigh(ctx context.Context, rcv *receiver) (finding, error) {
	if s.standing() != stranger {
		return finding{}, nil
	}
	in, id := s.in, s.auth.finish()
	rule := in.ruling(s.conn.RemoteIP(), s.env.From, nil, &rcv.header)
	if rule != nil && rule.reply() != nil && s.others {
		return finding{}, rule.reply()
	}
	l := &Letter{Client: s.conn.RemoteIP(), Host: id.iprev.name, Helo: s.conn.Helo(),
		Envelope: s.env, Header: rcv.header, Size: rcv.size, Author: id.author.Domain,
		DMARC: id.dmarc.Result, Domains: id.domains()}
	if rcv.sample != nil {
		l.Start = rcv.sample.octets
	}
	v, err := in.judge(ctx, id, s.host.listings(), l, doubt{postmaster: !s.others, rule: rule})
	if err != nil {
		return finding{}, err
	}
	if err := s.greylist(v); err != nil {
		return finding{}, err
	}
	return finding{id: id, verdict: v, back: id.results(in.cfg.Hostname, l.Client).Field()}, nil
}

// greylist defers what nobody speaks for until it comes again.
func (s *session) greylist(v *verdict) error {
	g := s.in.grey
	if g == nil || v.good {
		return nil
	}
	wait := g.wait(network(s.conn.RemoteIP()), s.env.From, s.env.Recipients, s.in.clock.Now())
	if wait <= 0 {
		return nil
	}
	return refuse(450, "4.7.1", "greylisted: you are new here, try again in %s", seconds(wait))
}

// sample is a witness that keeps the beginning of the body.
type sample struct {
	most   int
	octets []byte
}

func (s *sample) begin(mail.Header) error { return nil }

// Write takes the body.
func (s *sample) Write(p []byte) (int, error) {
	s.octets = append(s.octets, p[:min(len(p), s.most-len(s.octets))]...)
	return len(p), nil
}

func count(h mail.Header, name string) (n int) {
	for _, f := range h.Fields {
		if f.Is(name) {
			n++
		}
	}
	return n
}

// maxMessageID bounds what the log keeps of a Message-ID, in octets: a line of RFC 5322.
const maxMessageID = 998

// prefix returns what goes in front of a message, and its Message-ID: verdict, trace, results and
// what filters have added; then the header, where the queue has not got it yet.
func (s *session) prefix(id mail.ID, rcv *receiver, edit *edited,
	found *finding) (prefix []byte, messageID string) {
	if found.verdict != nil {
		prefix = found.verdict.field(s.in.cfg.Thresholds)
	}
	prefix = append(prefix, s.trace(id, found.id)...)
	prefix = append(prefix, found.back...)
	prefix = append(prefix, edit.front...)
	if rcv.hold {
		prefix = append(prefix, edit.header(rcv.raw)...)
	}
	if edit.names != nil {
		found.note("filters changed " + ascii(strings.Join(edit.names, ", ")) +
			": the digest is of the message as it came")
	}
	messageID = rcv.header.Get("Message-ID")
	return prefix, messageID[:min(len(messageID), maxMessageID)]
}

// trace returns the Received field.
func (s *session) trace(id mail.ID, who *identity) []byte {
	now := s.in.clock.Now()
	rcv := received{helo: s.conn.Helo(), remote: s.conn.RemoteIP(), by: s.in.cfg.Hostname,
		protocol: s.conn.Protocol(), tls: s.conn.TLS(), id: id, at: now, utf8: s.env.SMTPUTF8}
	if len(s.asked) == 1 {
		rcv.rcpt = &s.asked[0]
	}
	if who != nil {
		rcv.rdns = who.iprev.name
	}
	return rcv.field()
}

// event is the acceptance, for the log.
func (s *session) event(messageID string, rcv *receiver, found *finding) mail.Event {
	ev := mail.Event{Kind: mail.SubmissionAcceptance, MessageID: messageID, Size: rcv.size,
		SHA256: rcv.sum(), Peer: s.peer()}
	if s.standing() == stranger {
		ev.Kind = mail.ReceivedFromNonERDS
	}
	if rcv.removed > 0 {
		found.note(fmt.Sprintf("fields forged in our name and left out: %d", rcv.removed))
	}
	notes := found.notes
	if v := found.verdict; v != nil {
		notes = append([]string{v.word(s.in.cfg.Thresholds), v.String()}, notes...)
	}
	ev.Note = strings.Join(notes, "; ")
	return ev
}

func (s *session) peer() *mail.Peer {
	p := &mail.Peer{Name: s.conn.Helo(), Addr: s.conn.RemoteIP().String(), Account: s.conn.Account()}
	if state := s.conn.TLS(); state != nil {
		p.SetTLS(*state)
	}
	return p
}
