package queue

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
)

// Queue is the queue of one server.
type Queue struct {
	cfg Config
}

var errUnwritten = errors.New("queue: not written yet")

// Open reads what the store has and returns a queue that does nothing before Run. The store stays the
// caller's to close, after Run has returned.
func Open(cfg Config, store Store, journal Journal, deliver Deliverer, report Reporter, clk clock.Clock,
	log *slog.Logger) (*Queue, error) {
	return nil, errUnwritten
}

// Run accepts and delivers until ctx ends, or the store fails: then it returns why. It returns after
// every goroutine that it started has ended.
func (q *Queue) Run(ctx context.Context) error { return errUnwritten }

// NewMessage begins a message. Nothing is known of it to anybody before Commit.
func (q *Queue) NewMessage() *Incoming { return nil }

// Incoming is a message being received. One goroutine uses it at a time.
type Incoming struct{}

// ID is the name the message will have.
func (m *Incoming) ID() mail.ID { return 0 }

// Size is the number of octets written so far.
func (m *Incoming) Size() int64 { return 0 }

// Write takes octets of the message as received. After an error the message can only be aborted; ErrFull
// is one of them.
func (m *Incoming) Write(p []byte) (int, error) { return 0, errUnwritten }

// Commit makes the message the queue's: when it returns without error the message with prefix in front,
// its envelope and its log entry are on stable storage. The event is the acceptance; ID, Time, From, To and
// Size are filled in where they are unset. If ctx ends first, whether the message was accepted is unknown.
func (m *Incoming) Commit(ctx context.Context, prefix []byte, env mail.Envelope, ev mail.Event) (Receipt, error) {
	return Receipt{}, errUnwritten
}

// Abort gives the message up. It does nothing after Commit.
func (m *Incoming) Abort() {}

// Record enters an event into the log that is not about a message of the queue, and returns its index when it
// is on stable storage.
func (q *Queue) Record(ctx context.Context, ev mail.Event) (uint64, error) { return 0, errUnwritten }
