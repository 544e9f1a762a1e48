package eventlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// maxProblems is how many problems an Audit lists before it gives up.
const maxProblems = 100

// Audit is what an audit found.
type Audit struct {
	Origin     string          `json:"origin"`
	Size       uint64          `json:"size"` // entries that were verified
	Root       tlog.Hash       `json:"root"` // of them, computed anew
	Tiles      int             `json:"tiles"`
	Private    uint64          `json:"private"` // private halves that were verified
	Erased     uint64          `json:"erased"`  // private halves of which an Erasure event tells
	Held       int             `json:"held"`    // messages under legal hold
	Checkpoint tlog.Checkpoint `json:"checkpoint"`
	Problems   []string        `json:"problems"` // empty: all is well
}

// Audit verifies the whole log as it is now: every entry, every tile from the entries, the root
// from the tiles, the last signed checkpoint against the tree of its size, and each private half
// against its entry or the event that erased it. Problems are listed in the result; the error is
// for an audit that could not be done. progress, which may be nil, is told now and then how many
// entries are done.
func (l *Log) Audit(ctx context.Context, progress func(done, size uint64)) (*Audit, error) {
	l.signing.Lock()
	last := l.signed
	l.signing.Unlock()
	l.mu.Lock()
	edge, held := l.committed, len(l.held)
	l.mu.Unlock()
	a := auditor{log: l, size: edge.Size(), last: last}
	a.report = &Audit{Origin: l.Origin(), Held: held, Checkpoint: last.Checkpoint,
		Problems: []string{}}
	if err := a.entries(ctx, progress); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	a.report.Size, a.report.Root = a.tree.Size(), a.tree.Root()
	if a.tree.Size() != a.size {
		a.problem("the store has %d entries, the log %d", a.tree.Size(), a.size)
	} else if a.report.Root != edge.Root() {
		a.problem("the root of the entries is %v, that of the log %v", a.report.Root, edge.Root())
	}
	if last.text != nil {
		a.signature()
	}
	return a.report, nil
}

// auditor grows the tree a second time.
type auditor struct {
	log    *Log
	size   uint64
	last   signed
	tree   tlog.Edge
	report *Audit
	err    error
}

func (a *auditor) problem(format string, args ...any) {
	a.report.Problems = append(a.report.Problems, fmt.Sprintf(format, args...))
}

// entries walks over all entries in order.
func (a *auditor) entries(ctx context.Context, progress func(done, size uint64)) error {
	a.signedRoot()
	if a.size == 0 {
		return nil
	}
	err := a.log.section.Scan([]byte{spaceEntry}, nil, func(key, text []byte) bool {
		index, ok := keyNumber(key, 0)
		if !ok || index != a.tree.Size() {
			a.problem("entry %d is missing: behind it nothing can be verified", a.tree.Size())
			return false
		}
		a.entry(index, text)
		a.signedRoot()
		if done := index + 1; done%tlog.TileWidth == 0 || done == a.size {
			if progress != nil {
				progress(done, a.size)
			}
			if err := ctx.Err(); err != nil {
				a.err = err
			}
		}
		return a.err == nil && a.tree.Size() < a.size && len(a.report.Problems) < maxProblems
	})
	return errors.Join(err, a.err)
}

func (a *auditor) entry(index uint64, text []byte) {
	e, err := tlog.ParseEntry(text)
	if err != nil {
		a.problem("entry %d: %v", index, err)
	} else {
		a.private(index, e)
	}
	a.tree.Append(tlog.LeafHash(text), func(t tlog.Tile, data []byte) {
		stored, err := a.log.fullTile(t)
		if err != nil {
			a.problem("%v", err)
			return
		}
		if !bytes.Equal(stored, data) {
			a.problem("%s is not the tile of its entries", t.Path())
		}
		a.report.Tiles++
	})
}

// signedRoot compares the root with the signed one when the tree has reached its size.
func (a *auditor) signedRoot() {
	if a.last.text == nil || a.tree.Size() != a.last.Size {
		return
	}
	if root := a.tree.Root(); root != a.last.Root {
		a.problem("the checkpoint of size %d has root %v, the entries %v", a.last.Size, a.last.Root,
			root)
	}
}

func (a *auditor) signature() {
	c, err := tlog.OpenCheckpoint(a.last.text, a.log.Verifier())
	switch {
	case err != nil:
		a.problem("last signed %v", err)
	case c != a.last.Checkpoint:
		a.problem("last signed checkpoint was changed in memory")
	case c.Size > a.tree.Size():
		a.problem("a checkpoint of size %d was signed, only %d entries could be verified", c.Size,
			a.tree.Size())
	}
}

// private checks the private half of an entry, or the erasure that took it away.
func (a *auditor) private(index uint64, e tlog.Entry) {
	value, err := a.log.section.Get(privateKey(index))
	if err != nil {
		a.problem("private half of entry %d: %v", index, err)
		return
	}
	p, tombstone, err := parsePrivate(value)
	switch {
	case err != nil:
		a.problem("private half of entry %d: %v", index, err)
	case p == nil:
		a.tombstone(index, tombstone)
	case !e.Commits(p.Salt, p.Canonical):
		a.problem("private half of entry %d is not the one it commits to", index)
	default:
		a.event(index, e, p.Canonical)
	}
}

func (a *auditor) event(index uint64, e tlog.Entry, canonical []byte) {
	ev, err := readHead(canonical)
	if err != nil {
		a.problem("event of entry %d: %v", index, err)
		return
	}
	if ev.Kind != e.Kind {
		a.problem("entry %d is of kind %s, its event of kind %s", index, e.Kind, ev.Kind)
	}
	if ev.Kind == mail.Erasure {
		a.erasure(index, ev)
	}
	if ofMessage(ev.Kind, ev.ID) {
		_, err := a.log.section.Get(messageKey(ev.ID, index))
		if errors.Is(err, queue.ErrNotFound) {
			a.problem("entry %d is not listed among those of message %v", index, ev.ID)
		} else if err != nil {
			a.err = err
		}
	}
	a.report.Private++
}

// erasure checks that an event of erasure is true.
func (a *auditor) erasure(index uint64, ev head) {
	target, _, err := parseErasure(ev.Note)
	if err != nil {
		a.problem("entry %d: %v", index, err)
		return
	}
	value, err := a.log.section.Get(privateKey(target))
	if err != nil {
		a.problem("private half of entry %d: %v", target, err)
		return
	}
	if p, _, err := parsePrivate(value); err != nil || p != nil {
		a.problem("entry %d says that entry %d was erased, which has its private half", index,
			target)
	}
}

// tombstone checks that the event that is said to have erased a private half did so.
func (a *auditor) tombstone(index, at uint64) {
	p, err := a.log.event(at) // which may be of a group behind the one the audit began with
	if err != nil {
		a.problem("private half of entry %d is erased, but of the erasure: %v", index, err)
		return
	}
	ev, err := readHead(p.Canonical)
	target, _, err2 := parseErasure(ev.Note)
	if err != nil || err2 != nil || ev.Kind != mail.Erasure || target != index {
		a.problem("private half of entry %d is gone, and entry %d is not its erasure", index, at)
		return
	}
	a.report.Erased++
}
