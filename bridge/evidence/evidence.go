// Package evidence makes and checks evidence files: what a server did with one message, in a form
// that somebody else can verify without the server, its operator or a network.
//
// # The file
//
// The file is a zip archive of plain parts, in this order:
//
//	README              fixed text: the version, and how to check by hand
//	message.eml         the message as received, if it is not withheld
//	event.json          the acceptance: the canonical octets of its mail.Event
//	salt                the salt of the acceptance, 64 lower case hexadecimal digits and a line end
//	entry               the log's entry of the acceptance, as tlog.Entry writes it
//	message.tlog-proof  the proof that the entry is in the tree of the checkpoint
//	outcome-0001.json   the first further event, then .salt, .entry and .tlog-proof of that name;
//	...                 up to outcome-9999, by growing index
//	checkpoint          the signed checkpoint that all proofs end in
//	key                 the log's verifier key and a line end
//
// message.eml is what came after DATA or BDAT: dot-stuffing removed, CRLF kept, without any field
// that the server put in front. That is what the sha256 of the acceptance is of.
//
// The archive has one spelling: method Store, one fixed date, no extra fields, no comments, nothing
// between or behind the parts. Verify takes the parts out without trusting any other word of the
// archive, writes the archive anew from them and wants the same octets. So unzip and other tools
// read it, and no octet can be changed unnoticed; that the parts mean what they say is then checked
// on its own.
//
// # What is not done
//
// The package does not fetch keys, blocks or mail. It does not judge DKIM signatures inside the
// message. It knows no anchors yet: the times in an event are the operator's word, and the Report
// says so.
package evidence

import (
	"bytes"
	_ "embed" // for the README
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/tallypost/tallypost/bridge/tlog"
)

//go:embed readme.txt
var readme string // never assigned to

const (
	// MaxEvents is the greatest number of events in a file.
	MaxEvents = 10_000
	// DefaultMaxBytes is the greatest size of a file that Verify takes by default.
	DefaultMaxBytes = 256 << 20

	maxEvent = 4 << 20 // octets of one event: 10,000 recipients
)

// Names of the parts. Those of further events are made by eventNames.
const (
	partReadme     = "README"
	partMessage    = "message.eml"
	partCheckpoint = "checkpoint"
	partKey        = "key"
)

// Event is one event with all that proves it.
type Event struct {
	Canonical []byte // canonical octets of the mail.Event, as they were entered
	Salt      [tlog.SaltSize]byte
	Entry     []byte // text of the log's entry
	Proof     *tlog.Proof
}

// Contents is what goes into a file.
type Contents struct {
	// Message is the message as received after DATA or BDAT, without our trace fields. Nil leaves
	// it out: then the file proves the events, of a message whose digest is known.
	Message []byte
	// Events are the acceptance of the message and any of its outcomes, with proofs under one
	// checkpoint.
	Events []Event
	// Key is the key of the log.
	Key *tlog.Verifier
}

// Build returns an evidence file. It fails where the file would not be verified: it is made to
// convince others, later.
func Build(c Contents) ([]byte, error) {
	if len(c.Events) == 0 || c.Key == nil {
		return nil, errors.New("evidence: needs an event and the key of the log")
	}
	events := slices.Clone(c.Events)
	for i := range events {
		if events[i].Proof == nil {
			return nil, fmt.Errorf("evidence: event %d has no proof", i)
		}
	}
	slices.SortStableFunc(events, func(a, b Event) int {
		switch {
		case a.Proof.Index < b.Proof.Index:
			return -1
		case a.Proof.Index > b.Proof.Index:
			return 1
		}
		return 0
	})
	parts := []part{{partReadme, []byte(readme)}}
	if c.Message != nil {
		parts = append(parts, part{partMessage, c.Message})
	}
	for i, e := range events {
		n := eventNames(i)
		parts = append(parts,
			part{n.event, e.Canonical},
			part{n.salt, []byte(hex.EncodeToString(e.Salt[:]) + "\n")},
			part{n.entry, e.Entry},
			part{n.proof, e.Proof.Marshal()})
	}
	parts = append(parts,
		part{partCheckpoint, events[0].Proof.Checkpoint},
		part{partKey, []byte(c.Key.String() + "\n")})
	var file bytes.Buffer
	if err := writeArchive(&file, parts); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	opt := Options{Key: c.Key.String(), MaxBytes: int64(file.Len())}
	if _, err := Verify(file.Bytes(), opt); err != nil {
		return nil, fmt.Errorf("not written, for it would not be verified: %w", err)
	}
	return file.Bytes(), nil
}

// names are the names of the four parts of an event.
type names struct{ event, salt, entry, proof string }

// eventNames returns the names for the i-th event of a file.
func eventNames(i int) names {
	if i == 0 {
		return names{"event.json", "salt", "entry", "message.tlog-proof"}
	}
	n := fmt.Sprintf("outcome-%04d.", i)
	return names{n + "json", n + "salt", n + "entry", n + "tlog-proof"}
}
