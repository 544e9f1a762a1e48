package relay

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/tallypost/tallypost/internal/vectors"
	"github.com/tallypost/tallypost/mail/smtp"
)

// replyOf reads a reply as it came over the wire.
func replyOf(raw string) *smtp.Reply {
	r := &smtp.Reply{Raw: raw}
	r.Code, _ = strconv.Atoi(raw[:3])
	for i, line := range strings.Split(raw, "\n") {
		text := line[min(4, len(line)):]
		if word, rest, _ := strings.Cut(text, " "); regexp.MustCompile(`^[245]\.\d+\.\d+$`).MatchString(word) && word[0] == raw[0] {
			if i == 0 {
				r.Enhanced = word
			}
			text = rest
		}
		if i > 0 {
			r.Text += "\n"
		}
		r.Text += text
	}
	return r
}

// TestRead is refusals as they are met, and what follows from them.
func TestRead(t *testing.T) {
	for _, tt := range []struct {
		site  string
		raw   string
		class Class
		also  string // what is more than usual, of meaning
	}{
		// Google
		{"google", "421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating\n421 4.7.28 from your IP", RateLimited, "passes slow pause=30m0s"},
		{"google", "421-4.7.0 [192.0.2.1] Our system has detected an unusual amount of\n421-4.7.0 unsolicited mail originating", RateLimited, "passes slow pause=1h0m0s"},
		{"google", "450 4.2.1 The user you are trying to contact is receiving mail at a rate that", RecipientBusy, "passes wait=1h0m0s"},
		{"google", "550 5.2.1 The user you are trying to contact is receiving mail at a rate that", RecipientBusy, "passes wait=1h0m0s"},
		{"google", "452 4.2.2 The recipient's inbox is out of storage space.", MailboxFull, "passes"},
		{"google", "552 5.2.2 The email account that you tried to reach is over quota.", MailboxFull, ""},
		{"google", "550-5.1.1 The email account that you tried to reach does not exist. Please\n550 5.1.1 try", NoSuchUser, ""},
		{"google", "550 5.2.1 The email account that you tried to reach is disabled.", MailboxDisabled, ""},
		{"google", "550-5.7.26 This mail has been blocked because the sender is unauthenticated.", Unauthenticated, ""},
		{"google", "550-5.7.25 The IP address sending this message does not have a PTR record setup", Unauthenticated, "ipv4"},
		{"google", "550-5.7.1 [2001:db8::1] does not meet IPv6 sending guidelines regarding PTR records", Unauthenticated, "ipv4"},
		{"google", "421 4.7.29 Your email has been rate limited because this message wasn't sent over a TLS connection.", TLSRequired, "passes"},
		{"google", "550 5.7.1 [192.0.2.1] Our system has detected that this message is likely suspicious due to the very low reputation of the sending domain.", Blocked, "slow"},
		{"google", "550 5.7.1 [192.0.2.1] Our system has detected that this message is likely unsolicited mail.", Content, ""},
		{"google", "451 4.3.0 Mail server temporarily rejected message. - gsmtp", Trouble, "passes next"},
		{"google", "552 5.2.3 Your message exceeded Google's message size limits.", TooLarge, ""},
		{"google", "550 5.4.5 Daily user sending quota exceeded. - gsmtp", RateLimited, "passes slow"},
		// Yahoo
		{"yahoo", "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints", RateLimited, "passes slow pause=2h0m0s"},
		{"yahoo", "421 [IPTS05] Messages from 192.0.2.1 temporarily deferred due to user complaints", RateLimited, "passes slow pause=4h0m0s"},
		{"yahoo", "421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred; Retrying will NOT succeed.", Blocked, "passes slow wait=4h0m0s pause=1h0m0s"},
		{"yahoo", "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1, because the ip is in Spamhaus's list", Blocked, ""},
		{"yahoo", "554 5.7.9 Message not accepted for policy reasons.", Unauthenticated, ""},
		{"yahoo", "554 delivery error: dd This user doesn't have a yahoo.com account (u@yahoo.com) [-9]", NoSuchUser, ""},
		{"yahoo", "552 Requested mail action aborted, mailbox not found", NoSuchUser, ""},
		{"yahoo", "554 delivery error: dd Sorry, your message to u@yahoo.com cannot be delivered. This mailbox is disabled (554.30).", MailboxDisabled, ""},
		{"yahoo", "451 Max message per connection reached", RateLimited, "passes again"},
		{"yahoo.co.jp", "553 Mail from 192.0.2.1 not allowed - VS98-IP0 deferred", RateLimited, "passes slow pause=1h0m0s"},
		// Microsoft
		{"outlook", "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3150).", Blocked, ""},
		{"outlook", "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. (S775)", RateLimited, "passes slow pause=30m0s"},
		{"outlook", "451 4.7.652 The mail server [192.0.2.1] has exceeded the maximum number of connections. (S3115)", RateLimited, "passes slow"},
		{"outlook", "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)", RateLimited, "passes slow pause=30m0s"},
		{"outlook", "550 5.7.515 Access denied, sending domain EXAMPLE.ORG does not meet the required authentication level.", Unauthenticated, ""},
		{"outlook", "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).", NoSuchUser, ""},
		{"office365", "550 5.4.1 Recipient address rejected: Access denied. [x.prod.protection.outlook.com]", NoSuchUser, ""},
		{"office365", "550 5.7.606 Access denied, banned sending IP [192.0.2.1].", Blocked, ""},
		{"office365", "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35.", Trouble, "passes next"},
		{"office365", "550 5.7.64 TenantAttribution; Relay Access Denied", RelayDenied, ""},
		// others
		{"apple", "550 5.7.1 [CS01] Message rejected due to local policy.", Content, ""},
		{"apple", "451 4.7.1 [HCM1] Your mail from 192.0.2.1 was deferred", RateLimited, "passes slow pause=15m0s"},
		{"orange", "421 opmta1mti23nd1 smtp.orange.fr 192.0.2.1 Trop de connexions, veuillez verifier votre configuration. OFR_104", RateLimited, "passes slow pause=10m0s"},
		{"orange", "550 5.2.0 Utilisateur inconnu", NoSuchUser, ""},
		{"gmx", "554-gmx.net (mxgmx015) Nemesis ESMTP Service not available\n554-No SMTP service\n554 Bad DNS PTR resource record.", Unauthenticated, "ipv4"},
		{"gmx", "554 Error: transaction failed, blame it on the weather: E2: Cannot accept", Trouble, "passes next"},
		{"gmx", "421-gmx.net Reject due to policy restrictions.", RateLimited, "passes slow pause=1h0m0s"},
		{"qq", "550 Ip frequency limited. https://service.mail.qq.com/", RateLimited, "passes slow pause=1h0m0s"},
		{"qq", "550 Mail content denied. https://service.mail.qq.com/", Content, ""},
		{"netease", "550 RP:ORQ 163 mx1", RateLimited, "passes slow pause=1h0m0s"},
		{"mimecast", "451 Internal resources are temporarily unavailable - https://community.mimecast.com/docs/DOC-1369#451", Greylisted, "passes wait=5m0s"},
		{"comcast", "421 4.1.0 192.0.2.1 Throttled - try again later. RL000010", RateLimited, "passes slow pause=5m0s"},
		{"", "554-mailin.t-online.de\n554 IP=192.0.2.1 - A problem occurred. (Ask your postmaster for help or to contact tosa@rx.t-online.de to clarify.)", Blocked, ""},
		{"", "553 5.3.0 flpd576 DNSBL:ATTRBL 521< 192.0.2.1 >_is_blocked.For assistance forward this email", Blocked, ""},
		// Postfix, Exim and what stands around them
		{"", "450 4.2.0 <u@example.org>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/x", Greylisted, "passes"},
		{"", "451 4.7.1 Greylisting in action, please come back in 00:05:00", Greylisted, "passes wait=5m0s"},
		{"", "450 4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.1]", Unauthenticated, "passes ipv4 wait=1h0m0s"},
		{"", "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; https://www.spamhaus.org/", Blocked, "slow"},
		{"", "550 5.1.1 <u@example.org>: Recipient address rejected: User unknown in virtual mailbox table", NoSuchUser, ""},
		{"", "454 4.7.1 <u@example.org>: Relay access denied", RelayDenied, "passes"},
		{"", "450 4.1.8 <a@us.example>: Sender address rejected: Domain not found", SenderRefused, "passes"},
		{"", "452 4.3.1 Insufficient system storage", Trouble, "passes next"},
		{"", "451 4.3.0 <u@example.org>: Temporary lookup failure", Trouble, "passes next"},
		{"", "552 5.3.4 Message size exceeds fixed limit", TooLarge, ""},
		{"", "452 4.5.3 Error: too many recipients", TooMany, "passes"},
		{"", "552 Too many recipients", TooMany, "passes"}, // RFC 5321, section 4.5.3.1.10
		{"", "550-Verification failed for <a@us.example>\n550 Sender verify failed", SenderRefused, ""},
		{"", "550 Administrative prohibition", Policy, ""},
		{"", "530 5.7.0 Must issue a STARTTLS command first", TLSRequired, ""},
		{"", "550 5.7.30 REQUIRETLS support required", TLSRequired, ""},
		{"", "554 5.4.6 Too many hops", Loop, ""},
		{"", "556 5.1.10 Recipient address has a null MX", NoSuchUser, ""},
		{"", "503 5.5.1 Bad sequence of commands", Protocol, ""},
		{"", "500 unrecognized", Protocol, ""},
		{"", "451 whatever", Trouble, "passes next"},
		{"", "421 4.3.2 shutting down", Trouble, "passes slow next"},
		{"", "550 whatever", Policy, ""},
	} {
		m := read(replyOf(tt.raw), false, tt.site)
		if got := more(m); m.class != tt.class || got != tt.also {
			t.Errorf("%s %q: %s [%s], want %s [%s]", tt.site, tt.raw, m.class, got, tt.class, tt.also)
		}
	}
}

func more(m meaning) string {
	var out []string
	for _, f := range []struct {
		word string
		set  bool
	}{{"passes", m.passes}, {"slow", m.slow}, {"next", m.next}, {"again", m.again}, {"ipv4", m.ipv4},
		{"wait=" + m.wait.String(), m.wait > 0}, {"pause=" + m.pause.String(), m.pause > 0}} {
		if f.set {
			out = append(out, f.word)
		}
	}
	return strings.Join(out, " ")
}

func TestHint(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"greylisted, try again in 300 seconds": 5 * time.Minute,
		"come back in 5 minutes":               5 * time.Minute,
		"please retry in 120s":                 2 * time.Minute,
		"in 00:14:59":                          14*time.Minute + 59*time.Second,
		"try again in 1 hour":                  time.Hour,
		"try again in 10 days":                 0,
		"192.0.2.1 is listed 4 times":          0,
		"error 99999999999999999999 seconds":   0,
		"":                                     0,
		"wait 25 hours":                        0,
		"0 seconds":                            0,
	} {
		if got := hint(text); got != want {
			t.Errorf("hint(%q) = %v, want %v", text, got, want)
		}
	}
}

// classes of the vectors' bounce rules that ours may be read as; there are more of ours.
var likeKumo = map[string][]Class{
	"InvalidRecipient":     {NoSuchUser, NoSuchDomain, RelayDenied},
	"BadDomain":            {NoSuchDomain, NoSuchUser},
	"InactiveMailbox":      {MailboxDisabled, MailboxFull, Policy}, // one of them is a hint to pay
	"QuotaIssues":          {MailboxFull, TooLarge},
	"RoutingErrors":        {RelayDenied, NoSuchUser, Loop},
	"TransientFailure":     {Trouble, RecipientBusy},
	"ProtocolErrors":       {Protocol},
	"AuthenticationFailed": {Unauthenticated, RelayDenied, SenderRefused, Policy, NoSuchUser},
	"PolicyRelated":        {Policy, Blocked, NoSuchUser, SenderRefused, Content},
	"SpamBlock":            {Blocked, Content, Policy, SenderRefused, NoSuchUser},
	"SpamContent":          {Content, Blocked},
	"DNSFailure":           {NoSuchDomain},
}

// TestVectorReplies reads the realistic replies that a traffic generator gives in the name of the big
// providers: what it counts as a bounce is given up and what it counts as a deferral is tried again, but for
// those listed; and where its rules know a class, ours agrees.
func TestVectorReplies(t *testing.T) {
	type reply struct {
		Code int
		Msg  string
	}
	var file struct{ Bounce, Defer map[string][]reply }
	if _, err := toml.Decode(string(vectors.Read(t, "mail/deliverability/responses.toml")), &file); err != nil {
		t.Fatal(err)
	}
	kumo := kumoRules(t)
	sites := map[string]string{"gmail.com": "google", "yahoo.com": "yahoo", "yahoo.ca": "yahoo", "aol.com": "yahoo",
		"rocketmail.com": "yahoo", "hotmail.com": "outlook"}
	rows, vague := 0, 0
	check := func(domain string, r reply, bounce bool) {
		rows++
		text := regexp.MustCompile(`(?m)^\s*\d{3}[-, ]`).ReplaceAllString(strings.ReplaceAll(r.Msg, "\r", ""), "")
		raw := strconv.Itoa(r.Code) + " " + strings.TrimSpace(text)
		m := read(replyOf(raw), false, sites[domain])
		rate := m.class == RecipientBusy // a mailbox that gets too much will get less
		if m.passes == bounce && !rate && !(r.Code/100 == 5 && !bounce) {
			t.Errorf("%s %q: %s, passes %v", domain, raw, m.class, m.passes)
		}
		if m.class == Policy || m.class == Trouble {
			vague++
		}
		for _, want := range kumo(raw) {
			ok := false
			for _, c := range likeKumo[want] {
				ok = ok || c == m.class
			}
			if !ok && !rate {
				t.Errorf("%s %q: %s, the vectors say %s", domain, raw, m.class, want)
			}
		}
	}
	for domain, list := range file.Bounce {
		for _, r := range list {
			check(domain, r, true)
		}
	}
	for domain, list := range file.Defer {
		for _, r := range list {
			check(domain, r, false)
		}
	}
	if rows < 50 || vague*3 > rows {
		t.Errorf("%d replies, %d of them without a class that says something", rows, vague)
	}
	t.Logf("%d replies, %d policy or trouble", rows, vague)
}

// kumoRules returns a function that says which classes the vectors' rules have for a reply.
func kumoRules(t *testing.T) func(string) []string {
	var file struct{ Rules map[string][]string }
	if _, err := toml.Decode(string(vectors.Read(t, "mail/deliverability/bounces.toml")), &file); err != nil {
		t.Fatal(err)
	}
	type rule struct {
		class string
		exp   *regexp.Regexp
	}
	var rules []rule
	for class, list := range file.Rules {
		for _, s := range list {
			if strings.Contains(s, "^550 5\\.7\\.1\"") || s == "^550 5\\.7\\.1" {
				continue // catches 5.7.1x of any kind
			}
			rules = append(rules, rule{class, regexp.MustCompile(s)})
		}
	}
	return func(raw string) (out []string) {
		for _, r := range rules {
			if r.exp.MatchString(raw) {
				out = append(out, r.class)
			}
		}
		return out
	}
}

// TestVectorRules turns the vectors' bounce rules into replies that they match, and reads these.
func TestVectorRules(t *testing.T) {
	var file struct{ Rules map[string][]string }
	if _, err := toml.Decode(string(vectors.Read(t, "mail/deliverability/bounces.toml")), &file); err != nil {
		t.Fatal(err)
	}
	n, bad := 0, 0
	for class, list := range file.Rules {
		for _, s := range list {
			raw := strings.NewReplacer(`\.`, ".", ".+", " x ", ".*", " ", "^", "", "$", "", `\(`, "(", `\)`, ")").Replace(s)
			if len(raw) < 5 || raw[0] < '4' || raw[0] > '5' || raw[1] == '.' || strings.HasSuffix(raw, "5.7.1") {
				continue
			}
			n++
			m := read(replyOf(raw), false, "")
			ok := false
			for _, c := range likeKumo[class] {
				ok = ok || c == m.class
			}
			if !ok {
				bad++
				t.Logf("%s: %q is %s to us", class, raw, m.class)
			}
		}
	}
	if n < 100 || bad > 2 {
		t.Errorf("%d of %d read differently", bad, n)
	}
}

// TestVectorCodes: the IANA codes, by the vectors' classes.
func TestVectorCodes(t *testing.T) {
	for raw, want := range map[string]Class{
		"550 5.1.1 x": NoSuchUser, "550 5.1.2 x": NoSuchDomain, "550 5.1.3 x": NoSuchUser, "451 4.1.1 x": NoSuchUser,
		"550 5.1.6 x": NoSuchUser, "550 5.1.7 x": SenderRefused, "550 5.1.8 x": SenderRefused, "550 5.2.1 x": MailboxDisabled,
		"525 5.7.13 x": MailboxDisabled, "552 5.2.2 x": MailboxFull, "452 4.3.1 x": Trouble, "554 5.3.4 x": TooLarge,
		"451 4.4.1 x": Trouble, "421 4.4.2 x": Trouble, "451 4.4.3 x": Trouble, "550 5.4.6 x": Loop, "451 4.4.5 x": RateLimited,
		"550 5.5.3 x": TooMany, "550 5.7.17 x": NoSuchUser, "550 5.7.20 x": Unauthenticated, "550 5.7.23 x": Unauthenticated,
		"550 5.7.25 x": Unauthenticated, "550 5.7.26 x": Unauthenticated, "550 5.7.27 x": SenderRefused,
		"550 5.7.28 x": RateLimited, "550 5.7.30 x": TLSRequired,
	} {
		if m := read(replyOf(raw), false, ""); m.class != want {
			t.Errorf("%q: %s, want %s", raw, m.class, want)
		}
	}
}

// FuzzRead: whatever a server says, we make something of it.
func FuzzRead(f *testing.F) {
	f.Add(550, "5.1.1", "no such user", "google")
	f.Add(421, "", "try again in 00:05:00", "")
	f.Fuzz(func(t *testing.T, code int, enhanced, text, site string) {
		if code < 200 || code > 599 {
			return
		}
		for _, connecting := range []bool{false, true} {
			r := &smtp.Reply{Code: code, Enhanced: enhanced, Text: text}
			m := read(r, connecting, site)
			if m.class == "" || m.wait < 0 || m.wait > 24*time.Hour || !m.passes && m.next && !connecting {
				t.Errorf("%+v", m)
			}
		}
	})
}
