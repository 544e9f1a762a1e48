package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tallypost/tallypost/bridge/eventlog"
	"github.com/tallypost/tallypost/bridge/evidence"
	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/mailbox"
	"github.com/tallypost/tallypost/mail/queue"
)

// logDoor is the control socket's view of the log.
type logDoor struct {
	events *eventlog.Log
	store  queue.Store
	boxes  *mailbox.Maildirs
}

// openSigner reads the log's key, or makes it when the node starts for the first time.
func openSigner(cfg Config) (*tlog.Signer, error) {
	path := filepath.Join(cfg.DataDir, "log.key")
	signer, err := eventlog.ReadKeyFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return eventlog.CreateKeyFile(path, cfg.Log.Origin)
	}
	if err == nil && signer.Name() != cfg.Log.Origin {
		return nil, fmt.Errorf("%s is the key of the log %q, and log.origin is %q: a log keeps its name",
			path, signer.Name(), cfg.Log.Origin)
	}
	return signer, err
}

// Checkpoint is as web.Log has it.
func (d *logDoor) Checkpoint() ([]byte, error) { return d.events.Checkpoint() }

// Key is as web.Log has it.
func (d *logDoor) Key() string { return d.events.Verifier().String() }

// Audit is as web.Log has it.
func (d *logDoor) Audit(ctx context.Context) (*eventlog.Audit, error) {
	return d.events.Audit(ctx, nil)
}

// Proof is as web.Log has it.
func (d *logDoor) Proof(index uint64) ([]byte, error) {
	proofs, err := d.events.Prove(index)
	if err != nil {
		return nil, err
	}
	return proofs[0].Marshal(), nil
}

// Evidence is as web.Log has it.
func (d *logDoor) Evidence(_ context.Context, id mail.ID, message []byte) ([]byte, error) {
	indexes, err := d.events.Find(id)
	if err != nil {
		return nil, err
	}
	if len(indexes) == 0 {
		return nil, fmt.Errorf("message %s: %w", id, eventlog.ErrNotFound)
	}
	proofs, err := d.events.Prove(indexes...)
	if err != nil {
		return nil, err
	}
	c := evidence.Contents{Key: d.events.Verifier()}
	for i, index := range indexes {
		private, err := d.events.Event(index)
		if err != nil {
			return nil, err
		}
		entry, err := d.events.Entry(index)
		if err != nil {
			return nil, err
		}
		c.Events = append(c.Events, evidence.Event{Canonical: private.Canonical, Salt: private.Salt, Entry: entry,
			Proof: proofs[i]})
	}
	if c.Message, err = d.original(id, c.Events[0].Canonical, message); err != nil {
		return nil, err
	}
	return evidence.Build(c)
}

// original returns the octets that came after DATA. Every copy of a message ends in them: whoever handled it
// since put fields in front and, perhaps, changed CRLF to LF.
func (d *logDoor) original(id mail.ID, acceptance, given []byte) ([]byte, error) {
	var ev struct {
		Size   int64          `json:"size"`
		SHA256 string         `json:"sha256"`
		To     []mail.Address `json:"to"`
	}
	if err := json.Unmarshal(acceptance, &ev); err != nil {
		return nil, err
	}
	fits := func(b []byte) []byte {
		for _, b := range [][]byte{b, crlf(b)} {
			if int64(len(b)) < ev.Size {
				continue
			}
			tail := b[int64(len(b))-ev.Size:]
			if sum := sha256.Sum256(tail); hex.EncodeToString(sum[:]) == ev.SHA256 {
				return tail
			}
		}
		return nil
	}
	if len(given) > 0 {
		if b := fits(given); b != nil {
			return b, nil
		}
		return nil, fmt.Errorf("the copy given is not of message %s, whose last %d octets have the SHA-256 %s",
			id, ev.Size, ev.SHA256)
	}
	if b, err := d.queued(id); err == nil {
		if b = fits(b); b != nil {
			return b, nil
		}
	}
	for _, to := range ev.To {
		names, err := filepath.Glob(filepath.Join(d.boxes.Dir(to), "*", "*_"+id.String()+".*"))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil {
				if b = fits(b); b != nil {
					return b, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("message %s is neither in the queue nor in a mailbox here: give a copy of it", id)
}

func (d *logDoor) queued(id mail.ID) ([]byte, error) {
	r, err := d.store.OpenBody(id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
}

func crlf(b []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}
