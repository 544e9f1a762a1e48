package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/mail"
)

// Options are what the reader of a file brings along.
type Options struct {
	// Key is the verifier key of the log, from a source that the reader trusts. Empty: the key in
	// the file is used, and the Report warns that the file then only vouches for itself.
	Key string
	// MaxBytes is the greatest size of a file. 0: DefaultMaxBytes.
	MaxBytes int64
}

// Verify checks an evidence file and reports what it proves. Its errors name the part that is
// wrong, what it has and what it should have.
func Verify(file []byte, opt Options) (*Report, error) {
	r, err := verify(file, opt)
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return r, nil
}

func verify(file []byte, opt Options) (*Report, error) {
	if opt.MaxBytes == 0 {
		opt.MaxBytes = DefaultMaxBytes
	}
	if int64(len(file)) > opt.MaxBytes {
		return nil, fmt.Errorf("file of %d octets, the limit is %d", len(file), opt.MaxBytes)
	}
	parts, err := readArchive(file)
	if err != nil {
		return nil, err
	}
	f, err := arrange(parts)
	if err != nil {
		return nil, err
	}
	if err := f.checkKey(opt.Key); err != nil {
		return nil, err
	}
	if err := f.checkCheckpoint(); err != nil {
		return nil, err
	}
	for i := range f.events {
		if err := f.events[i].check(f); err != nil {
			return nil, err
		}
	}
	if err := f.checkStory(); err != nil {
		return nil, err
	}
	if err := f.checkMessage(); err != nil {
		return nil, err
	}
	if err := sameArchive(file, parts); err != nil {
		return nil, err
	}
	return f.report(), nil
}

// contents is a file that is being verified: the parts, and what was made of them so far.
type contents struct {
	message    *part
	events     []event
	checkpoint part
	key        part

	verifier *tlog.Verifier
	trusted  bool // the reader brought the key
	state    tlog.Checkpoint
}

// event is one event of the file.
type event struct {
	json, salt, entry, proof part

	index  uint64
	logged tlog.Entry
	fields fields
	warn   string
}

// arrange gives each part its place. Only the order of the package comment is allowed.
func arrange(parts []part) (*contents, error) {
	var f contents
	next := func(name string) (part, error) {
		if len(parts) == 0 {
			return part{}, fmt.Errorf("%s is missing", name)
		}
		p := parts[0]
		if p.name != name {
			return part{},
				fmt.Errorf("part %q where %s should be: a newer version, or not an evidence file",
					p.name, name)
		}
		parts = parts[1:]
		return p, nil
	}
	first, err := next(partReadme)
	if err != nil {
		return nil, err
	}
	if string(first.data) != readme {
		return nil, errors.New("README is not the one of this version (tallypost/evidence/v1)")
	}
	if len(parts) > 0 && parts[0].name == partMessage {
		p, _ := next(partMessage)
		f.message = &p
	}
	for i := 0; i == 0 || len(parts) > 0 && parts[0].name == eventNames(i).event; i++ {
		if i == MaxEvents {
			return nil, fmt.Errorf("more than %d events", MaxEvents)
		}
		n := eventNames(i)
		var e event
		for _, p := range []struct {
			name string
			to   *part
		}{{n.event, &e.json}, {n.salt, &e.salt}, {n.entry, &e.entry}, {n.proof, &e.proof}} {
			if *p.to, err = next(p.name); err != nil {
				return nil, err
			}
		}
		f.events = append(f.events, e)
	}
	if f.checkpoint, err = next(partCheckpoint); err != nil {
		return nil, err
	}
	if f.key, err = next(partKey); err != nil {
		return nil, err
	}
	if len(parts) > 0 {
		return nil, fmt.Errorf("part %q behind the last: a newer version, or not an evidence file",
			parts[0].name)
	}
	return &f, nil
}

func (f *contents) checkKey(trusted string) error {
	text, ok := bytes.CutSuffix(f.key.data, []byte("\n"))
	if !ok {
		return errors.New("key: not a line")
	}
	own, err := tlog.ParseVerifier(string(text))
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	if f.verifier = own; trusted == "" {
		return nil
	}
	f.trusted = true
	v, err := tlog.ParseVerifier(strings.TrimSpace(trusted))
	if err != nil {
		return fmt.Errorf("the key that is to be trusted: %w", err)
	}
	if v.String() != own.String() {
		return fmt.Errorf("key: the file has %s, the key that is to be trusted is %s", own, v)
	}
	return nil
}

func (f *contents) checkCheckpoint() error {
	c, err := tlog.OpenCheckpoint(f.checkpoint.data, f.verifier)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	// Lines of other signers could be anything, as nobody here has their keys.
	body, ok := strings.CutPrefix(string(f.checkpoint.data), c.Text()+"\n")
	if !ok || strings.Count(body, "\n") != 1 {
		return fmt.Errorf("checkpoint: %d signatures, want that of the log alone",
			strings.Count(body, "\n"))
	}
	f.state = c
	return nil
}

// check verifies one event: that event and salt are what the entry commits to, and that the entry
// is in the log.
func (e *event) check(f *contents) error {
	salt, err := parseSalt(e.salt)
	if err != nil {
		return err
	}
	if e.logged, err = tlog.ParseEntry(e.entry.data); err != nil {
		return fmt.Errorf("%s: %w", e.entry.name, err)
	}
	if len(e.json.data) > maxEvent {
		return fmt.Errorf("%s: %d octets, the limit is %d", e.json.name, len(e.json.data), maxEvent)
	}
	if got := tlog.Commit(salt, e.json.data); got != e.logged.Commitment {
		return fmt.Errorf("%s: with %s it makes the commitment %s, %s has %s", e.json.name,
			e.salt.name,
			tlog.Hash(got), e.entry.name, tlog.Hash(e.logged.Commitment))
	}
	if e.fields, e.warn, err = parseFields(e.json.data); err != nil {
		return fmt.Errorf("%s: %w", e.json.name, err)
	}
	if e.fields.Kind != string(e.logged.Kind) {
		return fmt.Errorf("%s: kind %q, %s has %q", e.json.name, e.fields.Kind, e.entry.name,
			e.logged.Kind)
	}
	return e.checkProof(f)
}

func (e *event) checkProof(f *contents) error {
	p, err := tlog.ParseProof(e.proof.data)
	if err != nil {
		return fmt.Errorf("%s: %w", e.proof.name, err)
	}
	if p.Extra != nil {
		return fmt.Errorf("%s: has an extra line, which nothing vouches for", e.proof.name)
	}
	if !bytes.Equal(p.Checkpoint, f.checkpoint.data) {
		return fmt.Errorf("%s: ends in another checkpoint than the part of that name", e.proof.name)
	}
	e.index = p.Index
	leaf, c := tlog.LeafHash(e.entry.data), &f.state
	if err := tlog.VerifyInclusion(leaf, p.Index, p.Hashes, c.Size, c.Root); err != nil {
		return fmt.Errorf("%s: %w", e.proof.name, err)
	}
	return nil
}

func parseSalt(p part) (salt [tlog.SaltSize]byte, err error) {
	if len(p.data) != 2*len(salt)+1 || p.data[2*len(salt)] != '\n' {
		return salt, fmt.Errorf("%s: %d octets, want %d hexadecimal digits and a line end",
			p.name, len(p.data), 2*len(salt))
	}
	if _, err := hex.Decode(salt[:], p.data[:2*len(salt)]); err != nil {
		return salt, fmt.Errorf("%s: %w", p.name, err)
	}
	if hex.EncodeToString(salt[:])+"\n" != string(p.data) {
		return salt, fmt.Errorf("%s: digits are not in lower case", p.name)
	}
	return salt, nil
}

// checkStory wants one acceptance and further events of the same message.
func (f *contents) checkStory() error {
	first := &f.events[0]
	switch first.logged.Kind {
	case mail.SubmissionAcceptance, mail.ReceivedFromNonERDS:
	default:
		return fmt.Errorf("%s: kind %q, want an acceptance (%s or %s)", first.json.name,
			first.logged.Kind,
			mail.SubmissionAcceptance, mail.ReceivedFromNonERDS)
	}
	if first.fields.ID == "" {
		return fmt.Errorf("%s: no queue id", first.json.name)
	}
	for i := 1; i < len(f.events); i++ {
		e := &f.events[i]
		if e.index <= f.events[i-1].index {
			return fmt.Errorf("%s: index %d, want more than that of the event before, %d",
				e.proof.name, e.index, f.events[i-1].index)
		}
		if e.fields.ID != first.fields.ID {
			return fmt.Errorf("%s: about message %q, want %q", e.json.name, e.fields.ID,
				first.fields.ID)
		}
		if e.fields.SHA256 != "" && e.fields.SHA256 != first.fields.SHA256 {
			return fmt.Errorf("%s: sha256 %q, the acceptance has %q", e.json.name, e.fields.SHA256,
				first.fields.SHA256)
		}
	}
	return nil
}

func (f *contents) checkMessage() error {
	if f.message == nil {
		return nil
	}
	accepted := &f.events[0]
	if got := int64(len(f.message.data)); got != accepted.fields.Size {
		return fmt.Errorf("%s: %d octets, %s says %d", partMessage, got, accepted.json.name,
			accepted.fields.Size)
	}
	sum := sha256.Sum256(f.message.data)
	if got := hex.EncodeToString(sum[:]); got != accepted.fields.SHA256 {
		return fmt.Errorf("%s: SHA-256 is %s, %s says %q", partMessage, got, accepted.json.name,
			accepted.fields.SHA256)
	}
	return nil
}
