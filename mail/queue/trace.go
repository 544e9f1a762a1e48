package queue

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// Show returns a message with its history, as long as that is kept.
func (q *Queue) Show(ctx context.Context, id mail.ID) (Message, error) {
	x, err := q.showLive(id)
	if errors.Is(err, ErrNotFound) {
		return q.showPast(id)
	}
	return x, err
}

func (q *Queue) showLive(id mail.ID) (Message, error) {
	m, err := q.hold(id)
	if err != nil {
		return Message{}, err
	}
	q.mu.Lock()
	x := m.export()
	q.let(m)
	q.mu.Unlock()
	p, err := q.past(id)
	if errors.Is(err, ErrNotFound) {
		return x, nil // it is about to be committed
	}
	if err != nil {
		return Message{}, err
	}
	x.Index = p.head.index
	x.Attempts = p.attempts()
	return x, nil
}

// showPast returns a message that is done: what became of each recipient is the last that the
// history says.
func (q *Queue) showPast(id mail.ID) (Message, error) {
	p, err := q.past(id)
	if err != nil {
		return Message{}, err
	}
	x := p.head.export(id)
	x.Done = true
	x.Attempts = p.attempts()
	x.Recipients = make([]Recipient, len(p.head.envelope.Recipients))
	for i := range x.Recipients {
		x.Recipients[i].Address = p.head.envelope.Recipients[i].Address
	}
	for _, e := range p.entries {
		for _, i := range e.rcpts {
			if i >= len(x.Recipients) {
				continue
			}
			r := &x.Recipients[i]
			a := e.outcome.export()
			a.Recipients = []mail.Address{r.Address}
			r.Last, r.Route, r.State = &a, e.route, finalState(e.result.Outcome)
			if !e.untried {
				r.Attempts += int(e.count)
			}
		}
	}
	return x, nil
}

func finalState(o Outcome) State {
	switch o {
	case Delivered:
		return StateDelivered
	case Failed:
		return StateFailed
	case Dropped:
		return StateDropped
	}
	return StateDeferred
}

// attempts returns the history in order of time.
func (p *pastMessage) attempts() []Attempt {
	var list []Attempt
	for _, e := range p.entries {
		a := e.outcome.export()
		a.Indexes = e.indexes
		for _, i := range e.rcpts {
			if i < len(p.head.envelope.Recipients) {
				a.Recipients = append(a.Recipients, p.head.envelope.Recipients[i].Address)
			}
		}
		list = append(list, a)
	}
	slices.SortStableFunc(list, func(a, b Attempt) int { return a.Time.Compare(b.Time) })
	return list
}

// Trace returns the messages that a queue id, a Message-ID (with or without brackets) or an address
// of sender or recipient names, newest first, at most limit (0: 100), with their history.
func (q *Queue) Trace(ctx context.Context, what string, limit int) ([]Message, error) {
	if limit <= 0 {
		limit = 100
	}
	ids, err := q.find(strings.TrimSpace(what))
	if err != nil {
		return nil, err
	}
	var list []Message
	for _, id := range ids {
		if len(list) == limit || ctx.Err() != nil {
			break
		}
		x, err := q.Show(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if x.isNamed(what) {
			list = append(list, x)
		}
	}
	return list, ctx.Err()
}

// find returns the ids of messages that what may name, newest first.
func (q *Queue) find(what string) (ids []mail.ID, err error) {
	if id, err := mail.ParseID(what); err == nil {
		return []mail.ID{id}, nil
	}
	for _, key := range [][]byte{
		hashKey(spaceMessageID, bracketed(what)),
		hashKey(spaceAddress, canonical(what)),
	} {
		err := q.store.Scan(key, prefixEnd(key), func(key, _ []byte) bool {
			ids = append(ids, keyID(key[8:]))
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(ids, func(a, b mail.ID) int { return cmp.Compare(b, a) })
	return slices.Compact(ids), nil
}

func bracketed(s string) string {
	if strings.HasPrefix(s, "<") {
		return s
	}
	return "<" + s + ">"
}

// canonical returns an address as the index has it, or what was given if it is none.
func canonical(s string) string {
	a, err := mail.ParseAddress(strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">"))
	if err != nil {
		return s
	}
	return a.String()
}

// isNamed reports whether the message is really what was looked for: hashes are short.
func (x *Message) isNamed(what string) bool {
	what = strings.TrimSpace(what)
	if id, err := mail.ParseID(what); err == nil {
		return x.ID == id
	}
	if strings.EqualFold(x.Accepted.MessageID, bracketed(what)) {
		return true
	}
	a, err := mail.ParseAddress(canonical(what))
	if err != nil {
		return false
	}
	if sameAddress(a, x.Envelope.From) {
		return true
	}
	return slices.ContainsFunc(x.Envelope.Recipients, func(to mail.Recipient) bool {
		return sameAddress(a, to.Address)
	})
}
