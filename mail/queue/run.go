package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
)

// Queue is the queue of one server.
//
// A message that is in use is in memory once, in resident; what the store has of it is the same, or
// will be when the ops pushed so far are committed. All others are in the store alone, and found by
// the due index.
type Queue struct {
	cfg       Config
	store     Store
	journal   Journal
	deliverer Deliverer
	report    Reporter // nil: no reports
	clk       clock.Clock
	log       *slog.Logger
	ids       mail.IDs
	buffers   buffers
	committer *committer

	attempts   context.Context // of the calls of Deliverer
	giveUp     context.CancelFunc
	failed     chan error     // has a token when the queue can not go on
	tasks      sync.WaitGroup // attempts and writers of reports
	loaderWake chan struct{}  // has a token when the loader has to look

	mu         sync.Mutex
	loaded     sync.Cond // a message was loaded; on mu
	started    bool      // guarded by mu, as is all below; Run has begun
	stopping   bool      // nothing more is begun
	resident   map[mail.ID]*message
	routes     map[Route]*route
	ring       []*route // those that may begin an attempt, the next first
	due        dueHeap  // those with entries in the due index that may not be in memory
	crowd      route    // where routes are parked when all of the room is taken
	readyJobs  int      // that wait for their turn
	running    int      // attempts under way
	cached     int64    // octets of bodies in memory
	messages   int      // in the queue
	held       int      // recipients
	unreported []*message
	reportsAt  time.Time // when to try these again; zero if there are none
}

// Open reads what the store has and returns a queue that does nothing before Run. The store stays
// the caller's to close, after Run has returned. report may be nil: then nobody is told of
// anything.
func Open(cfg Config, store Store, journal Journal, deliver Deliverer, report Reporter,
	clk clock.Clock, log *slog.Logger) (*Queue, error) {
	cfg.fill()
	q := &Queue{
		cfg: cfg, store: store, journal: journal, deliverer: deliver, report: report,
		clk: clk, log: log,
		committer:  newCommitter(store, journal, log),
		failed:     make(chan error, 1),
		loaderWake: make(chan struct{}, 1),
		resident:   make(map[mail.ID]*message),
		routes:     make(map[Route]*route),
	}
	q.loaded.L = &q.mu
	q.attempts, q.giveUp = context.WithCancel(context.Background())
	if err := q.checkVersion(); err != nil {
		return nil, err
	}
	if err := errors.Join(q.survey(), q.skipIDs()); err != nil {
		return nil, fmt.Errorf("open the queue: %w", err)
	}
	return q, nil
}

// skipIDs keeps ids unique where the clock is behind what it was: it looks for those of the future.
func (q *Queue) skipIDs() error {
	now := mail.ID(q.clk.Now().UnixMicro()) << 12
	from, to := idKey(spaceHistory, now), []byte{spaceHistory + 1}
	return q.store.Scan(from, to, func(key, _ []byte) bool {
		q.ids.Skip(keyID(key))
		return true
	})
}

// checkVersion refuses a store that a newer program has written, and marks a new one as ours.
func (q *Queue) checkVersion() error {
	v, err := q.store.Get(keyVersion)
	switch {
	case errors.Is(err, ErrNotFound):
		return q.store.Commit(&Group{Writes: []Write{{keyVersion, []byte{recordVersion}}}})
	case err != nil:
		return fmt.Errorf("open the queue: %w", err)
	case len(v) != 1 || v[0] == 0 || v[0] > recordVersion:
		return fmt.Errorf("open the queue: its records have version %d, this program knows %d: "+
			"use the newer program that wrote them", v, recordVersion)
	}
	return nil
}

// survey counts what the store has, and learns of each route when something of it is due next.
func (q *Queue) survey() error {
	var last mail.ID
	return q.store.Scan([]byte{spaceStates}, []byte{spaceStates + 1}, func(key, value []byte) bool {
		id := keyID(key)
		rcpts, err := decodePage(value)
		if err != nil {
			q.log.Error("message is damaged and stays as it is", "msg", id, "err", err)
			return true
		}
		if id != last {
			q.messages++
			last = id
		}
		for i := range rcpts {
			t := &rcpts[i]
			q.count(t, +1)
			if t.status == pending {
				q.expect(q.route(t.stored), moment{t.due, id})
			}
			if t.owes != owesNothing {
				q.expect(q.route(routeReports), moment{0, id})
			}
		}
		return true
	})
}

// count adds a recipient to the counts, or takes it off. mu is held, or the queue is being opened.
func (q *Queue) count(t *recipient, sign int) {
	if t.status.settled() {
		return
	}
	q.route(t.stored).total += sign
	if t.status == held {
		q.held += sign
	}
}

// Run accepts and delivers until ctx ends, or the store fails: then it returns why. It returns
// after every goroutine that it started has ended. A queue is run once.
func (q *Queue) Run(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	committed := make(chan error, 1)
	go func() {
		err := q.committer.run()
		if err != nil {
			q.fail(err)
		}
		committed <- err
	}()
	var loops sync.WaitGroup
	loops.Go(func() { q.loadLoop(inner) })
	loops.Go(func() { q.sweepLoop(inner) })
	q.mu.Lock()
	q.started = true
	q.dispatch()
	q.mu.Unlock()

	var err error
	select {
	case <-ctx.Done():
	case err = <-q.failed:
	}
	cancel()
	q.mu.Lock()
	q.stopping = true
	q.mu.Unlock()
	loops.Wait()
	q.wait()
	q.committer.close()
	if cerr := <-committed; err == nil {
		err = cerr
	}
	select {
	case ferr := <-q.failed:
		if err == nil {
			err = ferr
		}
	default:
	}
	return err
}

// wait returns when attempts have ended; after Config.Grace it ends their context.
func (q *Queue) wait() {
	defer q.giveUp()
	ended := make(chan struct{})
	go func() {
		q.tasks.Wait()
		close(ended)
	}()
	timer := time.NewTimer(q.cfg.Grace)
	defer timer.Stop()
	select {
	case <-ended:
		return
	case <-timer.C:
		q.giveUp()
	}
	<-ended
}

// fail has Run end.
func (q *Queue) fail(err error) {
	select {
	case q.failed <- err:
	default:
	}
}

// Accepting returns why no message would be accepted now: ErrFull, ErrStopped or ErrBroken; nil if
// one would.
func (q *Queue) Accepting() error {
	if err := q.committer.accepting(); err != nil {
		return err
	}
	body, err := q.newBody(q.ids.Next(q.clk.Now()))
	if err != nil {
		return err
	}
	body.Abort()
	return nil
}

// newBody begins a body. A store that is broken ends the queue, whoever finds out.
func (q *Queue) newBody(id mail.ID) (Body, error) {
	body, err := q.store.NewBody(id)
	return body, q.noteBroken(err)
}

func (q *Queue) noteBroken(err error) error {
	if errors.Is(err, ErrBroken) {
		q.fail(err)
	}
	return err
}
