package dsn

import (
	"regexp"
	"strings"
	"sync"
)

// habits are those of servers that write bounces as they please. They are compiled when the first
// of these comes: that takes 2 ms and 1 MiB, which a process that reads no bounce need not spend.
// Each expression is linear in its input, as package regexp has it.
var habits = sync.OnceValue(newVocabulary)

// vocabulary is what a bounce is recognised and read by.
type vocabulary struct {
	addr *regexp.Regexp
	// code is a code of RFC 3463 that is no part of a version or an IP address.
	code *regexp.Regexp
	// reply is a reply code of RFC 5321 among words.
	reply *regexp.Regexp
	// placed matches a line with an address where servers name the recipient: alone, first, in
	// brackets, or after a word for it.
	placed         *regexp.Regexp
	finalRecipient *regexp.Regexp
	// complaintSubject: Microsoft's feedback loop reports with nothing but this and the message.
	complaintSubject *regexp.Regexp
	replySubject     *regexp.Regexp
	daemonFrom       *regexp.Regexp
	bounceSubject    *regexp.Regexp
	delayWords       *regexp.Regexp
	// finalWords are stronger than words of delay in the same text.
	finalWords *regexp.Regexp
	failWords  *regexp.Regexp
	// originalLine is what a server writes between its own words and the message it returns, or the
	// first field of that message.
	originalLine *regexp.Regexp
	// phrases tell a status from words where no code is given; the first that matches decides. The
	// class digit comes from the action or the reply code.
	phrases []phrase
}

type phrase struct {
	detail string // subject and detail of RFC 3463
	words  *regexp.Regexp
}

// anyOf matches text with one of the alternatives in it, in any case.
func anyOf(alternatives ...string) *regexp.Regexp {
	return regexp.MustCompile("(?i)" + strings.Join(alternatives, "|"))
}

func newVocabulary() *vocabulary {
	v := new(vocabulary)
	v.addr = regexp.MustCompile(
		`[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]+@[A-Za-z0-9][A-Za-z0-9.-]*[A-Za-z0-9]|` +
			`"[^"\n]{1,64}"@[A-Za-z0-9.-]*[A-Za-z0-9]`)
	v.code = regexp.MustCompile(
		`(?:^|[^0-9.])([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:$|[^0-9.]|\.(?:$|[^0-9]))`)
	v.reply = regexp.MustCompile(
		`(?:^|[\s:;<(#"'=])([245][0-5][0-9])(?:[\s:;,)>"'-]|$)`)
	v.placed = regexp.MustCompile(`(?i)^[\s>*•|#.-]*(?:\(?\d+\)?[.)]?\s+)?` +
		`(?:(?:(?:final|original|failed|target|the|mail|unknown|invalid) )*` +
		`(?:recipients?|rcpt to|user|addresse?e?|email|mailbox|account|for)` +
		`(?:\(s\))?(?: address(?:es)?)?\s*(?:was|is)?[:=]+\s*)?` +
		`(?:rfc822;\s*)?["'<(]*(` + v.addr.String() + `)[>"'):;,.\s]*(?:$|[\s(:;.,-].*$)`)
	v.finalRecipient = regexp.MustCompile(`(?im)^final-recipient:`)
	v.complaintSubject = regexp.MustCompile(`(?i)^ *complaint about message from ([0-9a-f.:]+)`)
	v.replySubject = regexp.MustCompile(
		`(?i)^(?:auto(?:matic)?[- ]?(?:reply|response)|out of (?:the )?office)\b`)
	v.daemonFrom = anyOf("mailer-?daemon", "mail-?daemon", "mdaemon", "postmaster", "post_master",
		`post\.master`, "mail.?(delivery|system|admin)", "system administrator", "^<>$", "bounce",
		"delivery", "antispam", "mmdf", `mail\.?server`)
	v.bounceSubject = anyOf("undeliver", "nondeliverable", "delivered", "delayed", "reject", "bounce",
		"deliver.{0,20}(fail|status|report|problem|error|notif|delay|subsystem)",
		"(fail|error|problem|unable|not).{0,12}deliver", "could ?n.t be",
		"return(ed|ing)?.{0,10}(mail|message|to sender)", "failure (notice|report)",
		"mail.{0,10}(fail|error|could not)", "^warning", "user unknown", "message status",
		"transcript", "non.?remis", "unzustellbar")
	v.delayWords = anyOf(`\bdelayed\b`, "will (?:be )?(?:re-?tr|keep trying|continue)",
		"still (?:trying|being)", "not yet been delivered", "has not been delivered",
		"warning message", "temporar(?:y|ily) .{0,30}(?:will|retry)", "no action is required",
		"need(?:s)? not (?:do|re)", "attempt(?:ed|s)? .{0,20}again", "later")
	v.finalWords = anyOf("permanent", "giv(?:en|ing) up", "ha(?:s|ve) failed", "fatal error",
		"could not be delivered", "delivery.{0,30}failed", "undeliverable", "cannot be delivered",
		"was rejected")
	v.failWords = anyOf("fail", "undeliver", "unzustell", "unable", "reject", "refus", "unknown",
		"not (?:be )?(?:been )?(?:possible|deliver|reach|exist|found|accept)", "error", "cannot",
		"can.?t", "could not", "couldn.t", "invalid", "no such", "bounce", "denied", "full", "quota",
		"exceed", "does(?:n.t| not)", "was ?n.t", "expired", "timed? ?out", "disabled", "inactive",
		"permanent", "blocked", "returned")
	v.originalLine = regexp.MustCompile(`(?im)^(?:[-=*_#> ]*(?:` + strings.Join([]string{
		"(?:the )?(?:header|body)s? of the original", "original (?:message|mail)",
		"returned (?:message|mail)", "unsent message", "message headers? follow",
		"below (?:this line|the next line)", "this is a copy", "bounced e-?mail",
		"(?:start|begin) of (?:the )?(?:returned|original|message)", "included is",
		"full(?: raw)? message", "message (?:text|content) follows",
		"the following is .{0,40}(?:header|message)", "attached is",
		"copy of (?:the|your) (?:original )?message", "undelivered message", "forwarded message",
		"message header", "rejected message", "-{3,} ?message", "mail header",
		"your (?:original )?message (?:reads|follows)"}, "|") + `).*|` +
		`received: +(?:from|by) .*|received: \(.*|return-path: *<.*|x-[a-z-]+: .*|` +
		`message-id: *<.*)$`)
	v.phrases = newPhrases()
	return v
}

func newPhrases() []phrase {
	return []phrase{
		{"2.2", anyOf(
			"(mail ?box|quota|storage|disk|inbox|account).{0,40}(full|exceed|over|limit|storage)",
			"over.?(quota|limit)", "quota.?(exceed|limit)", "exceeded.{0,20}(storage|quota|allocation)",
			"not enough (storage )?space", "is full", "insufficient (system )?storage", "no (disk )?space")},
		{"3.4", anyOf("(message|mail|size|attachment).{0,30}too (big|large)",
			"(message|mail|size|attachment).{0,30}exceeds?.{0,30}(size|limit|max)",
			"size limit", "message size", "too (large|big)")},
		{"2.1", anyOf("disabled", "inactive", "suspended", "deactivated", "blocked for inactivity",
			"not active", "expired account", "account (has been|is) (locked|closed)",
			"no longer (active|available|valid)")},
		{"1.1", anyOf("(user|recipient|mailbox|address|account|name|addressee|local part).{0,50}"+
			"(unknown|not (be )?(found|exist|recogni|listed|known|valid|local)|does ?n.t exist|"+
			"does not exist|invalid|no longer|rejected|unavailable)",
			`(unknown|no such|invalid|bad|nonexistent|unrouteable|undeliverable|unrecogni\w+) ?(\w+ ){0,2}`+
				"(user|recipient|mailbox|address|account|person|local)",
			"no (such )?(mailbox|account|user)", "not our customer", "user.{0,20}not", "not a valid",
			"no mail.?box", "there is no", "can.t find", "(is|was|were) not (found|recogni)",
			"does(n.t| not) have", "not listed in", "unknown user", "does not exist")},
		{"1.2", anyOf("(host|domain|name server|dns|site|mx|server).{0,40}(unknown|not (be )?found|"+
			"does(n.t| not) exist|lookup|no (valid )?(mx|a) |cannot be|could ?n.t be|unrout)",
			`(no such|unknown|invalid|bad|unrouteable|cannot find) ?(\w+ ){0,2}(host|domain|server)`,
			"nxdomain", "couldn.t find any host", "name or service not known", "no (mx|route) ")},
		{"4.6", anyOf("(too many|excessive|maximum).{0,20}(hops|received|loop)", "mail ?loop", "looping",
			"routing loop", "loops? back")},
		{"7.1", anyOf("spam", "black.?list", "block.?list", "blocked", "virus", "malware", "policy",
			"dmarc", "dkim", "spf", "relay(ing)?.{0,20}(denied|not)", "denied", "refused to",
			"not (permitted|allowed|authori)", "unauthori", "prohibited", "reputation", "content",
			"listed (at|in|by)", "bad (sender|reputation)", "forbid", "restrict", "security", "filter",
			"access", "protected", "reject")},
		{"4.1", anyOf("time.?d? ?out", "expired", "retry time", "too long",
			"(could ?n.t|not|unable|failed).{0,40}(deliver|connect|reach|contact)",
			"connection (refused|reset|lost|timed)", "unreachable", "no route", "no answer", "not respond",
			"network error", "deferred")},
	}
}
