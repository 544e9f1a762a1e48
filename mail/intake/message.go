package intake

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// Data takes the message: stream it once, judge it, put the trace in front, make it the queue's.
func (s *session) Data(ctx context.Context, r io.Reader) (smtp.Reply, error) {
	msg := s.in.queue.NewMessage()
	defer msg.Abort()
	rcv := &receiver{msg: msg, hash: sha256.New(), servID: s.in.cfg.Hostname}
	if !s.trusted() {
		rcv.auth = s.in.authenticate(ctx, s.conn.RemoteIP(), s.conn.Helo(), s.env.From)
		defer rcv.auth.close()
	}
	if _, err := io.Copy(rcv, r); err != nil {
		return smtp.Reply{}, queueReply(err)
	}
	if err := rcv.close(); err != nil {
		return smtp.Reply{}, queueReply(err)
	}
	if err := s.in.limits.size(s.conn.RemoteIP(), s.conn.Account(), rcv.size); err != nil {
		return smtp.Reply{}, err
	}
	if n := len(rcv.header.All("Received")); n >= s.in.cfg.MaxHops {
		return smtp.Reply{}, refuse(554, "5.4.6", "mail loop: the message has passed %d servers", n)
	}
	prefix, ev, err := s.accept(msg.ID(), rcv)
	if err != nil {
		return smtp.Reply{}, err
	}
	receipt, err := msg.Commit(ctx, prefix, s.env, ev)
	if err != nil {
		return smtp.Reply{}, queueReply(err)
	}
	s.in.log.Info("accepted", "msg", receipt.ID, "from", s.env.From, "rcpts", len(s.env.Recipients),
		"size", rcv.size, "peer", s.conn.RemoteIP(), "account", s.conn.Account(), "log", receipt.Index,
		"verdict", ev.Note)
	return smtp.Reply{Code: 250, Enhanced: "2.0.0",
		Text: fmt.Sprintf("%s queued log=%s#%d", receipt.ID, s.in.origin, receipt.Index)}, nil
}

// accept judges a message from outside, and returns the fields to put in front and the event for the log.
func (s *session) accept(id mail.ID, rcv *receiver) (prefix []byte, ev mail.Event, err error) {
	trace, messageID := s.trace(id, rcv)
	ev = s.event(messageID, rcv)
	if rcv.auth == nil {
		return trace, ev, nil
	}
	who := rcv.auth.finish()
	v, err := s.in.judge(who, rcv.header)
	if err != nil {
		return nil, ev, err
	}
	ev.Note = v.String()
	prefix = append(v.field(s.in.cfg.Thresholds), trace...)
	return append(prefix, who.results(s.in.cfg.Hostname, s.conn.RemoteIP()).Field()...), ev, nil
}

// queueReply turns the queue's errors into replies; others pass.
func queueReply(err error) error {
	switch {
	case errors.Is(err, queue.ErrFull):
		return refuse(452, "4.3.1", "no room for your message at the moment, try again later")
	case errors.Is(err, queue.ErrStopped):
		return refuse(421, "4.3.2", "shutting down, try again later")
	case errors.Is(err, queue.ErrBroken):
		return refuse(421, "4.3.0", "storage has failed, try again later")
	}
	return err
}

// receiver passes the octets of a message on: all to the hash, the header to whoever must know it before the
// body comes, and to the queue all but the Authentication-Results that somebody forged in our name (RFC
// 8601, section 5). A message that had some is evidence no more of what came in, except with a copy of its
// own.
type receiver struct {
	msg    *queue.Incoming
	hash   hash.Hash
	size   int64
	auth   *authentication // nil for those who may relay
	servID string

	raw    []byte // header section, while it comes in
	header mail.Header
	inBody bool
}

// Write takes a piece of the message.
func (r *receiver) Write(p []byte) (int, error) {
	r.size += int64(len(p))
	r.hash.Write(p)
	n := len(p)
	if !r.inBody {
		rest, whole := r.collect(p)
		if !whole {
			return n, nil
		}
		if err := r.begin(); err != nil {
			return 0, err
		}
		p = rest
	}
	return n, r.body(p)
}

func (r *receiver) body(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if r.auth != nil {
		r.auth.Write(p)
	}
	_, err := r.msg.Write(p)
	return err
}

// collect adds p to the header section, and reports whether it is whole now; rest is what comes after it.
func (r *receiver) collect(p []byte) (rest []byte, whole bool) {
	before := len(r.raw)
	r.raw = append(r.raw, p...)
	if bytes.HasPrefix(r.raw, []byte("\r\n")) {
		return r.cut(before, 2), true
	}
	from := max(before-3, 0)
	if i := bytes.Index(r.raw[from:], []byte("\r\n\r\n")); i >= 0 {
		return r.cut(before, from+i+4), true
	}
	return nil, len(r.raw) > mail.MaxHeaderBytes
}

// cut ends the header section at n; what of the last piece lies behind is returned.
func (r *receiver) cut(before, n int) []byte {
	rest := r.raw[n:]
	r.raw = r.raw[:n:n]
	return rest
}

// begin is called once the header section is there.
func (r *receiver) begin() error {
	r.inBody = true
	var err error
	r.header, err = mail.ParseHeader(r.raw)
	if errors.Is(err, mail.ErrHeaderTooLarge) {
		return refuse(552, "5.3.4", "%v", err)
	}
	// A line that is no field ends the header, as every other server has it: the rest is body.
	body := r.raw[r.header.Len:]
	if r.auth != nil {
		r.auth.begin(r.header)
	}
	if err := r.keepHeader(); err != nil {
		return err
	}
	return r.body(body)
}

// keepHeader writes the header to the queue, without forged results.
func (r *receiver) keepHeader() error {
	forged := false
	for _, f := range r.header.Fields {
		forged = forged || r.forged(f)
	}
	if !forged {
		_, err := r.msg.Write(r.raw[:r.header.Len])
		return err
	}
	end := 0
	for _, f := range r.header.Fields {
		end += len(f.Raw)
		if r.forged(f) {
			continue
		}
		if _, err := r.msg.Write(f.Raw); err != nil {
			return err
		}
	}
	_, err := r.msg.Write(r.raw[end:r.header.Len])
	return err
}

func (r *receiver) forged(f mail.Field) bool {
	return r.auth != nil && (f.Is(VerdictField) || f.BearsAuthServID(r.servID))
}

// close is called when the message has ended: one without a body may have ended in its header.
func (r *receiver) close() error {
	if r.inBody {
		return nil
	}
	return r.begin()
}

// trace returns the fields that go in front of the message, and the Message-ID it has then. A message that
// was submitted gets the Date and Message-ID it lacks (RFC 6409, section 8).
func (s *session) trace(id mail.ID, msg *receiver) (prefix []byte, messageID string) {
	header := msg.header
	now := s.in.clock.Now()
	rcv := received{helo: s.conn.Helo(), remote: s.conn.RemoteIP(), by: s.in.cfg.Hostname,
		protocol: s.conn.Protocol(), tls: s.conn.TLS(), account: s.conn.Account(), id: id, at: now}
	if len(s.asked) == 1 {
		rcv.rcpt = &s.asked[0]
	}
	if msg.auth != nil {
		msg.auth.wg.Wait()
		rcv.rdns = msg.auth.iprev.name
	}
	prefix = rcv.field()
	messageID = header.Get("Message-ID")
	if !s.conn.Submission() {
		return prefix, messageID
	}
	if messageID == "" {
		var b [12]byte
		rand.Read(b[:])
		messageID = fmt.Sprintf("<%s.%x@%s>", id, b, s.in.cfg.Hostname)
		prefix = fmt.Appendf(prefix, "Message-ID: %s\r\n", messageID)
	}
	if len(header.All("Date")) == 0 {
		prefix = fmt.Appendf(prefix, "Date: %s\r\n", now.Format(mail.DateLayout))
	}
	return prefix, messageID
}

// event is the acceptance, for the log.
func (s *session) event(messageID string, rcv *receiver) mail.Event {
	ev := mail.Event{Kind: mail.ReceivedFromNonERDS, MessageID: messageID, Size: rcv.size,
		SHA256: hex.EncodeToString(rcv.hash.Sum(nil)), Peer: s.peer()}
	if s.trusted() {
		ev.Kind = mail.SubmissionAcceptance
	}
	return ev
}

func (s *session) peer() *mail.Peer {
	p := &mail.Peer{Name: s.conn.Helo(), Addr: s.conn.RemoteIP().String(), Account: s.conn.Account()}
	if state := s.conn.TLS(); state != nil {
		p.SetTLS(*state)
	}
	return p
}
