package relay

import (
	"strings"
	"time"

	"github.com/tallypost/tallypost/mail/smtp"
)

// Class is what a refusal means, in words for people.
type Class string

// The classes. What is not said of one: its next attempt is the queue's to time, at the best host
// again.
const (
	RateLimited     Class = "rate limited"        // we send too much or too fast: slow down
	Blocked         Class = "sender blocked"      // our address or domain has a bad name there
	Unauthenticated Class = "sender not proven"   // SPF, DKIM, DMARC, or our reverse name
	SenderRefused   Class = "sender refused"      // the reverse path, whoever sends it
	Greylisted      Class = "greylisted"          // come again later, as any stranger
	NoSuchUser      Class = "no such user"        //
	MailboxDisabled Class = "mailbox disabled"    //
	MailboxFull     Class = "mailbox full"        //
	RecipientBusy   Class = "recipient too busy"  // one mailbox gets too much
	TooMany         Class = "too many recipients" // in one message
	TooLarge        Class = "message too large"   //
	Content         Class = "content refused"     // spam, a virus, a forbidden attachment
	Policy          Class = "policy"              // any other rule of theirs
	RelayDenied     Class = "relaying denied"     // it does not take mail for that domain
	NoSuchDomain    Class = "no such domain"      //
	Loop            Class = "mail loop"           //
	TLSRequired     Class = "protection demanded" // by policy, sender or server; not to be had
	Incapable       Class = "not supported there" // the server lacks an extension
	Protocol        Class = "protocol"            // it does not understand us
	Trouble         Class = "server trouble"      // it cannot do it now: try another host
	Unreachable     Class = "unreachable"         // no server answered, or none can be found
	ConnectionLost  Class = "connection lost"     // before the final reply
	Configuration   Class = "our configuration"   // what was set up here does not work
)

// detail is the subject and detail of RFC 3463 for a refusal without a code of its own.
func (c Class) detail() string {
	switch c {
	case NoSuchUser:
		return "1.1"
	case NoSuchDomain:
		return "1.2"
	case SenderRefused:
		return "1.8"
	case MailboxDisabled:
		return "2.1"
	case MailboxFull:
		return "2.2"
	case TooLarge:
		return "3.4"
	case Loop:
		return "4.6"
	case TooMany:
		return "5.3"
	case Protocol:
		return "5.0"
	case Trouble:
		return "3.0"
	case RateLimited, Greylisted, RecipientBusy:
		return "7.0"
	case Blocked, Unauthenticated, Content, Policy, RelayDenied:
		return "7.1"
	case TLSRequired:
		return "7.4"
	}
	return "0.0"
}

// meaning is what follows from a refusal.
type meaning struct {
	class Class
	// passes: the message is tried again, whatever the first digit of the reply says.
	passes bool
	wait   time.Duration // at least, before the next attempt
	slow   bool          // the site gets too much from us
	pause  time.Duration // and gets nothing for so long; 0 leaves it to experience
	next   bool          // another host may well take the message
	ipv4   bool          // it is about our IPv6 address: the other may do better
	again  bool          // another connection to the same host will do
}

// read finds out what a refusal means. connecting says that it came before MAIL, and so is about us
// and not about a message.
func read(r *smtp.Reply, connecting bool, site string) meaning {
	m := lookUp(r, site)
	m.passes = m.passes || r.Code/100 == 4
	switch {
	case connecting:
		// RFC 7504: 521 is a host that never takes mail. Any other refusal of the connection is about
		// our address or the server's state: both change, so the message waits.
		m.passes = r.Code != 521
		m.next = m.class != RateLimited
		m.slow = m.slow || m.passes
		if m.class == "" {
			m.class = Trouble
		}
	case r.Code == 421:
		m.next = m.next || m.class == Trouble || m.class == ""
		m.slow = m.slow || m.next
	}
	if m.class == "" && r.Code/100 == 4 {
		m.class, m.next = Trouble, true
	}
	if m.class == "" {
		m.class = Policy
	}
	if m.class == Greylisted || m.class == RateLimited || m.class == Trouble {
		m.wait = max(m.wait, hint(r.Text))
	}
	if !m.passes {
		m.wait, m.next = 0, connecting
	}
	return m
}

// hint reads the time that a server asks for: "try again in 300 seconds". 0 where there is none, or
// none that makes sense.
func hint(text string) time.Duration {
	words := strings.FieldsFunc(strings.ToLower(text), func(c rune) bool {
		return c != ':' && (c < '0' || c > '9') && (c < 'a' || c > 'z')
	})
	for i, w := range words {
		n, unit := splitNumber(w)
		if unit == "" && i+1 < len(words) {
			unit = words[i+1]
		}
		var d time.Duration
		switch {
		case n < 0:
			continue
		case isClock(w):
			d = clockTime(w)
		case unit == "s" || strings.HasPrefix(unit, "sec"):
			d = time.Duration(n) * time.Second
		case unit == "m" || strings.HasPrefix(unit, "min"):
			d = time.Duration(n) * time.Minute
		case unit == "h" || strings.HasPrefix(unit, "hour"):
			d = time.Duration(n) * time.Hour
		}
		if d > 0 && d <= 6*time.Hour {
			return d
		}
	}
	return 0
}

// splitNumber splits "300s"; -1 where there is no number, or one too long to be a time.
func splitNumber(w string) (int, string) {
	n, i := 0, 0
	for ; i < len(w) && w[i] >= '0' && w[i] <= '9'; i++ {
		n = n*10 + int(w[i]-'0')
		if i >= 5 {
			return -1, ""
		}
	}
	if i == 0 {
		return -1, ""
	}
	return n, w[i:]
}

// isClock: "00:05:00", as some greylisters have it.
func isClock(w string) bool {
	return len(w) == 8 && w[2] == ':' && w[5] == ':'
}

func clockTime(w string) time.Duration {
	d, err := time.ParseDuration(w[:2] + "h" + w[3:5] + "m" + w[6:] + "s")
	if err != nil {
		return 0
	}
	return d
}
