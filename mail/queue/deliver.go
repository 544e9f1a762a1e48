package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// attempt makes one attempt and puts down what came of it.
func (q *Queue) attempt(j *job) {
	now := q.clk.Now()
	q.mu.Lock()
	m := j.msg
	var which []int // who was dropped or held since the job was made is left out
	number := 0
	for _, i := range j.which {
		if t := &m.rcpts[i]; t.status == pending {
			t.phase = running
			which = append(which, i)
			number = max(number, int(t.attempts)+1)
		}
	}
	dead, words, body := j.route.deadUntil.After(now), j.route.words, m.body
	q.mu.Unlock()

	var results []Result
	switch {
	case len(which) == 0:
	case dead:
		results = make([]Result, len(which))
		for k := range results {
			results[k] = words
			results[k].Outcome = Deferred
		}
	default:
		results = q.deliver(j, which, number, body)
	}
	untried := dead || len(results) > 0 && results[0].Busy
	q.conclude(j, which, results, untried)
}

// deliver hands a message to the Deliverer. What goes wrong on our side is a reason to try again.
func (q *Queue) deliver(j *job, which []int, number int, cached []byte) []Result {
	m := j.msg
	body, err := q.lend(m.id, cached)
	if err != nil {
		q.log.Error("body of a message can not be read", "msg", m.id, "err", err)
		return q.ourFault(len(which), "the message can not be read from the queue")
	}
	defer body.takeBack()
	d := &Delivery{
		ID:       m.id,
		Envelope: m.envelope,
		Route:    j.route.name,
		Arrived:  m.arrived,
		Attempt:  number,
		Size:     m.size,
		Body:     body,
	}
	d.Envelope.Recipients = make([]mail.Recipient, len(which))
	for k, i := range which {
		d.Envelope.Recipients[k] = m.envelope.Recipients[i]
	}
	results, err := callDeliver(q.attempts, q.deliverer, d)
	if err := body.fault(); err != nil {
		q.log.Error("body of a message can not be read", "msg", m.id, "err", err)
	}
	if err != nil {
		q.log.Error("delivery failed within", "msg", m.id, "route", j.route.name, "err", err)
		return q.ourFault(len(which), "internal error of this server")
	}
	return results
}

// callDeliver keeps a panic of the Deliverer from ending more than the attempt.
func callDeliver(ctx context.Context, to Deliverer, d *Delivery) (results []Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	results = to.Deliver(ctx, d)
	if n := len(d.Envelope.Recipients); len(results) != n {
		return nil, fmt.Errorf("%d results for %d recipients", len(results), n)
	}
	for i := range results {
		if results[i].Outcome > Failed {
			return nil, fmt.Errorf("result %v", results[i].Outcome)
		}
	}
	return results, nil
}

func (q *Queue) ourFault(n int, words string) []Result {
	results := make([]Result, n)
	for k := range results {
		results[k] = Result{Outcome: Deferred, Status: "4.3.0", Reply: words}
	}
	return results
}

// conclude ends a job: what came of the attempt becomes durable with its log entries. Nobody waits
// for that; if the process ends before, the message is tried again.
func (q *Queue) conclude(j *job, which []int, results []Result, untried bool) {
	now := q.clk.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	m := j.msg
	m.jobs--
	j.route.running--
	q.running--
	if len(which) > 0 {
		if !untried {
			q.learn(j.route, results, now)
		}
		o := new(op)
		q.note(o, m, &news{which, results, j.route.name, untried, now})
		q.commit(o, m, which)
	}
	for _, i := range j.which {
		m.rcpts[i].phase, m.rcpts[i].drop = idle, false
	}
	if len(which) < len(j.which) {
		q.offer(m, now) // who was held when the attempt began may have been released since
	}
	q.reportIfOwed(m)
	q.let(m)
	q.turn(j.route)
	q.unpark(j.route)
	q.dispatch()
	q.dismiss(j.route, now)
}

// commit pushes an op that alters recipients of a message. The message stays in memory until the op
// is on stable storage; then the loader learns when it is due again. mu is held.
func (q *Queue) commit(o *op, m *message, which []int) {
	m.users++
	entries := m.entries(which)
	then := o.done
	o.done = func(err error) {
		if then != nil {
			then(err)
		}
		if err != nil {
			return
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, e := range entries {
			q.expect(q.route(e.route), moment{e.due, m.id})
		}
		q.let(m)
	}
	q.committer.push(o)
}

// judge turns results into what the queue makes of them, and returns when each recipient is due
// next. mu is held.
func (q *Queue) judge(m *message, n *news) []int64 {
	dues, now := make([]int64, len(n.which)), n.now
	age := now.Sub(m.begun())
	expires := m.begun().Add(q.cfg.Expire)
	wait := q.backoff(age)
	for k, i := range n.which {
		r, t := &n.results[k], &m.rcpts[i]
		switch {
		case r.Outcome != Deferred:
		case t.drop:
			*r = droppedResult
		case age >= q.cfg.Expire && t.status != held:
			// RFC 3463, section 3.5: delivery time expired.
			r.Outcome, r.Expired, r.Status = Failed, true, "5.4.7"
		}
		due := now.Add(max(wait, r.RetryAfter))
		if r.Busy {
			due = now.Add(max(time.Second, r.RetryAfter))
		}
		if due.After(expires) && now.Before(expires) {
			due = expires // for a last attempt
		}
		dues[k] = micros(due)
		r.RetryAfter, r.Busy = 0, false
	}
	return dues
}

// backoff is the wait after an attempt that was put off: as long as the message is old, so that
// waits double, within bounds, give or take a tenth.
func (q *Queue) backoff(age time.Duration) time.Duration {
	d := min(max(age, q.cfg.MinBackoff), q.cfg.MaxBackoff)
	return d - d/10 + rand.N(d/5+1)
}

var errTakenBack = errors.New("queue: body read after Deliver returned")

// lentBody is a body that can be taken back: a Deliverer that reads on after it has returned gets
// an error and not another message.
type lentBody struct {
	mu   sync.RWMutex
	from io.ReaderAt // guarded by mu; nil when taken back
	stop func() error
	bad  atomic.Pointer[error] // the first error of a read, the end aside
}

// lend returns the body of a message: from memory if it is there.
func (q *Queue) lend(id mail.ID, cached []byte) (*lentBody, error) {
	if cached != nil {
		return &lentBody{from: bytes.NewReader(cached)}, nil
	}
	r, err := q.store.OpenBody(id)
	if err != nil {
		return nil, err
	}
	return &lentBody{from: r, stop: r.Close}, nil
}

// ReadAt reads from the body.
func (b *lentBody) ReadAt(p []byte, off int64) (int, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.from == nil {
		return 0, errTakenBack
	}
	n, err := b.from.ReadAt(p, off)
	if err != nil && err != io.EOF {
		b.bad.CompareAndSwap(nil, &err)
	}
	return n, err
}

func (b *lentBody) fault() error {
	if err := b.bad.Load(); err != nil {
		return *err
	}
	return nil
}

func (b *lentBody) takeBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.from = nil
	if b.stop != nil {
		b.stop()
	}
}
