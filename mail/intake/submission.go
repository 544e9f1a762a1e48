package intake

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
	"github.com/tallypost/tallypost/mail/dkim"
	"github.com/tallypost/tallypost/mail/dmarc"
)

// submission is a message that one of ours sends (RFC 6409): whose it says to be is held against
// its account, what it lacks is added, and it is signed, while it comes in. It is a witness of
// its message.
//
// A host of Config.RelayFrom answers for its users by itself; its messages are only made complete
// and signed.
type submission struct {
	s         *session
	account   *account.Account // nil: a host that may relay
	now       time.Time
	added     []byte        // fields the message lacked
	messageID string        // that it has then
	domain    mail.Domain   // that signs, or would
	signing   *dkim.Signing // nil: it does not
	bulk      *bulkMail     // nil: the message goes to few
}

// newSubmission begins what is known before the message comes.
func (s *session) newSubmission() *submission {
	sub := &submission{s: s, now: s.in.clock.Now()}
	if name := s.conn.Account(); name != "" {
		sub.account, _ = s.in.accounts.Login(name)
		if sub.account == nil {
			// Closed since MAIL: what it may still send has no address of its own.
			sub.account = &account.Account{}
		}
	}
	return sub
}

// isPrivate reports whether a field is not to leave this server: RFC 5322, section 3.6.3, has the
// list of hidden recipients removed, and Return-Path is for final delivery to add (RFC 5321,
// section 4.4).
//
// What is removed is in neither the digest nor the size that the log commits to: a submission is
// logged as it went on, so that sender and recipient alike can prove it from their copies. That
// there was a Bcc field the log does not say; whom the message went to it does, as it does for
// every message.
func isPrivate(f mail.Field) bool {
	return f.Is("Bcc") || f.Is("Resent-Bcc") || f.Is("Return-Path")
}

// begin takes the header as it will be sent on, but for what is added.
func (sub *submission) begin(h mail.Header) error {
	author, err := dmarc.AuthorOf(h)
	if sub.account != nil {
		if err := sub.checkFrom(author, err); err != nil {
			return err
		}
		if err := sub.checkSender(h, author); err != nil {
			return err
		}
	}
	sub.complete(h)
	sub.domain = sub.s.env.From.Domain
	if len(author.Mailboxes) > 0 && sub.s.in.accounts.IsLocal(author.Mailboxes[0].Domain) {
		sub.domain = author.Mailboxes[0].Domain
	}
	if err := sub.sign(h); err != nil {
		return err
	}
	return sub.beginBulk(h)
}

// checkFrom wants every author to be an address of the account: whoever receives the message
// takes the name in From for the sender's, and our signature would vouch for it.
func (sub *submission) checkFrom(author dmarc.Author, err error) error {
	switch {
	case errors.Is(err, dmarc.ErrNoFrom) && !sub.s.env.From.IsNull():
		sub.add("From", "<"+sub.s.env.From.Wire(sub.s.env.SMTPUTF8)+">")
		return nil
	case errors.Is(err, dmarc.ErrNoFrom), errors.Is(err, dmarc.ErrManyFrom),
		errors.Is(err, dmarc.ErrBadFrom):
		return refuse(550, "5.6.0", "%v: a message has one From field, with an address of its author "+
			"(RFC 5322, section 3.6.2)", err)
	}
	for _, a := range author.Mailboxes {
		if !sub.may(a) {
			return refuse(550, "5.7.1", "From: <%s> is not an address of the account %s: send as one of "+
				"its own, or have the postmaster add this one to it", a, sub.s.conn.Account())
		}
	}
	return nil
}

// checkSender wants the same of Sender, and adds it where several authors share a message (RFC
// 5322, section 3.6.2: "the field MUST appear").
func (sub *submission) checkSender(h mail.Header, author dmarc.Author) error {
	fields := h.All("Sender")
	switch {
	case len(fields) > 1:
		return refuse(550, "5.6.0", "the message has %d Sender fields (RFC 5322, section 3.6)",
			len(fields))
	case len(fields) == 0 && author.Addresses > 1:
		sub.add("Sender", "<"+sub.account.Address.Wire(sub.s.env.SMTPUTF8)+">")
		return nil
	case len(fields) == 0:
		return nil
	}
	sender, err := dmarc.ParseFrom(fields[0].Value())
	if err != nil || sender.Addresses != 1 {
		return refuse(550, "5.6.0", "Sender: one address is wanted (RFC 5322, section 3.6.2)")
	}
	if a := sender.Mailboxes[0]; !sub.may(a) {
		return refuse(550, "5.7.1", "Sender: <%s> is not an address of the account %s", a,
			sub.s.conn.Account())
	}
	return nil
}

func (sub *submission) may(a mail.Address) bool {
	return sub.s.in.accounts.MaySendAs(sub.account, a)
}

func (sub *submission) add(name, value string) {
	sub.added = fmt.Appendf(sub.added, "%s: %s\r\n", name, value)
}

// complete adds Date and Message-ID where they are missing (RFC 6409, section 8). Who relays
// through us would else add them later, and break the signature.
func (sub *submission) complete(h mail.Header) {
	sub.messageID = h.Get("Message-ID")
	if count(h, "Message-ID") == 0 {
		sub.messageID = sub.s.in.newMessageID()
		sub.add("Message-ID", sub.messageID)
	}
	if count(h, "Date") == 0 {
		sub.add("Date", sub.now.Format(mail.DateLayout))
	}
	sub.messageID = sub.messageID[:min(len(sub.messageID), maxMessageID)]
}

func (in *Intake) newMessageID() string {
	return "<" + strings.ToLower(rand.Text()) + "@" + in.cfg.Hostname + ">"
}

// sign begins the signature, if somebody signs for the author's domain.
func (sub *submission) sign(h mail.Header) error {
	if sub.s.in.cfg.Signer == nil || !sub.s.in.accounts.IsLocal(sub.domain) {
		return nil
	}
	signer := sub.s.in.cfg.Signer(sub.domain)
	if signer == nil {
		return nil
	}
	added, err := mail.ParseHeader(sub.added)
	if err != nil { // we wrote it
		return err
	}
	whole := mail.Header{Fields: append(added.Fields, h.Fields...), Len: added.Len + h.Len}
	sub.signing, err = signer.Begin(whole, sub.now)
	if err != nil {
		// A host that may relay sends what has no author, or two: that goes on as it is.
		sub.s.in.log.Info("message goes unsigned", "domain", sub.domain, "err", err)
		sub.signing = nil
	}
	return nil
}

// Write takes the body.
func (sub *submission) Write(p []byte) (int, error) {
	if sub.signing != nil {
		sub.signing.Write(p)
	}
	if sub.bulk != nil {
		sub.bulk.keep(p)
	}
	return len(p), nil
}

// finish returns the fields that go in front of the message: its signatures, and what it lacked.
func (sub *submission) finish(ctx context.Context) ([]byte, error) {
	if err := sub.finishBulk(); err != nil {
		return nil, err
	}
	if sub.signing == nil {
		return sub.added, nil
	}
	// An RSA signature is a millisecond of computing. However many messages end at once, no more
	// of them are signed than there are processors, so that those who are almost done get their
	// turn.
	select {
	case sub.s.in.signing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	fields, err := sub.signing.Finish()
	<-sub.s.in.signing
	if err != nil {
		return nil, err
	}
	return append(fields, sub.added...), nil
}
