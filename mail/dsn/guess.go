package dsn

import (
	"net/netip"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// statusIn returns the code of RFC 3463 in text, or one made from a reply code and the words; "" if
// neither is there. A code that says something goes before one that does not.
func statusIn(text string) string {
	general := ""
	for _, m := range habits().code.FindAllStringSubmatch(text, 20) {
		if !strings.HasSuffix(m[1], ".0.0") {
			return m[1]
		}
		if general == "" {
			general = m[1]
		}
	}
	class := ""
	if general != "" {
		class = general[:1]
	} else if m := habits().reply.FindStringSubmatch(text); m != nil {
		class = m[1][:1]
		general = class + ".0.0"
	}
	if class == "" || class == "2" {
		return general
	}
	if d := detailIn(text); d != "" {
		return class + "." + d
	}
	return general
}

func detailIn(text string) string {
	for _, p := range habits().phrases {
		if p.words.MatchString(text) {
			return p.detail
		}
	}
	return ""
}

// guess reads a bounce without marked fields. It returns ErrNotReport for what is none.
func (n *Notification) guess(h mail.Header) error {
	automatic := h.Get("Auto-Submitted")
	automatic, _, _ = strings.Cut(strings.ToLower(automatic), ";")
	auto := automatic != "" && strings.TrimSpace(automatic) != "no"
	daemon := isDaemon(h)
	subject := habits().bounceSubject.MatchString(decodeWords(h.Get("Subject")))

	if m := habits().complaintSubject.FindStringSubmatch(h.Get("Subject")); m != nil {
		n.Kind, n.Feedback = Abuse, &Feedback{Type: "abuse", Incidents: 1}
		n.Feedback.SourceIP, _ = netip.ParseAddr(m[1])
		return nil
	}
	words := n.Text
	if i := habits().originalLine.FindStringIndex(words); i != nil {
		n.returned(words[i[0]:])
		words = words[:i[0]]
	}
	likely := daemon || subject && (auto || h.Get("From") == "") || n.Kind == Status
	if likely && n.guessRecipients(h, words) {
		if n.Kind == "" {
			n.Kind = Bounce
		}
		return nil
	}
	if auto || habits().replySubject.MatchString(h.Get("Subject")) || h.Get("X-Autoreply") != "" ||
		h.Get("X-Auto-Response-Suppress") != "" {
		n.Kind = Reply
		return nil
	}
	return ErrNotReport
}

func isDaemon(h mail.Header) bool {
	if len(h.All("X-Failed-Recipients")) > 0 {
		return true
	}
	from := h.Get("From")
	if habits().daemonFrom.MatchString(from) || from == "" {
		return true
	}
	kind := strings.ToLower(h.Get("Content-Type"))
	if strings.HasPrefix(kind, "multipart/report") && strings.Contains(kind, "delivery-status") {
		return true
	}
	return len(h.All("Return-Path")) > 0 && strings.Trim(h.Get("Return-Path"), "<> ") == "" &&
		habits().bounceSubject.MatchString(decodeWords(h.Get("Subject")))
}

// returned takes over the header of the returned message from the end of the text.
func (n *Notification) returned(tail string) {
	if len(n.Original.Fields) > 0 {
		return
	}
	// The dividing line and what surrounds it are no fields: drop lines until one is.
	for range 12 {
		h, err := mail.ParseHeader([]byte(tail))
		if len(h.Fields) > 1 || err == nil && len(h.Fields) == 1 {
			n.Original = h
			return
		}
		_, rest, ok := strings.Cut(tail, "\n")
		if !ok {
			return
		}
		tail = rest
	}
}

// guessRecipients finds whom a bounce is about and what it says of each. It reports whether there
// is any.
func (n *Notification) guessRecipients(h mail.Header, words string) bool {
	failed := habits().failWords.MatchString(words) || habits().failWords.MatchString(h.Get("Subject"))
	delayed := habits().delayWords.MatchString(words) && !habits().finalWords.MatchString(words)
	if !failed && !delayed && len(h.All("X-Failed-Recipients")) == 0 {
		return false
	}
	addrs := n.failedAddresses(h, words)
	for i, a := range addrs {
		o := Outcome{Final: a, Guessed: true, Diagnostic: about(words, addrs, i)}
		o.Status = statusIn(o.Diagnostic)
		if o.Status == "" || strings.HasSuffix(o.Status, ".0.0") {
			if s := statusIn(words); s != "" && !strings.HasSuffix(s, ".0.0") {
				o.Status = s
			}
		}
		o.Action = Failed
		if delayed && !strings.HasPrefix(o.Status, "5") {
			o.Action = Delayed
		}
		if o.Status == "" || strings.HasPrefix(o.Status, "2") {
			o.Status = general(o.Action)
			if d := detailIn(words); d != "" {
				o.Status = o.Status[:2] + d
			}
		}
		n.Recipients = append(n.Recipients, o)
	}
	return len(addrs) > 0
}

// failedAddresses returns the addresses a bounce is about, most certain source first: the header
// field some servers write, addresses in the text at places where servers put them, any in the
// text, and at last the recipient of the returned message.
func (n *Notification) failedAddresses(h mail.Header, words string) []string {
	var list []string
	for _, f := range h.All("X-Failed-Recipients") {
		list = appendAddrs(list, f.Value(), nil)
	}
	if len(list) > 0 {
		return list
	}
	own := n.bystanders(h)
	if list = placedAddrs(words, own); len(list) > 0 {
		return list
	}
	if list = appendAddrs(nil, words, own); len(list) > 0 {
		return list[:1] // later ones are contacts and quotations
	}
	// One who writes to himself is sender and recipient of the bounce.
	if list = placedAddrs(words, nil); len(list) > 0 {
		return list
	}
	if list = appendAddrs(nil, decodeWords(h.Get("Subject")), own); len(list) > 0 {
		return list
	}
	for _, name := range []string{"To", "X-Original-To", "Delivered-To", "Cc"} {
		if list = appendAddrs(nil, n.Original.Get(name), nil); len(list) > 0 {
			return list
		}
	}
	return nil
}

// placedAddrs returns the addresses at the places where servers name a recipient.
func placedAddrs(words string, skip map[string]bool) []string {
	var list []string
	for line := range strings.SplitSeq(words, "\n") {
		if m := habits().placed.FindStringSubmatch(line); m != nil {
			list = appendAddrs(list, m[1], skip)
		}
	}
	return list
}

// bystanders are addresses that stand in a bounce without having failed: who gets it and who sends
// it.
func (n *Notification) bystanders(h mail.Header) map[string]bool {
	own := make(map[string]bool)
	for _, v := range []string{h.Get("To"), h.Get("From"), h.Get("Message-ID"), n.Original.Get("From"),
		n.Original.Get("Return-Path"), n.Original.Get("Message-ID")} {
		for _, a := range habits().addr.FindAllString(v, 20) {
			own[strings.ToLower(a)] = true
		}
	}
	return own
}

func appendAddrs(list []string, s string, skip map[string]bool) []string {
next:
	for _, a := range habits().addr.FindAllString(s, 200) {
		low := strings.ToLower(a)
		service := strings.HasPrefix(low, "mailer-daemon@") || strings.HasPrefix(low, "postmaster@")
		if skip[low] || skip != nil && service {
			continue
		}
		for _, have := range list {
			if strings.EqualFold(have, a) {
				continue next
			}
		}
		if len(list) < maxRecipients {
			list = append(list, a)
		}
	}
	return list
}

// about returns the words on one recipient: from its address to the next one's, and no more than
// some lines; or all of them where it is the only one.
func about(words string, addrs []string, i int) string {
	start := strings.Index(words, addrs[i])
	if len(addrs) == 1 || start < 0 {
		return limit(strings.TrimSpace(words))
	}
	end := len(words)
	for j, other := range addrs {
		if j == i {
			continue
		}
		if k := strings.Index(words[start+len(addrs[i]):], other); k >= 0 {
			end = min(end, start+len(addrs[i])+k)
		}
	}
	return limit(strings.TrimSpace(words[start:end]))
}
