// Package reputation remembers how the mail of each sender was received here, and what wanted and unwanted
// mail looks like here, and weighs new mail by it.
//
// Nobody else's lists are asked: what counts is what the users of this server did. A message that somebody
// moved into the folder Junk speaks against its sender and its words, one that was read and kept speaks for
// them (see Learner). Senders are known by the domain that DKIM or SPF vouches for, by the author's address
// where that domain is the author's, and by the network of the host. What is remembered fades: half of it in
// 30 days. The memory is bounded, kept in one file, and saved now and then: it is advice, not a promise.
package reputation

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Class is what became of a message.
type Class uint8

// The classes.
const (
	Ham  Class = iota // wanted
	Spam              // not wanted
)

// String returns "ham" or "spam".
func (c Class) String() string {
	if c == Spam {
		return "spam"
	}
	return "ham"
}

// Sender is who answers for a message, as far as that was verified. Empty fields are unknown.
type Sender struct {
	Domains []string     // that DKIM or SPF vouches for, in lower case
	Author  string       // address of From, where one of Domains is its domain or above it
	Network netip.Prefix // of the host that handed the message over
}

// keys returns what is remembered of the sender, the most telling first.
func (s Sender) keys() []string {
	var out []string
	if s.Author != "" {
		out = append(out, "a:"+strings.ToLower(s.Author))
	}
	for _, d := range s.Domains {
		out = append(out, "d:"+d)
	}
	if s.Network.IsValid() {
		out = append(out, "n:"+s.Network.String())
	}
	return out
}

// Reason is one observation: points above zero speak against the message.
type Reason struct {
	Name   string
	Words  string
	Points float64
}

// Limits on what is remembered.
const (
	maxSenders = 100_000
	maxTokens  = 300_000
	halfLife   = 30 * 24 * time.Hour
)

// record is how often a sender's mail was wanted and not, as of a time from which it fades.
type record struct {
	ham, spam float64
	at        time.Time
}

// faded returns the record as it counts now.
func (r record) faded(now time.Time) record {
	if age := now.Sub(r.at); age > 0 {
		f := math.Exp2(-float64(age) / float64(halfLife))
		r.ham, r.spam, r.at = r.ham*f, r.spam*f, now
	}
	return r
}

// History is the memory of one server. Its methods may be called from several goroutines.
type History struct {
	mu      sync.Mutex
	senders map[string]record // guarded by mu
	words   words             // guarded by mu
	learned map[string]lesson // guarded by mu; messages by the name of their file
	changed bool              // guarded by mu; since it was saved last
}

// lesson is what was learned of a message, so that it is learned once, or taken back.
type lesson struct {
	class Class
	at    time.Time
}

// New returns a History that remembers nothing.
func New() *History {
	return &History{senders: make(map[string]record), words: newWords(), learned: make(map[string]lesson)}
}

// Learn counts a message of a sender with these tokens (see Tokens).
func (h *History) Learn(s Sender, tokens []Token, c Class, now time.Time) {
	h.count(s, tokens, c, 1, now)
}

// Unlearn takes back what Learn did, for a message that somebody put elsewhere after all.
func (h *History) Unlearn(s Sender, tokens []Token, c Class, now time.Time) {
	h.count(s, tokens, c, -1, now)
}

func (h *History) count(s Sender, tokens []Token, c Class, n float64, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed = true
	for _, k := range s.keys() {
		r := h.senders[k].faded(now)
		if c == Spam {
			r.spam = max(r.spam+n, 0)
		} else {
			r.ham = max(r.ham+n, 0)
		}
		r.at = now
		h.senders[k] = r
	}
	if len(h.senders) > maxSenders {
		h.forget(now)
	}
	h.words.learn(tokens, c, n)
}

// forget drops the senders that count least until a tenth of the room is free.
func (h *History) forget(now time.Time) {
	for floor := 0.05; len(h.senders) > maxSenders-maxSenders/10; floor *= 2 {
		for k, r := range h.senders {
			if r = r.faded(now); r.ham+r.spam < floor {
				delete(h.senders, k)
			}
		}
	}
}

// WantsWords reports whether enough was learned for Weigh to look at tokens at all.
func (h *History) WantsWords() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.words.trained()
}

// Weights of what is known of a sender. A domain or address that was always good outweighs a failed check
// or two; one that was always bad is near the threshold for junk by itself. A network says less: others
// share it.
const (
	prior         = 2.0 // messages of each class that a sender is thought to have sent before the first
	senderWeight  = 1.5 // points for each factor e of the odds
	networkWeight = 0.7
	maxSender     = 4.5
)

// Weigh returns what speaks for and against a message.
func (h *History) Weigh(s Sender, tokens []Token, now time.Time) []Reason {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Reason
	known := false
	for _, k := range s.keys() {
		r, ok := h.senders[k]
		if !ok {
			continue
		}
		r = r.faded(now)
		weight, network := senderWeight, k[0] == 'n'
		if network {
			weight = networkWeight
		}
		if known && !network {
			continue // the author's address and his domain, or two domains, are the same witness twice
		}
		known = known || !network
		points := weight * math.Log((r.spam+prior)/(r.ham+prior))
		points = min(max(points, -maxSender), maxSender)
		out = append(out, Reason{Name: "history", Points: points,
			Words: fmt.Sprintf("%s: %.0f wanted and %.0f unwanted here lately", k[2:], r.ham, r.spam)})
	}
	if p, n, ok := h.words.judge(tokens); ok {
		out = append(out, Reason{Name: "words", Points: wordPoints(p),
			Words: fmt.Sprintf("%.1f %% like unwanted mail here, by %d words", 100*p, n)})
	}
	return out
}

// wordPoints turns the probability that the words are those of unwanted mail into points. Only near
// certainty counts for much, and it never decides alone.
func wordPoints(p float64) float64 {
	switch {
	case p >= 0.999:
		return 4.5
	case p >= 0.99:
		return 3.5
	case p >= 0.95:
		return 2
	case p >= 0.8:
		return 1
	case p <= 0.001:
		return -2
	case p <= 0.05:
		return -1
	}
	return 0
}
