package intake

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
	"github.com/tallypost/tallypost/mail/srs"
)

// standing says what a client may do.
type standing uint8

const (
	stranger standing = iota // another server: may send to us, and is looked at closely
	friend                   // of Config.RelayFrom: may send to the world
	member                   // logged in: may send to the world, by its own name
)

// session is the smtp.Session of one connection.
type session struct {
	in   *Intake
	conn *smtp.Conn
	host *host     // the client's address, once somebody wants to know
	talk []*asking // with the filters; none before the first MAIL

	env   mail.Envelope   // of the transaction
	size  int64           // that MAIL announced; 0: none
	seen  map[string]bool // recipients in env, so that each gets one copy; nil for one or none
	asked []mail.Address  // recipients here as the client named them
	// others says that the client named somebody who is no postmaster. ORCPT cannot tell: it is a claim.
	others bool
	auth   *authentication // of a stranger, from the first recipient on
}

func refuse(code int, enhanced, format string, args ...any) *smtp.Reply {
	return &smtp.Reply{Code: code, Enhanced: enhanced, Text: fmt.Sprintf(format, args...)}
}

// standing returns what the client may do now.
func (s *session) standing() standing {
	switch {
	case s.conn.Account() != "":
		return member
	case s.in.mayRelay(s.conn.RemoteIP()):
		return friend
	}
	return stranger
}

// counted counts a refusal of a stranger for the digest.
func (s *session) counted(at string, err error) error {
	if err != nil && s.standing() == stranger {
		s.in.digest.refused(at, err)
	}
	return err
}

// Mail begins a transaction.
func (s *session) Mail(ctx context.Context, from mail.Address, p smtp.MailParams) error {
	return s.counted("mail", s.mail(ctx, from, p))
}

func (s *session) mail(ctx context.Context, from mail.Address, p smtp.MailParams) error {
	if wait := s.in.limits.patience(); wait > 0 {
		s.conn.Hurry(wait)
	}
	if s.conn.Submission() && s.standing() == stranger {
		return refuse(530, "5.7.0", "log in first: this port takes mail from accounts only")
	}
	if name := s.conn.Account(); name != "" {
		acc, ok := s.in.accounts.Login(name)
		if !ok {
			return refuse(535, "5.7.8", "the account %s has been closed", name)
		}
		if !from.IsNull() && !s.in.accounts.MaySendAs(acc, from) {
			return refuse(553, "5.7.1", "<%s> is not an address of the account %s", from, name)
		}
	}
	if err := s.in.limits.message(s.conn.RemoteIP(), s.conn.Account(), p.Size); err != nil {
		return err
	}
	if err := s.in.queue.Accepting(); err != nil {
		return queueReply(err)
	}
	if err := s.askMail(ctx, from, p); err != nil {
		s.askReset()
		return err
	}
	s.env, s.size = p.Envelope(from), p.Size
	return nil
}

// Rcpt adds the mailboxes, or the addresses elsewhere, that a recipient leads to.
func (s *session) Rcpt(ctx context.Context, to mail.Recipient) error {
	return s.counted("rcpt", s.rcpt(ctx, to))
}

func (s *session) rcpt(ctx context.Context, to mail.Recipient) error {
	if err := s.in.limits.recipient(s.conn.Account()); err != nil {
		return err
	}
	addr := s.atHome(to.Address)
	found, err := s.lookUp(addr, to)
	if err != nil {
		return err
	}
	if s.standing() == stranger {
		rule := s.in.ruling(s.conn.RemoteIP(), s.env.From, &addr, nil)
		if rule != nil && rule.reply() != nil && !isPostmaster(addr) {
			return s.unless(rule.reply())
		}
		if err := s.meet(ctx, addr, rule); err != nil {
			return err
		}
	}
	if err := s.askRcpt(to.Address); err != nil {
		return err
	}
	for _, to := range found {
		s.add(to)
	}
	s.others = s.others || !isPostmaster(addr)
	if s.in.accounts.IsLocal(addr.Domain) {
		s.asked = append(s.asked, addr)
	}
	return nil
}

// atHome gives an address that names this server itself a domain of ours: "postmaster" alone and at the host
// name, which reports give as the place for questions (RFC 5321, section 4.5.1), and every address at the
// literal of the IP address that the client has connected to (section 4.1.3).
func (s *session) atHome(a mail.Address) mail.Address {
	ip, literal := a.Domain.Literal()
	switch {
	case a.Domain == "":
	case literal && ip.Unmap() == s.conn.LocalIP():
	case isPostmaster(a) && strings.EqualFold(a.Domain.ASCII(), s.in.cfg.Hostname) &&
		!s.in.accounts.IsLocal(a.Domain):
	default:
		return a
	}
	a.Domain = s.in.postmasterDomain()
	return a
}

// lookUp returns the recipients that an address leads to, or why it leads nowhere from here.
func (s *session) lookUp(addr mail.Address, to mail.Recipient) ([]mail.Recipient, error) {
	in := s.in
	switch list := in.backups[addr.Domain]; {
	case list != nil && s.standing() == stranger:
		if !list.has(addr.Local) {
			return nil, s.unknown(to.Address)
		}
		return []mail.Recipient{to}, nil
	case !in.accounts.IsLocal(addr.Domain) && s.standing() == stranger:
		return nil, s.unless(refuse(550, "5.7.1",
			"<%s>: this server does not relay for you: %s is not a domain of its own",
			to.Address, addr.Domain))
	case !in.accounts.IsLocal(addr.Domain):
		return []mail.Recipient{to}, nil
	}
	if in.cfg.SRS != nil && srs.IsRewritten(addr) {
		return s.reverse(addr, to)
	}
	if in.cfg.Takes != nil && in.cfg.Takes(addr) {
		return []mail.Recipient{to}, nil
	}
	targets, err := in.accounts.Resolve(addr)
	// Aliases that lead to each other and nowhere else are no error of Resolve.
	if errors.Is(err, account.ErrAliasLoop) || err == nil && len(targets) == 0 {
		in.log.Error("alias cannot be followed", "address", addr, "err", err)
		return nil, refuse(451, "4.3.5",
			"<%s>: the aliases of this address lead nowhere, its postmaster knows", to.Address)
	}
	if err != nil {
		return nil, s.unknown(to.Address)
	}
	if to.ORcpt == "" && (len(targets) > 1 || targets[0].Address != addr) {
		to.ORcpt = original(addr)
	}
	if len(targets) == 1 && !s.room(targets[0], s.size) {
		return nil, mailboxFull(addr)
	}
	out := make([]mail.Recipient, len(targets))
	for i, t := range targets {
		to.Address = t.Address
		out[i] = to
	}
	return out, nil
}

// room reports whether a target takes a message of a size; 0 is one that is not known yet.
func (s *session) room(t account.Target, size int64) bool {
	return t.Account == nil || s.in.cfg.Room == nil || s.in.cfg.Room(t.Account, max(size, 1))
}

func mailboxFull(addr mail.Address) *smtp.Reply {
	return refuse(452, "4.2.2", "<%s>: mailbox is full, try again later", addr)
}

// fits refuses a message for a single mailbox that has no room for it. With several recipients the queue
// sorts it out.
func (s *session) fits(size int64) error {
	if len(s.env.Recipients) != 1 {
		return nil
	}
	to := s.env.Recipients[0].Address
	if !s.in.accounts.IsLocal(to.Domain) {
		return nil
	}
	targets, err := s.in.accounts.Resolve(to)
	if err == nil && len(targets) == 1 && !s.room(targets[0], size) {
		return mailboxFull(to)
	}
	return nil
}

// original is the ORCPT of a recipient that the client gave none for (RFC 3461, section 5.2.7).
func original(addr mail.Address) string {
	if addr.IsASCII() {
		return "rfc822;" + addr.Wire(false)
	}
	return "utf-8;" + addr.String()
}

// reverse sends a report that came to an address of ours, made when we forwarded a message, on to
// who sent that message. Only reports may use it: else whoever saw the address could send anything
// through us.
func (s *session) reverse(addr mail.Address, to mail.Recipient) ([]mail.Recipient, error) {
	if l := strings.ToLower(s.env.From.Local); !s.env.From.IsNull() && l != "mailer-daemon" &&
		l != "postmaster" {
		return nil, s.unless(refuse(550, "5.7.1",
			"<%s>: only delivery reports may be sent to this address", to.Address))
	}
	sender, err := s.in.cfg.SRS.Reverse(addr, s.in.clock.Now())
	switch {
	case errors.Is(err, srs.ErrExpired):
		return nil, s.unless(refuse(550, "5.1.6", "<%s>: %v", to.Address, err))
	case err != nil:
		return nil, s.unknown(to.Address)
	}
	to.ORcpt, to.Address, to.Notify = original(addr), sender, mail.NotifyNever
	return []mail.Recipient{to}, nil
}

// unknown is the refusal of a recipient that is not there.
func (s *session) unknown(addr mail.Address) error {
	return s.unless(refuse(550, "5.1.1", "<%s>: no such mailbox here", addr))
}

// unless returns the refusal of a recipient, unless the client has provoked too many.
func (s *session) unless(r *smtp.Reply) error {
	if s.conn.Account() != "" {
		return r
	}
	if err := s.in.limits.refusal(s.conn.RemoteIP()); err != nil {
		return err
	}
	return r
}

// meet looks a stranger up, with the first recipient that is not refused: who has none costs no
// question. It refuses whom the lists of addresses alone would refuse later.
func (s *session) meet(ctx context.Context, to mail.Address, rule *Rule) error {
	ip := s.conn.RemoteIP()
	if s.host == nil {
		s.host = s.in.meet(ctx, ip)
	}
	welcome := rule != nil && rule.Action == RuleAccept
	if !welcome && !isPostmaster(to) { // who is listed by mistake must be able to say so
		if err := s.in.refuseListed(ctx, s.host); err != nil {
			return err
		}
	}
	if s.auth == nil {
		s.auth = s.in.authenticate(ctx, s.host, s.conn.Helo(), s.env.From)
	}
	return nil
}

func isPostmaster(a mail.Address) bool {
	return strings.EqualFold(a.Local, "postmaster") || strings.EqualFold(a.Local, "abuse")
}

func (in *Intake) postmasterDomain() mail.Domain {
	accounts, _ := in.accounts.List()
	if len(accounts) == 0 {
		return mail.Domain(in.cfg.Hostname)
	}
	return accounts[0].Address.Domain
}

// add adds a recipient to the envelope, once.
func (s *session) add(to mail.Recipient) {
	if s.seen == nil && len(s.env.Recipients) > 0 {
		s.seen = map[string]bool{recipientKey(s.env.Recipients[0].Address): true}
	}
	if s.seen != nil {
		key := recipientKey(to.Address)
		if s.seen[key] {
			return
		}
		s.seen[key] = true
	}
	s.env.Recipients = append(s.env.Recipients, to)
}

func recipientKey(a mail.Address) string { return strings.ToLower(a.String()) }

// Reset forgets the transaction.
func (s *session) Reset() {
	if s.auth != nil {
		s.auth.close()
	}
	s.askReset()
	s.env, s.seen, s.asked, s.auth, s.others = mail.Envelope{}, nil, nil, nil, false
}

// Logout gives back what the session holds.
func (s *session) Logout() {
	if s.auth != nil {
		s.auth.close()
		s.auth = nil
	}
	if s.host != nil {
		s.host.close()
		s.host = nil
	}
	for _, a := range s.talk {
		a.close()
	}
	s.talk = nil
}

// queueReply turns the queue's errors into replies; others pass.
func queueReply(err error) error {
	switch {
	case errors.Is(err, queue.ErrFull):
		return refuse(452, "4.3.1", "no room for further messages at the moment, try again later")
	case errors.Is(err, queue.ErrStopped):
		return refuse(421, "4.3.2", "shutting down, try again later")
	case errors.Is(err, queue.ErrBroken):
		return refuse(421, "4.3.0", "storage has failed, try again later")
	}
	return err
}

// seconds writes a time to wait for people.
func seconds(d time.Duration) string {
	s := int64((d + time.Second - 1) / time.Second)
	if s == 1 {
		return "1 second"
	}
	if s < 120 {
		return fmt.Sprintf("%d seconds", s)
	}
	return fmt.Sprintf("%d minutes", (s+59)/60)
}
