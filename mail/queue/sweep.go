package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
)

const (
	sweepInterval = time.Hour
	sweepBatch    = 200 // messages forgotten by one op
)

// sweepLoop forgets old history from time to time, until ctx ends.
func (q *Queue) sweepLoop(ctx context.Context) {
	for ctx.Err() == nil {
		if err := q.sweep(ctx); err != nil && ctx.Err() == nil {
			q.log.Warn("old history is not removed", "err", err)
		}
		q.mu.Lock()
		now := q.clk.Now()
		for _, r := range q.routes {
			q.dismiss(r, now)
		}
		q.mu.Unlock()
		if clock.Sleep(ctx, q.clk, sweepInterval) != nil {
			return
		}
	}
}

// pastMessage is a message as its history has it.
type pastMessage struct {
	id      mail.ID
	head    *head
	entries []*historyEntry
	seqs    uint32 // one more than the greatest of its records
}

// last is when the last thing happened to it.
func (p *pastMessage) last() time.Time {
	at := p.head.arrived
	for _, e := range p.entries {
		if t := fromMicros(e.last); t.After(at) {
			at = t
		}
	}
	return at
}

// sweep forgets the history of messages that were done before Config.Retain.
func (q *Queue) sweep(ctx context.Context) error {
	if q.cfg.Retain < 0 {
		return nil // forgotten when they are done
	}
	before := q.clk.Now().Add(-q.cfg.Retain)
	if before.UnixMicro() <= 0 {
		return nil
	}
	from := mail.ID(0)
	for ctx.Err() == nil {
		old, next, err := q.oldHistory(from, before)
		if err != nil {
			return err
		}
		o := new(op)
		for _, p := range old {
			if !q.isLive(p.id) {
				q.forget(o, p.id, p.head, p.seqs)
			}
		}
		if len(o.writes) > 0 {
			if err := q.commitAndWait(ctx, o); err != nil {
				return err
			}
		}
		if next == 0 {
			return nil
		}
		from = next
	}
	return ctx.Err()
}

// oldHistory returns a batch of messages from an id on that arrived before a time and to which
// nothing happened since, and where to go on; 0 for nowhere.
func (q *Queue) oldHistory(from mail.ID, before time.Time) (old []*pastMessage, next mail.ID,
	err error) {
	end := idKey(spaceHistory, mail.ID(uint64(before.UnixMicro())<<12)) // ids begin with the time
	n := 0
	var p *pastMessage
	keep := func() {
		if p != nil && p.last().Before(before) {
			old = append(old, p)
		}
	}
	scanErr := q.store.Scan(idKey(spaceHistory, from), end, func(key, value []byte) bool {
		id := keyID(key)
		if p == nil || p.id != id {
			if n++; n > sweepBatch {
				next = id
				return false
			}
			keep()
			p = nil
			var h *head
			if h, err = decodeHead(id, value); err != nil {
				q.log.Warn("history is damaged and stays", "msg", id, "err", err)
				err = nil
				return true
			}
			p = &pastMessage{id: id, head: h, seqs: 1}
			return true
		}
		if e, err := decodeHistory(value); err == nil {
			p.entries = append(p.entries, e)
			p.seqs = e.seq + 1
		}
		return true
	})
	keep()
	return old, next, errors.Join(scanErr, err)
}

// isLive reports whether a message is in the queue.
func (q *Queue) isLive(id mail.ID) bool {
	_, err := q.store.Get(statesKey(id, 0))
	return !errors.Is(err, ErrNotFound)
}

// commitAndWait commits an op and waits for it.
func (q *Queue) commitAndWait(ctx context.Context, o *op) error {
	done := make(chan error, 1)
	o.done = func(err error) { done <- err }
	q.committer.push(o)
	return wait(ctx, done)
}

// Forget removes the history of a message that is done before its time, as when a person asks for
// it. What the log has stays with the Journal.
func (q *Queue) Forget(ctx context.Context, id mail.ID) error {
	if q.isLive(id) {
		return fmt.Errorf("message %v is in the queue: drop it first", id)
	}
	p, err := q.past(id)
	if err != nil {
		return err
	}
	o := new(op)
	q.forget(o, id, p.head, p.seqs)
	return q.commitAndWait(ctx, o)
}

// past reads the history of a message.
func (q *Queue) past(id mail.ID) (*pastMessage, error) {
	p := &pastMessage{id: id, seqs: 1}
	var err error
	end := prefixEnd(idKey(spaceHistory, id))
	scanErr := q.store.Scan(historyKey(id, 0), end, func(_, value []byte) bool {
		if p.head == nil {
			p.head, err = decodeHead(id, value)
			return err == nil
		}
		var e *historyEntry
		if e, err = decodeHistory(value); err != nil {
			err = fmt.Errorf("history of %v: %w", id, err)
			return false
		}
		p.entries = append(p.entries, e)
		p.seqs = e.seq + 1
		return true
	})
	if err = errors.Join(scanErr, err); err != nil {
		return nil, err
	}
	if p.head == nil {
		return nil, fmt.Errorf("message %v: %w", id, ErrNotFound)
	}
	return p, nil
}
