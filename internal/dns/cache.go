package dns

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// question is the key of the cache and of questions under way.
type question struct {
	name  string
	qtype uint16
}

// cache keeps answers until they expire, and no more octets than it may: whoever sends mail
// chooses the names we ask for and the size of what they answer.
type cache struct {
	now func() time.Time
	max int // octets; none are kept where it is negative

	mu      sync.Mutex // guards what follows
	entries map[question]*list.Element
	recent  *list.List // of *entry, most recently used first
	size    int
}

type entry struct {
	question
	ans     *answer
	expires time.Time
	size    int
}

func newCache(max int, now func() time.Time) *cache {
	return &cache{now: now, max: max, entries: make(map[question]*list.Element), recent: list.New()}
}

func (c *cache) get(q question) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[q]
	if el == nil {
		return nil
	}
	e := el.Value.(*entry)
	if !c.now().Before(e.expires) {
		c.drop(el)
		return nil
	}
	c.recent.MoveToFront(el)
	return e.ans
}

// put keeps an answer for ttl. The size of a record in memory is taken as four times that on the
// wire, and 300 octets for the entry itself.
func (c *cache) put(q question, ans *answer, ttl time.Duration) {
	if c.max < 0 || ttl <= 0 {
		return
	}
	e := &entry{question: q, ans: ans, expires: c.now().Add(ttl), size: 300 + 2*len(q.name)}
	for _, rr := range ans.records {
		e.size += 64 + 4*int(rr.Header().Rdlength)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.entries[q]; el != nil {
		c.drop(el)
	}
	c.entries[q] = c.recent.PushFront(e)
	c.size += e.size
	for c.size > c.max && c.recent.Len() > 0 {
		c.drop(c.recent.Back())
	}
}

func (c *cache) drop(el *list.Element) {
	e := c.recent.Remove(el).(*entry)
	delete(c.entries, e.question)
	c.size -= e.size
}

// flights lets questions that are asked at the same time share one exchange. It runs apart from the
// callers, for one that gives up must not take the others along; when all have, it is cancelled.
type flights struct {
	mu     sync.Mutex // guards what follows
	under  map[question]*flight
	closed bool
	wg     sync.WaitGroup
}

type flight struct {
	waiters int           // guarded by flights.mu
	done    chan struct{} // closed when ans and err are set
	cancel  context.CancelFunc
	ans     *answer
	err     error
}

func (f *flights) do(ctx context.Context, q question,
	ask func(context.Context) (*answer, error)) (*answer, error) {
	fl := f.join(ctx, q, ask)
	if fl == nil {
		return nil, errClosed
	}
	select {
	case <-fl.done:
		f.leave(q, fl)
		return fl.ans, fl.err
	case <-ctx.Done():
		f.leave(q, fl)
		return nil, temporary(ctx.Err())
	}
}

// join finds the flight for a question or starts it; nil after close.
func (f *flights) join(ctx context.Context, q question,
	ask func(context.Context) (*answer, error)) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	if fl := f.under[q]; fl != nil {
		fl.waiters++
		return fl
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fl := &flight{waiters: 1, done: make(chan struct{}), cancel: cancel}
	if f.under == nil {
		f.under = make(map[question]*flight)
	}
	f.under[q] = fl
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		defer cancel()
		fl.ans, fl.err = ask(own)
		f.mu.Lock()
		if f.under[q] == fl {
			delete(f.under, q)
		}
		f.mu.Unlock()
		close(fl.done)
	}()
	return fl
}

func (f *flights) leave(q question, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.waiters--
	if fl.waiters == 0 {
		fl.cancel()
		if f.under[q] == fl {
			delete(f.under, q) // who comes now must not join a flight that was given up
		}
	}
}

func (f *flights) close() {
	f.mu.Lock()
	f.closed = true
	for _, fl := range f.under {
		fl.cancel()
	}
	f.mu.Unlock()
	f.wg.Wait()
}
