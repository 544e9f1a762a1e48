package dsn

import (
	"bytes"
	"fmt"
	"mime"
	"strings"
	"time"
)

// advice says in plain words what a status code means and what its reader can do. Codes are of RFC
// 3463, RFC 7504, RFC 7505 and the IANA registry; a subject digit without a detail is the fallback.
type advice struct{ means, do string }

var adviceFor = map[string]advice{
	"1.0": {"There is something wrong with the address.",
		"Check the address with its owner."},
	"1.1": {"The mailbox does not exist.",
		"Check the spelling, or ask the recipient another way."},
	"1.2": {"The domain of the address does not exist or takes no mail.",
		"Check what follows the @ sign."},
	"1.3": {"The address is not well formed.",
		"Check the address for stray or missing characters."},
	"1.6": {"The recipient has moved and left no new address.",
		"Ask the recipient another way."},
	"1.8": {"The receiving server does not accept your address as a sender.",
		"Ask the administrator of your own mail domain to check its DNS records."},
	"1.10": {"The domain has declared that it takes no mail at all.",
		"Check what follows the @ sign."},
	"2.0": {"The mailbox cannot take the message.",
		"Try again later, or reach the recipient another way."},
	"2.1": {"The mailbox is disabled.",
		"Reach the recipient another way."},
	"2.2": {"The recipient's mailbox is full.",
		"Tell the recipient another way, and send again once there is room."},
	"2.3": {"The message is too large for this recipient.",
		"Make it smaller, or send a link instead of the attachment."},
	"3.0": {"The receiving system has a fault.",
		"Send again later; tell the recipient if it persists."},
	"3.4": {"The message is too large for the receiving server.",
		"Make it smaller, or send a link instead of the attachment."},
	"4.0": {"The receiving server could not be reached.",
		"Send again later."},
	"4.1": {"The receiving server did not answer.",
		"Send again later, or reach the recipient another way."},
	"4.2": {"The connection to the receiving server broke off.",
		"Send again later."},
	"4.3": {"The domain name system gave no usable answer.",
		"Check what follows the @ sign, or send later."},
	"4.4": {"No server could be found that takes mail for the domain.",
		"Check what follows the @ sign."},
	"4.6": {"The message went round in circles.",
		"Tell the recipient: a forwarding leads back to where it began."},
	"4.7": {"The message could not be delivered in the time allowed.",
		"Send again later, or reach the recipient another way."},
	"5.0": {"The two mail servers did not understand each other.",
		"Pass this report on to the administrator of your mail server."},
	"5.3": {"The message had too many recipients.",
		"Send it to fewer recipients at a time."},
	"6.0": {"The receiving server cannot take the content of the message.",
		"Send it in another form, for instance as plain text."},
	"6.7": {"An address holds characters that the receiving server cannot handle.",
		"Ask the recipient for an address without accents or other letters than a to z."},
	"7.0": {"The receiving server refused the message by its rules.",
		"Read its words below; they often say what to change."},
	"7.1": {"The receiving server refused the message by its rules.",
		"Read its words below; they often say what to change."},
	"7.4": {"The security that the message asks for cannot be had on the way there.",
		"Send it without that demand, if you may."},
	"7.10": {"The receiving server cannot be reached with the encryption its domain demands.",
		"Tell the recipient: the records of that domain are at fault."},
	"7.26": {"The receiving server could not verify that your domain sent the message.",
		"Ask the administrator of your mail domain to check SPF, DKIM and DMARC."},
	"7.30": {"The message demands encryption that the next server does not offer.",
		"Send it without that demand, if you may."},
}

// explain tells what a status code of RFC 3463 means and what can be done, each one sentence.
func explain(status string) advice {
	_, rest, _ := strings.Cut(status, ".")
	if a, ok := adviceFor[rest]; ok {
		return a
	}
	subject, _, _ := strings.Cut(rest, ".")
	if a, ok := adviceFor[subject+".0"]; ok {
		return a
	}
	return advice{"The message was not taken, and no standard reason was given.",
		"Read the words below, or reach the recipient another way."}
}

// writeHuman writes the part for a person.
func (r *Report) writeHuman(b *bytes.Buffer, orig *original) {
	var t bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&t, format+"\r\n", args...) }

	line("This is the mail server %s.", clean(r.Host.String()))
	line("")
	line("It reports on a message that you sent:")
	line("")
	if s := decodeWords(orig.subject); s != "" {
		line("    Subject: %s", cut(clean(s), 200))
	}
	if orig.date != "" {
		line("    Date:    %s", cut(clean(orig.date), 100))
	}
	if !r.Arrived.IsZero() {
		line("    Arrived: %s", r.Arrived.Format(dateFormat))
	}
	for _, a := range []Action{Failed, Delayed, Delivered, Relayed, Expanded} {
		r.humanSection(line, a)
	}
	if r.Contact != "" {
		line("")
		line("Questions? %s", cut(clean(r.Contact), 200))
	}

	b.WriteString("Content-Type: text/plain; charset=utf-8\r\n")
	if ascii(t.Bytes()) && !longLine(t.Bytes()) {
		b.WriteString("\r\n")
		b.Write(t.Bytes())
		return
	}
	b.WriteString("Content-Transfer-Encoding: quoted-printable\r\n\r\n")
	quotable(b, t.Bytes())
}

var sectionTitle = map[Action]string{
	Failed: "It could NOT be delivered to the following address, and will not be tried\r\n" +
		"again:",
	Delayed: "It could not be delivered yet to the following address. It is still being tried:\r\n" +
		"you need not do anything, and should not send it again.",
	Delivered: "It was delivered to the following address:",
	Relayed: "It was passed on towards the following address, to a server that does not report\r\n" +
		"delivery. You may hear of a failure, but will not hear of success:",
	Expanded: "It was delivered to the list at the following address:",
}

// humanSection writes the recipients with one action.
func (r *Report) humanSection(line func(string, ...any), a Action) {
	first := true
	for _, rcpt := range r.Recipients {
		if rcpt.Action != a {
			continue
		}
		if first {
			line("")
			line("%s", sectionTitle[a])
			first = false
		}
		line("")
		line("<%s>", clean(rcpt.Address.String()))
		rcpt.human(line)
	}
}

func (rcpt *Recipient) human(line func(string, ...any)) {
	if rcpt.Action == Failed || rcpt.Action == Delayed {
		adv := explain(rcpt.status())
		line("    %s", adv.means)
		if rcpt.Action == Failed {
			line("    What you can do: %s", adv.do)
		}
	}
	if rcpt.Action == Delayed && !rcpt.RetryUntil.IsZero() {
		line("    It will be tried until %s.", rcpt.RetryUntil.Format(time.RFC1123Z))
	}
	if rcpt.Reply == "" {
		return
	}
	switch {
	case rcpt.spokeSMTP():
		line("    The server %s said:", clean(rcpt.Remote))
	case rcpt.Remote != "":
		line("    While talking to %s:", clean(rcpt.Remote))
	default:
		line("    In the words of this server:")
	}
	for _, l := range strings.Split(cut(strings.TrimSpace(rcpt.Reply), maxReply), "\n") {
		line("        %s", clean(strings.TrimRight(l, "\r")))
	}
}

// decodeWords decodes the encoded words of a Subject as far as they can be.
func decodeWords(s string) string {
	d, err := new(mime.WordDecoder).DecodeHeader(s)
	if err != nil {
		return s
	}
	return d
}
