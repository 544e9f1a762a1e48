package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"

	"github.com/tallypost/tallypost/mail"
)

// BulkPolicy says what becomes of mail to many strangers that lacks what large receivers, and
// laws, want of it: a way out with one click (RFC 8058), signed, and a postal address in the
// text.
type BulkPolicy string

// The policies; empty is BulkOff.
const (
	BulkOff    BulkPolicy = "off"
	BulkWarn   BulkPolicy = "warn" // sent on; its sender is told, once a day
	BulkRefuse BulkPolicy = "refuse"
)

// Bulk is the rule for mail to many.
type Bulk struct {
	Policy BulkPolicy
	// Recipients are how many at other servers one message, or all messages of an account with
	// one List-Id or Subject, may have in a time before they are bulk mail. Zero: 50 an hour.
	Recipients Rate
	// PostalAddresses are texts of which bulk mail must have one, as "Example Ltd, 1 High Street,
	// London". Only their letters and digits count. None: no address is looked for.
	PostalAddresses []string
}

func (b *Bulk) fill() {
	if b.Policy == "" {
		b.Policy = BulkOff
	}
	if b.Recipients.Count == 0 {
		b.Recipients = Rate{Count: 50, Per: time.Hour}
	}
}

// bulkNotice is how often an account is told.
var bulkNotice = Rate{Count: 1, Per: 24 * time.Hour}

// maxBulkBody is how much of a body is searched for a postal address, in octets.
const maxBulkBody = 1 << 20

// bulkMail is a message to many.
type bulkMail struct {
	lacks   []string // in words
	address bool     // a postal address is looked for
	text    []byte   // of the message, where it is
}

func (b *bulkMail) keep(p []byte) {
	if b.address {
		b.text = append(b.text, p[:max(min(len(p), maxBulkBody-len(b.text)), 0)]...)
	}
}

// beginBulk finds out whether the message goes to many, and looks at its header.
func (sub *submission) beginBulk(h mail.Header) error {
	in := sub.s.in
	if in.cfg.Bulk.Policy == BulkOff || sub.account == nil {
		return nil
	}
	strangers := int64(0)
	for _, to := range sub.s.env.Recipients {
		if !in.accounts.IsLocal(to.Address.Domain) {
			strangers++
		}
	}
	if strangers == 0 || in.bulk.take(campaign(sub.account.Address, h), strangers, sub.now) == 0 {
		return nil
	}
	sub.bulk = new(bulkMail)
	if !oneClick(h) {
		sub.bulk.lacks = append(sub.bulk.lacks, "a way to unsubscribe with one click: the fields "+
			"List-Unsubscribe with an https address, and List-Unsubscribe-Post: "+
			"List-Unsubscribe=One-Click (RFC 8058)")
	}
	if sub.signing == nil {
		sub.bulk.lacks = append(sub.bulk.lacks, fmt.Sprintf("a DKIM signature: the keys of %s are not "+
			"in the DNS yet, its postmaster knows what to publish", sub.domain))
	}
	if len(in.cfg.Bulk.PostalAddresses) > 0 {
		sub.bulk.address = true
		for _, f := range h.Fields {
			if f.Is("Content-Type") || f.Is("Content-Transfer-Encoding") || f.Is("MIME-Version") {
				sub.bulk.text = append(sub.bulk.text, f.Raw...)
			}
		}
		sub.bulk.text = append(sub.bulk.text, '\r', '\n')
	}
	return nil
}

// campaign names the messages that are counted together: those of a list, else those with one
// subject. A message sent to each recipient alone is one campaign as well.
func campaign(account mail.Address, h mail.Header) [sha256.Size]byte {
	what := "list " + h.Get("List-Id")
	if what == "list " {
		what = "subject " + h.Get("Subject")
	}
	if what == "subject " {
		what = "message " + h.Get("Message-ID")
	}
	return sha256.Sum256([]byte(account.String() + "\n" + what))
}

// oneClick reports whether a header lets its reader unsubscribe as RFC 8058, section 3.1, has it.
func oneClick(h mail.Header) bool {
	out, post := h.All("List-Unsubscribe"), h.All("List-Unsubscribe-Post")
	return len(out) == 1 && len(post) == 1 &&
		strings.Contains(strings.ToLower(out[0].Value()), "<https://") &&
		strings.EqualFold(post[0].Value(), "List-Unsubscribe=One-Click")
}

// finishBulk looks for the postal address, and refuses where the policy says so.
func (sub *submission) finishBulk() error {
	b, in := sub.bulk, sub.s.in
	if b == nil {
		return nil
	}
	if b.address && !hasAddress(b.text, in.cfg.Bulk.PostalAddresses) {
		b.lacks = append(b.lacks, "your postal address in the text: "+in.cfg.Bulk.PostalAddresses[0])
	}
	b.text = nil
	if len(b.lacks) == 0 {
		return nil
	}
	in.log.Warn("bulk mail that lacks something", "account", sub.account.Address,
		"policy", in.cfg.Bulk.Policy, "lacks", strings.Join(b.lacks, "; "))
	if in.cfg.Bulk.Policy == BulkRefuse {
		return refuse(550, "5.7.1", "mail to so many recipients must have %s",
			strings.Join(b.lacks, "; and "))
	}
	return nil
}

// hasAddress reports whether a text part of the message has one of the addresses.
func hasAddress(msg []byte, addresses []string) bool {
	for _, p := range mail.Leaves(msg) {
		if !strings.HasPrefix(p.Type, "text/") {
			continue
		}
		b, err := p.Decode(maxBulkBody)
		if err != nil {
			continue
		}
		text := string(b)
		if !utf8.ValidString(text) {
			latin, err := charmap.Windows1252.NewDecoder().String(text)
			if err != nil {
				continue
			}
			text = latin
		}
		if p.Type == "text/html" {
			text = html.UnescapeString(tag.ReplaceAllString(text, " "))
		}
		text = words(text)
		for _, a := range addresses {
			if strings.Contains(text, words(a)) {
				return true
			}
		}
	}
	return false
}

var tag = regexp.MustCompile(`<[^>]*>`)

// words keeps letters and digits, in lower case, with one space between words and round them all.
func words(s string) string {
	other := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }
	return " " + strings.Join(strings.FieldsFunc(strings.ToLower(s), other), " ") + " "
}

// warn tells the sender of bulk mail what it lacks, once a day. The message is accepted already,
// so that nothing depends on it.
func (sub *submission) warn(ctx context.Context) {
	in := sub.s.in
	if sub.bulk == nil || len(sub.bulk.lacks) == 0 {
		return
	}
	to := sub.account.Address
	if in.bulkTold.take(to, 1, sub.now) > 0 {
		return
	}
	if err := in.tell(ctx, to, "Your mail to many recipients", bulkText(sub)); err != nil {
		in.log.Warn("the sender of bulk mail could not be told", "account", to, "err", err)
	}
}

func bulkText(sub *submission) string {
	var b strings.Builder
	r := sub.s.in.cfg.Bulk.Recipients
	fmt.Fprintf(&b, "The message %s that you sent just now\n"+
		"goes to more than %d recipients at other servers within %s. It was sent on, but it lacks\n\n",
		sub.messageID, r.Count, r.Per)
	for _, l := range sub.bulk.lacks {
		fmt.Fprintf(&b, "- %s\n", l)
	}
	b.WriteString("\nLarge receivers put such mail into the junk folder or refuse it, and then\n" +
		"other mail of this server too; in many countries a law asks for some of this.\n" +
		"Programs for newsletters do it by themselves. This notice comes at most once\na day.\n")
	return b.String()
}

// tell sends a notice of this server's to an account.
func (in *Intake) tell(ctx context.Context, to mail.Address, subject, text string) error {
	now := in.clock.Now()
	var b strings.Builder
	field := func(name, value string) { b.WriteString(name + ": " + value + "\r\n") }
	id := in.newMessageID()
	field("From", "<postmaster@"+to.Domain.ASCII()+">")
	field("To", "<"+to.Wire(true)+">")
	field("Subject", subject)
	field("Date", now.Format(mail.DateLayout))
	field("Message-ID", id)
	field("Auto-Submitted", "auto-generated") // RFC 3834
	field("MIME-Version", "1.0")
	field("Content-Type", "text/plain; charset=utf-8")
	field("Content-Transfer-Encoding", "8bit")
	b.WriteString("\r\n" + strings.ReplaceAll(text, "\n", "\r\n"))

	msg := in.queue.NewMessage()
	defer msg.Abort()
	if _, err := msg.Write([]byte(b.String())); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(b.String()))
	env := mail.Envelope{Body: mail.Body8BitMIME, SMTPUTF8: !to.IsASCII(),
		Recipients: []mail.Recipient{{Address: to, Notify: mail.NotifyNever}}}
	_, err := msg.Commit(ctx, nil, env, mail.Event{Kind: mail.SubmissionAcceptance, MessageID: id,
		Size: int64(b.Len()), SHA256: hex.EncodeToString(sum[:]), Note: "notice to an account"})
	return err
}
