package evidence

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/tallypost/tallypost/mail"
)

// Report is what a verified file proves, and what it does not. There is none for a file that is not
// verified.
type Report struct {
	Origin     string `json:"origin"`
	Key        string `json:"key"`
	KeyTrusted bool   `json:"key_trusted"` // the reader brought the key
	TreeSize   uint64 `json:"tree_size"`
	Root       string `json:"root"` // base 64

	Message *Message        `json:"message,omitempty"` // nil: withheld
	Events  []ReportedEvent `json:"events"`

	Warnings     []string `json:"warnings,omitempty"`
	Proves       []string `json:"proves"`
	DoesNotProve []string `json:"does_not_prove"`
}

// Message is the message in a file.
type Message struct {
	Octets int64  `json:"octets"`
	SHA256 string `json:"sha256"`
}

// ReportedEvent is an event in a file.
type ReportedEvent struct {
	Index uint64         `json:"index"`
	Kind  mail.EventKind `json:"kind"`
	// AfterHeight and AfterBlock name the block that the entry is younger than; empty where none
	// is.
	AfterHeight uint32          `json:"after_height,omitempty"`
	AfterBlock  string          `json:"after_block,omitempty"`
	Event       json.RawMessage `json:"event"` // as it was entered

	fields fields
}

func (f *contents) report() *Report {
	r := &Report{
		Origin:     f.state.Origin,
		Key:        f.verifier.String(),
		KeyTrusted: f.trusted,
		TreeSize:   f.state.Size,
		Root:       f.state.Root.String(),
	}
	accepted := f.events[0]
	if f.message != nil {
		r.Message = &Message{Octets: accepted.fields.Size, SHA256: accepted.fields.SHA256}
	}
	for _, e := range f.events {
		re := ReportedEvent{Index: e.index, Kind: e.logged.Kind, Event: e.json.data,
			fields: e.fields}
		if after := e.logged.After; !after.IsZero() {
			re.AfterHeight, re.AfterBlock = after.Height, fmt.Sprintf("%x", after.Hash)
		}
		r.Events = append(r.Events, re)
		if e.warn != "" {
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s: %s: this version does not show it",
				e.json.name, e.warn))
		}
	}
	r.warn(f)
	r.judge(f)
	return r
}

func (r *Report) warn(f *contents) {
	if !r.KeyTrusted {
		r.Warnings = append(r.Warnings, fmt.Sprintf(warnOwnKey, r.Origin))
	}
	if f.message == nil {
		r.Warnings = append(r.Warnings, warnWithheld)
	}
}

// What a report says, in words for people who are no engineers.
const (
	warnOwnKey = "THE KEY WAS TAKEN FROM THE FILE ITSELF. Anybody can make a key and such a file" +
		" for the name %s: compare the key with the one that the operator publishes."
	warnWithheld = "The message is not in the file. Whoever has it can compare its SHA-256 with" +
		" that of the acceptance."

	provesEntries = "Whoever holds the key signed a log of %d entries in which the %d below stand at" +
		" the indexes shown. None of them can be changed, moved or taken out of that log."
	provesEvents  = "Each entry was made of the event shown for it, and of no other."
	provesMessage = "message.eml is, octet for octet, the message that the acceptance is about, as" +
		" it was received after DATA or BDAT, without the fields that the server put in front."
	provesAfter = "The acceptance is younger than block %d, %x, if that is a block of the Bitcoin" +
		" chain, which was not checked here."

	notWhen = "When. The times are the operator's word: the checkpoint is not anchored in this file," +
		" and whoever holds the key could have made the whole log at any time."
	notTrue = "That the events are true. They are what the server recorded; the words of other" +
		" servers in them are its transcript."
	notUnique = "That this is the operator's only log. Two histories can be signed for two readers:" +
		" compare the checkpoint with those that others keep."
	notComplete = "That nothing is missing: other messages or outcomes may have been left out, here" +
		" or in the log."
	notAuthor = "Who wrote the message. Its author is what it claims, unless a signature in it shows" +
		" more."
	notRead = "That the recipient read it. " + string(mail.ContentConsignment) +
		" is delivery into the mailbox."
	notLater = "What became of it later. " + string(mail.RelayToNonERDS) +
		" is that the next server said it took the message."
)

// judge says what follows from the checks that were passed, and what does not.
func (r *Report) judge(f *contents) {
	r.Proves = []string{fmt.Sprintf(provesEntries, r.TreeSize, len(r.Events)), provesEvents}
	if f.message != nil {
		r.Proves = append(r.Proves, provesMessage)
	}
	if b := f.events[0].logged.After; !b.IsZero() {
		r.Proves = append(r.Proves, fmt.Sprintf(provesAfter, b.Height, b.Hash))
	}
	r.DoesNotProve = []string{notWhen, notTrue, notUnique, notComplete, notAuthor}
	kinds := make(map[mail.EventKind]bool)
	for _, e := range f.events {
		kinds[e.logged.Kind] = true
	}
	if kinds[mail.ContentConsignment] {
		r.DoesNotProve = append(r.DoesNotProve, notRead)
	}
	if kinds[mail.RelayToNonERDS] {
		r.DoesNotProve = append(r.DoesNotProve, notLater)
	}
}

// String returns the report for people. Text that came from strangers is quoted where it could do
// something to a terminal.
func (r *Report) String() string {
	var b strings.Builder
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-12s %s\n", label, printable(value))
		}
	}
	if r.KeyTrusted {
		b.WriteString("VERIFIED: the parts of this file belong together and are in the signed log.\n")
	} else {
		b.WriteString("VERIFIED ONLY AGAINST THE KEY IN THE FILE: the parts belong together.\n")
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "\nWARNING: %s\n", printable(w))
	}
	b.WriteByte('\n')
	line("log", r.Origin)
	line("key", r.Key)
	if r.KeyTrusted {
		line("", "which is the one you gave")
	}
	line("checkpoint", fmt.Sprintf("%d entries, root %s", r.TreeSize, r.Root))
	if r.Message != nil {
		line("message", fmt.Sprintf("%d octets, SHA-256 %s", r.Message.Octets, r.Message.SHA256))
	}
	for i := range r.Events {
		b.WriteByte('\n')
		r.Events[i].write(line)
	}
	for _, list := range []struct {
		title string
		lines []string
	}{{"This proves:", r.Proves}, {"This does not prove:", r.DoesNotProve}} {
		fmt.Fprintf(&b, "\n%s\n", list.title)
		for _, l := range list.lines {
			fmt.Fprintf(&b, "- %s\n", printable(l))
		}
	}
	return b.String()
}

func (e *ReportedEvent) write(line func(label, value string)) {
	f := &e.fields
	line("event", fmt.Sprintf("%s, index %d", e.Kind, e.Index))
	line("time", f.Time+" (the operator's clock)")
	line("queue id", f.ID)
	line("Message-ID", f.MessageID)
	if f.From != nil {
		line("from", "<"+*f.From+">")
	}
	for _, to := range f.To {
		line("to", "<"+to+">")
	}
	if f.SHA256 != "" {
		text := f.SHA256
		if f.Size > 0 { // outcomes do not repeat it
			text = fmt.Sprintf("%s of %d octets", f.SHA256, f.Size)
		}
		line("SHA-256", text)
	}
	if p := f.Peer; p != nil {
		line("peer", strings.TrimSpace(p.Name+" "+p.Addr))
		line("account", p.Account)
		line("TLS", strings.TrimSpace(p.TLSVersion+" "+p.Cipher))
		line("certificate", p.CertSHA256)
	}
	for l := range strings.SplitSeq(f.Reply, "\n") {
		line("reply", l)
	}
	line("note", f.Note)
	if e.AfterBlock != "" {
		line("after block", fmt.Sprintf("%d, %s", e.AfterHeight, e.AfterBlock))
	}
}

// printable quotes a text with anything in it that does not print, terminal escapes and the marks
// that turn the direction of writing among it.
func printable(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return strconv.Quote(s)
		}
	}
	return s
}
