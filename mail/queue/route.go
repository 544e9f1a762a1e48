package queue

import (
	"container/heap"
	"time"
)

// initialConcurrency is how many attempts at a time a route to another server begins with.
const initialConcurrency = 5

// job is an attempt that waits for its turn, or is under way.
type job struct {
	msg   *message
	route *route
	which []int // recipients
}

// route is where the queue stands with one Route. All of it is guarded by Queue.mu.
//
// It is two things at once: what waits in memory for its turn, and what of the due index is known.
// The two differ where the Deliverer now routes otherwise than when the index was written.
type route struct {
	name    Route
	ready   fifo
	running int
	inRing  bool // Queue.ring has it

	limit     float64   // the most attempts at a time
	fails     float64   // shares of the limit that failed in a row
	deadUntil time.Time // no attempts before; those that are due are put off
	words     Result    // why

	total int // recipients that are not settled, by the route that the index has for them

	// next is the first entry of the due index under this route that may not be in memory.
	next   moment
	has    bool     // next means something
	heapAt int      // place in Queue.due, -1 for none
	waits  *route   // the full route whose room it waits for; then it is not in Queue.due
	parked []*route // those that wait for room in this one
}

// fifo is a queue of jobs in a ring.
type fifo struct {
	jobs  []*job
	first int
	n     int
}

func (f *fifo) push(j *job) {
	if f.n == len(f.jobs) {
		grown := make([]*job, max(4, 2*f.n))
		for i := range f.n {
			grown[i] = f.jobs[(f.first+i)%len(f.jobs)]
		}
		f.jobs, f.first = grown, 0
	}
	f.jobs[(f.first+f.n)%len(f.jobs)] = j
	f.n++
}

func (f *fifo) pop() *job {
	j := f.jobs[f.first]
	f.jobs[f.first] = nil
	f.first = (f.first + 1) % len(f.jobs)
	f.n--
	if f.n == 0 && len(f.jobs) > 64 {
		*f = fifo{}
	}
	return j
}

// route returns the route of that name. mu is held.
func (q *Queue) route(name Route) *route {
	r := q.routes[name]
	if r == nil {
		r = &route{name: name, heapAt: -1}
		r.limit = float64(min(initialConcurrency, q.maxConcurrency(r)))
		if name.Local() {
			r.limit = float64(q.maxConcurrency(r))
		}
		q.routes[name] = r
	}
	return r
}

func (q *Queue) maxConcurrency(r *route) int {
	if r.name.Local() {
		return q.cfg.LocalConcurrency
	}
	return q.cfg.Concurrency
}

// dismiss forgets a route of which nothing is left. mu is held.
func (q *Queue) dismiss(r *route, now time.Time) {
	if r.total == 0 && r.ready.n == 0 && r.running == 0 && !r.has && r.waits == nil &&
		len(r.parked) == 0 && !r.deadUntil.After(now) {
		delete(q.routes, r.name)
	}
}

// learn adapts the concurrency of a route to an attempt that ended: as in Postfix it grows by one
// for each round of successes, shrinks by one for each failure of the route as a whole, and the
// route is dead for a while after a whole round of failures. mu is held.
func (q *Queue) learn(r *route, results []Result, now time.Time) {
	for i := range results {
		if !results[i].Unreachable {
			r.fails = 0
			r.limit = min(r.limit+1/r.limit, float64(q.maxConcurrency(r)))
			r.deadUntil = time.Time{}
			return
		}
	}
	if len(results) == 0 {
		return
	}
	r.fails += 1 / r.limit
	r.limit = max(1, r.limit-1)
	if r.fails >= 1 && !r.name.Local() {
		r.fails, r.limit = 0, 1
		r.deadUntil = now.Add(q.cfg.MinBackoff)
		r.words = results[0]
		r.words.RetryAfter = 0
		q.log.Info("route does not work: its mail waits", "route", r.name, "until", r.deadUntil,
			"reply", r.words.Reply)
	}
}

// hasRoom reports whether a further job of the route may wait in memory: as many as there is room
// for beside all others. So one slow route takes half of the room at most, and n of them leave the
// n+1st part.
func (q *Queue) hasRoom(r *route) bool { return r.ready.n < q.cfg.MaxActive-q.readyJobs }

// enqueue has a job wait for its turn. mu is held.
func (q *Queue) enqueue(j *job) {
	for _, i := range j.which {
		j.msg.rcpts[i].phase = waiting
	}
	j.msg.jobs++
	j.msg.users++
	j.route.ready.push(j)
	q.readyJobs++
	q.turn(j.route)
}

// turn puts a route into the ring of those that may begin an attempt, if it may. mu is held.
func (q *Queue) turn(r *route) {
	if !r.inRing && r.ready.n > 0 && r.running < int(r.limit) {
		r.inRing = true
		q.ring = append(q.ring, r)
	}
}

// dispatch begins attempts, from one route after the other. mu is held.
func (q *Queue) dispatch() {
	for q.running < q.cfg.MaxDeliveries && len(q.ring) > 0 && !q.stopping && q.started {
		r := q.ring[0]
		q.ring = q.ring[1:]
		r.inRing = false
		if r.ready.n == 0 || r.running >= int(r.limit) {
			continue
		}
		j := r.ready.pop()
		q.readyJobs--
		r.running++
		q.running++
		q.turn(r)
		q.unpark(r)
		q.tasks.Go(func() { q.attempt(j) })
	}
}

// dueHeap is the routes with entries in the due index that may not be in memory, the earliest
// first.
type dueHeap []*route

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].next.before(h[j].next) }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = i, j
}

// Push is as heap.Interface has it.
func (h *dueHeap) Push(x any) {
	r := x.(*route)
	r.heapAt = len(*h)
	*h = append(*h, r)
}

// Pop is as heap.Interface has it.
func (h *dueHeap) Pop() any {
	old := *h
	r := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	r.heapAt = -1
	return r
}

// expect notes that the due index has an entry that may not be in memory. mu is held.
func (q *Queue) expect(r *route, m moment) {
	if r.has && !m.before(r.next) {
		return
	}
	r.next, r.has = m, true
	switch {
	case r.waits != nil:
	case r.heapAt >= 0:
		heap.Fix(&q.due, r.heapAt)
	default:
		heap.Push(&q.due, r)
	}
	if r.heapAt == 0 {
		q.wakeLoader()
	}
}

// take takes a route with its entry out of what is expected. mu is held.
func (q *Queue) take(r *route) {
	heap.Remove(&q.due, r.heapAt)
	r.has = false
}

// park has a route wait until another has room in memory for what the due index has. Where that has
// nothing in memory itself, all are too many, and it waits for the crowd to thin. mu is held.
func (q *Queue) park(r, full *route) {
	if r.waits != nil || !r.has {
		return
	}
	if full.ready.n == 0 {
		full = &q.crowd
	}
	if r.heapAt >= 0 {
		heap.Remove(&q.due, r.heapAt)
	}
	r.waits = full
	full.parked = append(full.parked, r)
}

// unpark ends the wait of those that were parked at a route, or in the crowd, once half of the room
// is free: not for each single place. mu is held.
func (q *Queue) unpark(full *route) {
	if len(full.parked) > 0 && 2*full.ready.n < q.cfg.MaxActive-q.readyJobs {
		q.release(full)
	}
	if full.ready.n == 0 && len(full.parked) > 0 {
		for _, r := range full.parked {
			r.waits = &q.crowd
		}
		q.crowd.parked = append(q.crowd.parked, full.parked...)
		full.parked = nil
	}
	if len(q.crowd.parked) > 0 && q.readyJobs <= q.cfg.MaxActive/2 {
		q.release(&q.crowd)
	}
}

func (q *Queue) release(full *route) {
	for _, r := range full.parked {
		r.waits = nil
		heap.Push(&q.due, r)
	}
	full.parked = nil
	q.wakeLoader()
}

func (q *Queue) wakeLoader() {
	select {
	case q.loaderWake <- struct{}{}:
	default:
	}
}
