package relay

import (
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail/smtp"
)

// rule reads one kind of refusal. All that it names must be so.
type rule struct {
	site   string // name of a provider
	code   string // how the reply code begins
	status string // "7.28": subject and detail of the enhanced status code
	words  string // in lower case, anywhere in the text; "*" stands for anything in between
	meaning
}

// lookUp returns the meaning of the first rule that fits, the zero meaning where none does: rules of the
// provider, then codes and words that say something definite, then vague ones.
func lookUp(r *smtp.Reply, site string) meaning {
	code := string(appendCode(nil, r.Code))
	status := ""
	if len(r.Enhanced) > 2 {
		status = r.Enhanced[2:]
	}
	text := strings.ToLower(r.Text)
	for i := range rules {
		u := &rules[i]
		if u.site != "" && u.site != site || !strings.HasPrefix(code, u.code) || u.status != "" && u.status != status {
			continue
		}
		if u.words == "" || holds(text, u.words) {
			return u.meaning
		}
	}
	return meaning{}
}

func appendCode(b []byte, code int) []byte {
	return append(b, byte('0'+code/100%10), byte('0'+code/10%10), byte('0'+code%10))
}

// holds reports whether text has the pieces of pattern in their order.
func holds(text, pattern string) bool {
	for piece := range strings.SplitSeq(pattern, "*") {
		i := strings.Index(text, piece)
		if i < 0 {
			return false
		}
		text = text[i+len(piece):]
	}
	return true
}

// passing makes a meaning that of a refusal that passes, though its first digit is 5.
func passing(m meaning) meaning {
	m.passes = true
	return m
}

// rests makes a meaning one after which the site gets no mail for a while.
func rests(d time.Duration) meaning { return meaning{class: RateLimited, slow: true, pause: d} }

func means(c Class) meaning { return meaning{class: c} }

// Meanings that several rules have.
var (
	tooFast     = meaning{class: RateLimited, slow: true}
	reconnect   = meaning{class: RateLimited, again: true}
	blockedNow  = meaning{class: Blocked, slow: true, wait: time.Hour}
	noReverse   = meaning{class: Unauthenticated, ipv4: true, wait: time.Hour}
	troubleThen = meaning{class: Trouble, next: true}
)

// rules are ordered. Those of providers rest on the refusals that the KumoMTA project collects (community
// and policy-extras shaping.toml and bounces.toml, and the replies of its traffic generator, Apache-2.0) and
// on the providers' own lists of error codes; the codes without words on the IANA registry of enhanced
// status codes (RFC 3463, RFC 5248, RFC 7372, RFC 7505, RFC 8689).
var rules = []rule{
	// Google. Its rate limits come with 4.7.28, or 4.7.0 and words; 5.2.1 with words of a rate is no
	// closed mailbox.
	{words: "receiving mail at a rate", meaning: meaning{class: RecipientBusy, passes: true, wait: time.Hour}},
	{words: "receivingrate", meaning: meaning{class: RecipientBusy, passes: true, wait: time.Hour}},
	{site: "google", words: "unusual rate of unsolicited mail", meaning: rests(30 * time.Minute)},
	{site: "google", words: "unusual amount of*unsolicited mail", meaning: rests(time.Hour)},
	{site: "google", status: "7.28", meaning: rests(30 * time.Minute)},
	{site: "google", words: "ipv6 sending guidelines", meaning: noReverse},
	{site: "google", words: "ptr record", meaning: noReverse},
	{site: "google", status: "7.29", meaning: means(TLSRequired)},
	{site: "google", words: "not sent over a tls connection", meaning: means(TLSRequired)},
	{site: "google", words: "very low reputation", meaning: blockedNow},
	{site: "google", words: "unauthenticated", meaning: means(Unauthenticated)},
	{site: "google", words: "authentication information", meaning: means(Unauthenticated)},
	{site: "google", words: "likely unsolicited", meaning: means(Content)},
	{site: "google", words: "suspicious", meaning: means(Content)},
	{site: "google", words: "illegal attachment", meaning: means(Content)},
	{site: "google", code: "4", words: "temporarily rejected message", meaning: troubleThen},

	// Yahoo and AOL: https://postmaster.yahooinc.com/error-codes. "Permanently deferred" is a 421.
	{site: "yahoo", words: "[ts02]", meaning: rests(30 * time.Minute)},
	{site: "yahoo", words: "[ts03]", meaning: meaning{class: Blocked, slow: true, pause: time.Hour, wait: 4 * time.Hour}},
	{site: "yahoo", words: "s05]", meaning: rests(4 * time.Hour)},
	{site: "yahoo", words: "s01]", meaning: rests(time.Hour)},
	{site: "yahoo", words: "s04]", meaning: rests(2 * time.Hour)},
	{site: "yahoo", words: "[bl", meaning: means(Blocked)},
	{site: "yahoo", words: "max message per connection", meaning: reconnect},
	{site: "yahoo", words: "receiving mail too quickly", meaning: meaning{class: RecipientBusy, wait: time.Hour}},
	{site: "yahoo", words: "resources temporarily unavailable", meaning: troubleThen},
	{site: "yahoo", words: "temporarily deferred", meaning: tooFast},
	{site: "yahoo", words: "doesn't have a*account", meaning: means(NoSuchUser)},
	{site: "yahoo", words: "no longer valid", meaning: means(NoSuchUser)},
	{site: "yahoo", words: "mailbox is disabled", meaning: means(MailboxDisabled)},
	{site: "yahoo", words: "[ph01]", meaning: means(Content)},
	{site: "yahoo", status: "7.9", meaning: means(Unauthenticated)},
	{site: "yahoo.co.jp", words: "deferred", meaning: passing(rests(time.Hour))},
	{site: "yahoo.co.jp", words: "timeout waiting for command", meaning: rests(30 * time.Minute)},

	// Microsoft, both its halves. 5.4.1 with these words is its directory at the edge.
	{words: "exceeded the maximum number of connections", meaning: tooFast},
	{words: "exceeded maximum number of messages per connection", meaning: reconnect},
	{words: "exceed max concurrent connections", meaning: tooFast},
	{words: "temporarily rate limited", meaning: rests(30 * time.Minute)},
	{site: "outlook", words: "server busy", meaning: rests(30 * time.Minute)},
	{site: "office365", words: "server busy", meaning: rests(15 * time.Minute)},
	{site: "outlook", words: "access denied, please try again later", meaning: rests(time.Hour)},
	{words: "part of their network is on our block list", meaning: means(Blocked)},
	{words: "banned sending ip", meaning: means(Blocked)},
	{words: "traffic not accepted from this ip", meaning: means(Blocked)},
	{words: "tenantattribution", meaning: means(RelayDenied)},
	{words: "attributed to the wrong", meaning: troubleThen},
	{status: "4.1", words: "recipient address rejected: access denied", meaning: means(NoSuchUser)},
	{status: "1.4", words: "recipient address rejected: access denied", meaning: means(NoSuchUser)},
	{status: "7.515", meaning: means(Unauthenticated)},
	{status: "7.509", meaning: means(Unauthenticated)},

	// Apple.
	{site: "apple", code: "4", words: "[hcm1]", meaning: rests(15 * time.Minute)},
	{site: "apple", code: "4", words: "[bs02]", meaning: rests(15 * time.Minute)},
	{site: "apple", code: "4", words: "service unavailable - try again later", meaning: rests(15 * time.Minute)},
	{site: "apple", words: "[cs01]", meaning: means(Content)},

	// Comcast: "RL" is a rate limit.
	{site: "comcast", words: "rl000010", meaning: rests(5 * time.Minute)},
	{site: "comcast", words: "rl0000", meaning: rests(10 * time.Minute)},
	{words: "not our customer", meaning: means(NoSuchUser)},

	// Orange and Wanadoo.
	{site: "orange", words: "trop de connexions", meaning: rests(10 * time.Minute)},
	{site: "orange", words: "service refuse", meaning: meaning{class: Blocked, slow: true, pause: 2 * time.Hour}},
	{words: "utilisateur inconnu", meaning: means(NoSuchUser)},

	// GMX and web.de. The weather is its way of saying that something broke within.
	{words: "blame it on the weather", meaning: passing(troubleThen)},
	{site: "gmx", code: "4", words: "policy", meaning: rests(time.Hour)},
	{site: "gmx", words: "policy", meaning: means(Blocked)},
	{words: "nemesis*dns ptr", meaning: noReverse},
	{words: "nemesis", meaning: means(Blocked)},

	// QQ and NetEase: daily and hourly limits come as 550.
	{words: "frequency limited", meaning: passing(rests(time.Hour))},
	{site: "qq", words: "mail content denied", meaning: means(Content)},
	{words: "account or domain may not exist", meaning: means(NoSuchUser)},
	{site: "netease", words: "dt:spm", meaning: means(Content)},
	{site: "netease", words: "rp:", meaning: passing(rests(time.Hour))},
	{site: "netease", words: "hl:itc", meaning: passing(rests(time.Hour))},

	// Mimecast greylists in these words.
	{words: "internal resource*temporarily unavailable", meaning: meaning{class: Greylisted, wait: 5 * time.Minute}},
	{words: "too many messages from a new or untrusted ip", meaning: rests(30 * time.Minute)},
	{site: "netvigator", words: "too many messages for this session", meaning: reconnect},
	{words: "_is_blocked", meaning: means(Blocked)}, // AT&T
	{words: "invalid sender*blacklisted", meaning: means(Blocked)},
	{words: "t-online.de*problem occurred", meaning: means(Blocked)},
	{words: "problem occurred*t-online.de", meaning: means(Blocked)},

	// Codes that say something definite, whatever the words.
	{status: "7.25", meaning: noReverse},
	{status: "7.20", meaning: means(Unauthenticated)}, {status: "7.21", meaning: means(Unauthenticated)},
	{status: "7.22", meaning: means(Unauthenticated)}, {status: "7.23", meaning: means(Unauthenticated)},
	{status: "7.24", meaning: means(Unauthenticated)}, {status: "7.26", meaning: means(Unauthenticated)},
	{status: "7.27", meaning: means(SenderRefused)}, {status: "1.7", meaning: means(SenderRefused)},
	{status: "1.8", meaning: means(SenderRefused)},
	{status: "7.28", meaning: tooFast},
	{status: "7.30", meaning: means(TLSRequired)}, {status: "7.10", meaning: means(TLSRequired)},
	{status: "1.10", meaning: means(NoSuchUser)}, // Microsoft's RecipientNotFound; RFC 7505's null MX
	{status: "2.3", meaning: means(TooLarge)}, {status: "3.4", meaning: means(TooLarge)},
	{code: "52", words: "does not accept mail", meaning: means(NoSuchDomain)}, // RFC 7504
	{code: "556", meaning: means(NoSuchDomain)},
	{code: "530", words: "starttls", meaning: means(TLSRequired)},
	// RFC 5321, section 4.5.3.1.10: 552 is to be taken for 452 where it is about the number.
	{code: "552", words: "too many recipients", meaning: passing(means(TooMany))},
	{status: "5.3", meaning: passing(means(TooMany))},

	// Words that say something definite.
	{words: "greylist", meaning: means(Greylisted)}, {words: "graylist", meaning: means(Greylisted)},
	{words: "grey list", meaning: means(Greylisted)}, {words: "grey-list", meaning: means(Greylisted)},
	{words: "postgrey", meaning: means(Greylisted)},
	{words: "must issue a starttls", meaning: means(TLSRequired)}, {words: "tls is required", meaning: means(TLSRequired)},
	{words: "tls required", meaning: means(TLSRequired)}, {words: "encryption required", meaning: means(TLSRequired)},
	{words: "encryption needed", meaning: means(TLSRequired)},
	{words: "dns ptr", meaning: noReverse}, {words: "ptr record", meaning: noReverse},
	{words: "reverse dns", meaning: noReverse}, {words: "rdns", meaning: noReverse},
	{words: "cannot find your hostname", meaning: noReverse}, {words: "reverse hostname", meaning: noReverse},
	{words: "spamhaus", meaning: blockedNow}, {words: "spamcop", meaning: blockedNow},
	{words: "abuseat.org", meaning: blockedNow}, {words: "barracudacentral", meaning: blockedNow},
	{words: "cloudmark.com", meaning: blockedNow}, {words: "proofpoint.com", meaning: blockedNow},
	{words: "ivmsip", meaning: blockedNow}, {words: "uceprotect", meaning: blockedNow},
	{words: "dnsbl", meaning: blockedNow}, {words: "blocklist", meaning: blockedNow},
	{words: "block list", meaning: blockedNow}, {words: "blacklist", meaning: blockedNow},
	{words: "black list", meaning: blockedNow}, {words: "blocked using", meaning: blockedNow},
	{words: "poor reputation", meaning: blockedNow}, {words: "bad reputation", meaning: blockedNow},
	{words: "low reputation", meaning: blockedNow}, {words: "sending ip*is listed", meaning: blockedNow},
	{words: "ip or email address blocked", meaning: blockedNow},
	{words: "too many connections", meaning: passing(tooFast)}, {words: "too many concurrent", meaning: passing(tooFast)},
	{words: "too many sessions", meaning: passing(tooFast)}, {words: "connection rate", meaning: passing(tooFast)},
	{words: "rate limit", meaning: passing(tooFast)}, {words: "ratelimit", meaning: passing(tooFast)},
	{words: "rate-limit", meaning: passing(tooFast)}, {words: "throttl", meaning: passing(tooFast)},
	{words: "slow down", meaning: passing(tooFast)}, {words: "too fast", meaning: passing(tooFast)},
	{words: "too quickly", meaning: passing(tooFast)}, {words: "unusual traffic", meaning: passing(tooFast)},
	{words: "too many messages", meaning: passing(tooFast)}, {words: "too many emails", meaning: passing(tooFast)},
	{words: "too much mail", meaning: passing(tooFast)}, {words: "sending limit", meaning: passing(tooFast)},
	{words: "sending quota", meaning: passing(tooFast)}, {words: "hourly limit", meaning: passing(tooFast)},
	{words: "daily limit", meaning: passing(tooFast)}, {code: "4", words: "user complaints", meaning: tooFast},
	{words: "dmarc", meaning: means(Unauthenticated)}, {words: "dkim", meaning: means(Unauthenticated)},
	{words: "spf", meaning: means(Unauthenticated)}, {words: "unauthenticated", meaning: means(Unauthenticated)},
	{words: "sender policy framework", meaning: means(Unauthenticated)},
	{words: "too many hops", meaning: means(Loop)}, {words: "mailloop", meaning: means(Loop)},
	{words: "mail loop", meaning: means(Loop)}, {words: "loops back", meaning: means(Loop)},
	{status: "4.6", meaning: means(Loop)},
	{words: "too many recipients", meaning: passing(means(TooMany))},
	{status: "2.2", meaning: means(MailboxFull)},
	{words: "over quota", meaning: means(MailboxFull)}, {words: "overquota", meaning: means(MailboxFull)},
	{words: "quota exceeded", meaning: means(MailboxFull)}, {words: "exceeded*quota", meaning: means(MailboxFull)},
	{words: "quota violation", meaning: means(MailboxFull)}, {words: "mailbox full", meaning: means(MailboxFull)},
	{words: "mailbox is full", meaning: means(MailboxFull)}, {words: "inbox is full", meaning: means(MailboxFull)},
	{words: "out of storage", meaning: means(MailboxFull)}, {words: "storage allocation", meaning: means(MailboxFull)},
	{words: "mailbox limit exe", meaning: means(MailboxFull)}, // "exeeded" it is, somewhere
	{words: "message size", meaning: means(TooLarge)}, {words: "too large", meaning: means(TooLarge)},
	{words: "too big", meaning: means(TooLarge)},
	{status: "1.1", meaning: means(NoSuchUser)}, {status: "1.6", meaning: means(NoSuchUser)},
	{status: "1.3", meaning: means(NoSuchUser)}, {status: "2.1", meaning: means(MailboxDisabled)},
	{status: "7.13", meaning: means(MailboxDisabled)}, {status: "7.17", meaning: means(NoSuchUser)},
	{words: "spam message", meaning: means(Content)}, {words: "spam content", meaning: means(Content)},
	{words: "virus", meaning: means(Content)}, {words: "malware", meaning: means(Content)},
	{words: "phish", meaning: means(Content)}, {words: "unsolicited", meaning: means(Content)},
	{words: "as spam", meaning: means(Content)}, {words: "is spam", meaning: means(Content)},
	{words: "content reject", meaning: means(Content)}, {words: "content policy", meaning: means(Content)},
	{words: "content denied", meaning: means(Content)}, {words: "junkmail", meaning: means(Content)},
	{words: "spamtext", meaning: means(Content)}, {words: "url in this", meaning: means(Content)},
	{words: "spam", meaning: means(Content)},

	// Words of mailboxes.
	{words: "suspended", meaning: means(MailboxDisabled)}, {words: "disabled", meaning: means(MailboxDisabled)},
	{words: "inactive", meaning: means(MailboxDisabled)}, {words: "not active", meaning: means(MailboxDisabled)},
	{words: "account closed", meaning: means(MailboxDisabled)}, {words: "not activated", meaning: means(MailboxDisabled)},
	{words: "relaying denied", meaning: means(RelayDenied)}, {words: "relay access denied", meaning: means(RelayDenied)},
	{words: "relay not permitted", meaning: means(RelayDenied)}, {words: "allowed to relay", meaning: means(RelayDenied)},
	{words: "not relay", meaning: means(RelayDenied)}, {words: "rcpthosts", meaning: means(RelayDenied)},
	{words: "null mx", meaning: means(NoSuchDomain)}, {words: "tenant or domain not found", meaning: means(NoSuchDomain)},
	{words: "sender address", meaning: means(SenderRefused)}, {words: "sender domain", meaning: means(SenderRefused)},
	{words: "sender verify", meaning: means(SenderRefused)}, {words: "domain of sender", meaning: means(SenderRefused)},
	{words: "envelope sender", meaning: means(SenderRefused)}, {words: "invalid sender", meaning: means(SenderRefused)},
	{words: "domain may not exist", meaning: means(SenderRefused)},
	{words: "sender*has no a", meaning: means(SenderRefused)},
	{words: "user unknown", meaning: means(NoSuchUser)}, {words: "unknown user", meaning: means(NoSuchUser)},
	{words: "user*unknown", meaning: means(NoSuchUser)}, {words: "no such", meaning: means(NoSuchUser)},
	{words: "mailbox unavailable", meaning: means(NoSuchUser)}, {words: "mailbox not found", meaning: means(NoSuchUser)},
	{words: "does not exist", meaning: means(NoSuchUser)}, {words: "doesn't exist", meaning: means(NoSuchUser)},
	{words: "invalid recipient", meaning: means(NoSuchUser)}, {words: "invalid mailbox", meaning: means(NoSuchUser)},
	{words: "not a valid", meaning: means(NoSuchUser)}, {words: "undeliverable address", meaning: means(NoSuchUser)},
	{words: "unrouteable address", meaning: means(NoSuchUser)}, {words: "address unknown", meaning: means(NoSuchUser)},
	{words: "address invalid", meaning: means(NoSuchUser)}, {words: "address rejected", meaning: means(NoSuchUser)},
	{words: "no mailbox", meaning: means(NoSuchUser)}, {words: "no mail-box", meaning: means(NoSuchUser)},
	{words: "recipient*unrecognized", meaning: means(NoSuchUser)}, {words: "recipient*denied", meaning: means(NoSuchUser)},
	{words: "recipient is not allowed", meaning: means(NoSuchUser)}, {words: "cannot deliver mail for", meaning: means(NoSuchUser)},
	{words: "mailbox name not allowed", meaning: means(NoSuchUser)}, {words: "moved with no forwarding", meaning: means(NoSuchUser)},
	{words: "user not found", meaning: means(NoSuchUser)}, {words: "recipient not found", meaning: means(NoSuchUser)},

	// What is left: codes that many use for many things, and words of last resort.
	{status: "1.2", meaning: means(NoSuchDomain)}, {status: "1.4", meaning: means(NoSuchUser)},
	{status: "3.1", meaning: troubleThen}, {status: "3.0", meaning: troubleThen}, {status: "3.2", meaning: troubleThen},
	{status: "3.5", meaning: troubleThen}, {status: "4.5", meaning: tooFast}, {status: "2.4", meaning: troubleThen},
	{code: "4", status: "4.1", meaning: troubleThen}, {code: "4", status: "4.2", meaning: troubleThen},
	{code: "4", status: "4.3", meaning: troubleThen}, {code: "4", status: "4.4", meaning: troubleThen},
	{words: "authentication required", meaning: means(RelayDenied)}, {words: "requires authentication", meaning: means(RelayDenied)},
	{words: "authentication", meaning: means(Unauthenticated)},
	{words: "sender rejected aup", meaning: means(Blocked)},
	{words: "complaints", meaning: means(Blocked)}, {words: "reputation", meaning: means(Blocked)},
	{words: "blocked", meaning: means(Blocked)}, {words: "denied", meaning: means(Policy)},
	{words: "policy", meaning: means(Policy)}, {words: "policies", meaning: means(Policy)},
	{code: "500", meaning: means(Protocol)}, {code: "501", meaning: means(Protocol)},
	{code: "502", meaning: means(Protocol)}, {code: "503", meaning: means(Protocol)},
	{code: "504", meaning: means(Protocol)}, {code: "555", meaning: means(Protocol)},
	{words: "syntax", meaning: means(Protocol)}, {words: "rfc", meaning: means(Protocol)},
	{code: "552", meaning: means(MailboxFull)},
	{code: "550", status: "7.1", meaning: means(Policy)},
}
