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
	rcv := &receiver{msg: msg, hash: sha256.New()}
	if _, err := io.Copy(rcv, r); err != nil {
		return smtp.Reply{}, queueReply(err)
	}
	header, err := rcv.parse()
	if err != nil {
		return smtp.Reply{}, refuse(550, "5.6.0", "the message's header cannot be read: %v", err)
	}
	if n := len(header.All("Received")); n >= s.in.cfg.MaxHops {
		return smtp.Reply{}, refuse(554, "5.4.6", "mail loop: the message has passed %d servers", n)
	}
	prefix, messageID := s.trace(msg.ID(), header)
	receipt, err := msg.Commit(ctx, prefix, s.env, s.event(messageID, rcv))
	if err != nil {
		return smtp.Reply{}, queueReply(err)
	}
	s.in.log.Info("accepted", "msg", receipt.ID, "from", s.env.From, "rcpts", len(s.env.Recipients),
		"size", rcv.size, "peer", s.conn.RemoteIP(), "account", s.conn.Account(), "log", receipt.Index)
	return smtp.Reply{Code: 250, Enhanced: "2.0.0",
		Text: fmt.Sprintf("%s queued log=%s#%d", receipt.ID, s.in.origin, receipt.Index)}, nil
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

// receiver passes the octets of a message on to the queue, hashes them and keeps the header.
type receiver struct {
	msg    *queue.Incoming
	hash   hash.Hash
	size   int64
	header []byte
	inBody bool
}

// Write takes a piece of the message.
func (r *receiver) Write(p []byte) (int, error) {
	r.size += int64(len(p))
	r.hash.Write(p)
	if !r.inBody {
		r.keepHeader(p)
	}
	return r.msg.Write(p)
}

// keepHeader collects up to the empty line, or one octet more than a header may have.
func (r *receiver) keepHeader(p []byte) {
	from := max(len(r.header)-3, 0)
	r.header = append(r.header, p[:min(len(p), mail.MaxHeaderBytes+1-len(r.header))]...)
	if bytes.HasPrefix(r.header, []byte("\r\n")) {
		r.inBody = true
		return
	}
	if i := bytes.Index(r.header[from:], []byte("\r\n\r\n")); i >= 0 {
		r.header = r.header[:from+i+4]
		r.inBody = true
	}
	r.inBody = r.inBody || len(r.header) > mail.MaxHeaderBytes
}

// parse returns the header. A line that is no field ends it, as every other server has it: the rest is
// body.
func (r *receiver) parse() (mail.Header, error) {
	h, err := mail.ParseHeader(r.header)
	if errors.Is(err, mail.ErrHeaderLine) {
		return h, nil
	}
	return h, err
}

// trace returns the fields that go in front of the message, and the Message-ID it has then. A message that
// was submitted gets the Date and Message-ID it lacks (RFC 6409, section 8).
func (s *session) trace(id mail.ID, header mail.Header) (prefix []byte, messageID string) {
	now := s.in.clock.Now()
	rcv := received{helo: s.conn.Helo(), remote: s.conn.RemoteIP(), by: s.in.cfg.Hostname,
		protocol: s.conn.Protocol(), tls: s.conn.TLS(), account: s.conn.Account(), id: id, at: now}
	if len(s.asked) == 1 {
		rcv.rcpt = &s.asked[0]
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
