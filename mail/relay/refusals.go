package relay

import (
	"slices"
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail/smtp"
)

// rule reads one kind of refusal. All that it names must be so.
type rule struct {
	site   string // name of a provider
	code   string // how the reply code begins
	detail string // "7.28": subject and detail of the enhanced status code
	words  string // in lower case, anywhere in the text; "*" stands for anything in between
	meaning
}

// lookUp returns the meaning of the first rule that fits, the zero meaning where none does.
func lookUp(r *smtp.Reply, site string) meaning {
	code := string([]byte{digit(r.Code / 100), digit(r.Code / 10), digit(r.Code)})
	detail := ""
	if len(r.Enhanced) > 2 {
		detail = r.Enhanced[2:]
	}
	text := strings.ToLower(r.Text)
	for i := range rules {
		u := &rules[i]
		switch {
		case u.site != "" && u.site != site, !strings.HasPrefix(code, u.code):
		case u.detail != "" && u.detail != detail:
		case u.words == "" || holds(text, u.words):
			return u.meaning
		}
	}
	return meaning{}
}

func digit(n int) byte { return '0' + byte(n%10) }

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

func means(c Class) meaning { return meaning{class: c} }

// passing makes a meaning that of a refusal that passes, though its first digit is 5.
func passing(m meaning) meaning {
	m.passes = true
	return m
}

// rests is the meaning of a refusal after which the site gets no mail for a while.
func rests(d time.Duration) meaning { return meaning{class: RateLimited, slow: true, pause: d} }

// later is the meaning of a refusal that concerns one message, and not before a while has passed.
func later(c Class, wait time.Duration) meaning { return meaning{class: c, wait: wait} }

// said returns a rule for each of several words of one meaning.
func said(m meaning, words ...string) (out []rule) {
	for _, w := range words {
		out = append(out, rule{words: w, meaning: m})
	}
	return out
}

// coded returns a rule for each of several enhanced status codes of one meaning.
func coded(m meaning, details ...string) (out []rule) {
	for _, d := range details {
		out = append(out, rule{detail: d, meaning: m})
	}
	return out
}

// of makes rules those of one provider.
func of(site string, lists ...[]rule) []rule {
	out := slices.Concat(lists...)
	for i := range out {
		out[i].site = site
	}
	return out
}

// on makes rules those of reply codes that begin so.
func on(code string, list []rule) []rule {
	for i := range list {
		list[i].code = code
	}
	return list
}

// Meanings that several rules have.
var (
	tooFast     = meaning{class: RateLimited, slow: true}
	reconnect   = meaning{class: RateLimited, again: true}
	blockedNow  = meaning{class: Blocked, slow: true, wait: time.Hour}
	noReverse   = meaning{class: Unauthenticated, ipv4: true, wait: time.Hour}
	troubleThen = meaning{class: Trouble, next: true}
)

// rules are ordered: those of providers, then codes and words that say something definite, then
// vague ones.
//
// The providers' rest on the refusals that the KumoMTA project collects (community and
// policy-extras shaping.toml, bounces.toml, and the replies of its traffic generator, 2026,
// Apache-2.0) and on the providers' own lists of error codes; the codes without words on the IANA
// registry of enhanced status codes (RFC 3463, RFC 5248, RFC 7372, RFC 7505, RFC 8689).
var rules = slices.Concat(
	google, yahoo, microsoft, apple, french, german, chinese, others,
	definiteCodes, definiteWords, mailboxWords, vague,
)

// google: rate limits come with 4.7.28, or 4.7.0 and words; 5.2.1 with words of a rate is no closed
// mailbox.
var google = slices.Concat(
	said(passing(later(RecipientBusy, time.Hour)), "receiving mail at a rate", "receivingrate"),
	of("google",
		said(rests(30*time.Minute), "unusual rate of unsolicited mail"),
		said(rests(time.Hour), "unusual amount of*unsolicited mail"),
		coded(rests(30*time.Minute), "7.28"),
		said(noReverse, "ipv6 sending guidelines", "ptr record"),
		coded(means(TLSRequired), "7.29"),
		said(means(TLSRequired), "not sent over a tls connection"),
		said(blockedNow, "very low reputation"),
		said(means(Unauthenticated), "unauthenticated", "authentication information"),
		said(means(Content), "likely unsolicited", "suspicious", "illegal attachment"),
		on("4", said(troubleThen, "temporarily rejected message")),
	),
)

// yahoo is also AOL: https://postmaster.yahooinc.com/error-codes. "Permanently deferred" is a 421.
var yahoo = slices.Concat(
	of("yahoo",
		said(rests(30*time.Minute), "[ts02]"),
		said(meaning{class: Blocked, slow: true, pause: time.Hour, wait: 4 * time.Hour}, "[ts03]"),
		said(rests(4*time.Hour), "s05]"),
		said(rests(time.Hour), "s01]"),
		said(rests(2*time.Hour), "s04]"),
		said(means(Blocked), "[bl"),
		said(reconnect, "max message per connection"),
		said(later(RecipientBusy, time.Hour), "receiving mail too quickly"),
		said(troubleThen, "resources temporarily unavailable"),
		said(tooFast, "temporarily deferred"),
		said(means(NoSuchUser), "doesn't have a*account", "no longer valid"),
		said(means(MailboxDisabled), "mailbox is disabled"),
		said(means(Content), "[ph01]"),
		coded(means(Unauthenticated), "7.9"),
	),
	of("yahoo.co.jp",
		said(passing(rests(time.Hour)), "deferred"),
		said(rests(30*time.Minute), "timeout waiting for command"),
	),
)

// microsoft is both its halves. 5.4.1 with "access denied" is its directory at the edge.
var microsoft = slices.Concat(
	said(tooFast, "exceeded the maximum number of connections", "exceed max concurrent connections"),
	said(reconnect, "exceeded maximum number of messages per connection"),
	said(rests(30*time.Minute), "temporarily rate limited"),
	of("outlook", said(rests(30*time.Minute), "server busy")),
	of("outlook", said(rests(time.Hour), "access denied, please try again later")),
	of("office365", said(rests(15*time.Minute), "server busy")),
	said(means(Blocked), "part of their network is on our block list", "banned sending ip",
		"traffic not accepted from this ip"),
	said(means(RelayDenied), "tenantattribution"),
	said(troubleThen, "attributed to the wrong"),
	[]rule{
		{detail: "4.1", words: "recipient address rejected: access denied", meaning: means(NoSuchUser)},
		{detail: "1.4", words: "recipient address rejected: access denied", meaning: means(NoSuchUser)},
	},
	coded(means(Unauthenticated), "7.515", "7.509"),
)

var apple = of("apple",
	on("4", said(rests(15*time.Minute), "[hcm1]", "[bs02]", "service unavailable - try again later")),
	said(means(Content), "[cs01]"),
)

// french is Orange and Wanadoo.
var french = slices.Concat(
	of("orange", said(rests(10*time.Minute), "trop de connexions")),
	of("orange", said(meaning{class: Blocked, slow: true, pause: 2 * time.Hour}, "service refuse")),
	said(means(NoSuchUser), "utilisateur inconnu"),
)

// german is GMX, web.de and T-Online. The weather is a way of saying that something broke within.
var german = slices.Concat(
	said(passing(troubleThen), "blame it on the weather"),
	of("gmx", on("4", said(rests(time.Hour), "policy")), said(means(Blocked), "policy")),
	said(noReverse, "nemesis*dns ptr"),
	said(means(Blocked), "nemesis", "t-online.de*problem occurred", "problem occurred*t-online.de"),
)

// chinese is QQ and NetEase: daily and hourly limits come as 550.
var chinese = slices.Concat(
	said(passing(rests(time.Hour)), "frequency limited"),
	of("qq", said(means(Content), "mail content denied")),
	said(means(NoSuchUser), "account or domain may not exist"),
	of("netease", said(means(Content), "dt:spm"), said(passing(rests(time.Hour)), "rp:", "hl:itc")),
)

// others: Comcast, where RL is a rate limit; Mimecast, which greylists in its own words; AT&T and
// the like.
var others = slices.Concat(
	of("comcast", said(rests(5*time.Minute), "rl000010"), said(rests(10*time.Minute), "rl0000")),
	said(means(NoSuchUser), "not our customer"),
	said(later(Greylisted, 5*time.Minute), "internal resource*temporarily unavailable"),
	said(rests(30*time.Minute), "too many messages from a new or untrusted ip"),
	of("netvigator", said(reconnect, "too many messages for this session")),
	said(means(Blocked), "_is_blocked", "invalid sender*blacklisted"),
)

// definiteCodes say something definite, whatever the words.
var definiteCodes = slices.Concat(
	coded(noReverse, "7.25"),
	coded(means(Unauthenticated), "7.20", "7.21", "7.22", "7.23", "7.24", "7.26"),
	coded(means(SenderRefused), "7.27", "1.7", "1.8"),
	coded(tooFast, "7.28"),
	coded(means(TLSRequired), "7.30", "7.10"),
	coded(means(NoSuchUser), "1.10"), // Microsoft's RecipientNotFound; RFC 7505's null MX
	coded(means(TooLarge), "2.3", "3.4"),
	on("52", said(means(NoSuchDomain), "does not accept mail")), // RFC 7504
	[]rule{{code: "556", meaning: means(NoSuchDomain)}},
	on("530", said(means(TLSRequired), "starttls")),
	// RFC 5321, section 4.5.3.1.10: 552 is to be taken for 452 where it is about their number.
	on("552", said(passing(means(TooMany)), "too many recipients")),
	coded(passing(means(TooMany)), "5.3"),
)

// definiteWords are understood the same way by most who use them.
var definiteWords = slices.Concat(
	said(means(Greylisted), "greylist", "graylist", "grey list", "grey-list", "postgrey"),
	said(means(TLSRequired), "must issue a starttls", "tls is required", "tls required",
		"encryption required", "encryption needed"),
	said(noReverse, "dns ptr", "ptr record", "reverse dns", "rdns", "cannot find your hostname",
		"reverse hostname"),
	said(blockedNow, "spamhaus", "spamcop", "abuseat.org", "barracudacentral", "cloudmark.com",
		"proofpoint.com", "ivmsip", "uceprotect", "dnsbl", "blocklist", "block list", "blacklist",
		"black list", "blocked using", "poor reputation", "bad reputation", "low reputation",
		"sending ip*is listed", "ip or email address blocked"),
	said(passing(tooFast), "too many connections", "too many concurrent", "too many sessions",
		"connection rate", "rate limit", "ratelimit", "rate-limit", "throttl", "slow down", "too fast",
		"too quickly", "unusual traffic", "too many messages", "too many emails", "too much mail",
		"sending limit", "sending quota", "hourly limit", "daily limit"),
	on("4", said(tooFast, "user complaints")),
	said(means(Unauthenticated), "dmarc", "dkim", "spf", "unauthenticated", "sender policy framework"),
	said(means(Loop), "too many hops", "mailloop", "mail loop", "loops back"),
	coded(means(Loop), "4.6"),
	said(passing(means(TooMany)), "too many recipients"),
	coded(means(MailboxFull), "2.2"),
	said(means(MailboxFull), "over quota", "overquota", "quota exceeded", "exceeded*quota",
		"quota violation", "mailbox full", "mailbox is full", "inbox is full", "out of storage",
		"storage allocation", "mailbox limit exe"), // "exeeded" it is, somewhere
	said(means(TooLarge), "message size", "too large", "too big"),
	coded(means(NoSuchUser), "1.1", "1.6", "1.3", "7.17"),
	coded(means(MailboxDisabled), "2.1", "7.13"),
	said(means(Content), "spam message", "spam content", "virus", "malware", "phish", "unsolicited",
		"as spam", "is spam", "content reject", "content policy", "content denied", "junkmail",
		"spamtext", "url in this", "spam"),
)

// mailboxWords are those of people who wrote their own sentence about a recipient or a sender.
var mailboxWords = slices.Concat(
	said(means(MailboxDisabled), "suspended", "disabled", "inactive", "not active", "account closed",
		"not activated"),
	said(means(RelayDenied), "relaying denied", "relay access denied", "relay not permitted",
		"allowed to relay", "not relay", "rcpthosts"),
	said(means(NoSuchDomain), "null mx", "tenant or domain not found"),
	said(means(SenderRefused), "sender address", "sender domain", "sender verify", "domain of sender",
		"envelope sender", "invalid sender", "domain may not exist", "sender*has no a"),
	said(means(NoSuchUser), "user unknown", "unknown user", "user*unknown", "no such",
		"mailbox unavailable", "mailbox not found", "does not exist", "doesn't exist",
		"invalid recipient", "invalid mailbox", "not a valid", "undeliverable address",
		"unrouteable address", "address unknown", "address invalid", "address rejected", "no mailbox",
		"no mail-box", "recipient*unrecognized", "recipient*denied", "recipient is not allowed",
		"cannot deliver mail for", "mailbox name not allowed", "moved with no forwarding",
		"user not found", "recipient not found"),
)

// vague is what is left: codes that many use for many things, and words of last resort.
var vague = slices.Concat(
	coded(means(NoSuchDomain), "1.2"),
	coded(means(NoSuchUser), "1.4"),
	coded(troubleThen, "3.0", "3.1", "3.2", "3.5", "2.4"),
	coded(tooFast, "4.5"),
	on("4", coded(troubleThen, "4.1", "4.2", "4.3", "4.4")),
	said(means(RelayDenied), "authentication required", "requires authentication"),
	said(means(Unauthenticated), "authentication"),
	said(means(Blocked), "sender rejected aup", "complaints", "reputation", "blocked"),
	said(means(Policy), "denied", "policy", "policies"),
	[]rule{
		{code: "500", meaning: means(Protocol)}, {code: "501", meaning: means(Protocol)},
		{code: "502", meaning: means(Protocol)}, {code: "503", meaning: means(Protocol)},
		{code: "504", meaning: means(Protocol)}, {code: "555", meaning: means(Protocol)},
	},
	said(means(Protocol), "syntax", "rfc"),
	[]rule{{code: "552", meaning: means(MailboxFull)}},
)
