// Package eventlog is the log of what happened to mail: every acceptance and every final outcome
// becomes an entry that can later be proven, to people who do not trust this server.
//
// It implements queue.Journal. The queue's committer asks it for the entries of a group of messages
// and makes them durable in the same synced write as the messages themselves; so no message is
// acknowledged without its entry, and no entry stands for a message that was lost. Formats and
// arithmetic are bridge/tlog's.
//
// # What is stored
//
// Everything lies in the Journal's section of the queue's store. Numbers are big-endian, 8 octets:
//
//	s                     state: version (1 octet), size, origin
//	e <index>             entry, the text of tlog.Entry
//	p <index>             private half: salt (32 octets), canonical event; once erased: the
//	                      index of the Erasure event that says so
//	m <queue id> <index>  empty; finds the events of a message
//	t <level> <n>         full tile, 8,192 octets; level has one octet
//	h <queue id>          legal hold: the index of its event
//
// A leaf costs two small values and an empty one, and one tile for every 256 leaves. The tiles that
// are not full are in memory and are rebuilt by Open.
//
// # What is signed
//
// A checkpoint is signed when somebody asks for one, at most one a second unless a proof needs a
// newer one, and only of a tree of which Committed has said that it is on stable storage. A log
// must never sign two trees of which one is not the beginning of the other (C2SP tlog-checkpoint).
// Within a run that follows from the above; what can break it is the store: a disk that lies about
// syncs, or a backup restored over newer data, after which the log would grow another history from
// an older size. So the last signed checkpoint is kept a second time, in Config.LastSigned, apart
// from the store, and is on stable storage before anybody sees it. Open refuses to go on with a
// tree that is smaller than that checkpoint or has another root at its size. The remedy is then the
// newer data, or a new key and origin: a new log. What this cannot see is a store and LastSigned
// that were both put back, so a restore must never put back LastSigned over a newer one; against an
// operator who does it on purpose only witnesses, peers and anchors help, who remember checkpoints
// too.
//
// # What is not done
//
// Nothing is anchored, witnessed or served here, nothing is pruned, and the key is not rotated.
// Tiles are private unless somebody serves them: they show how much mail there is and when, though
// not whose.
package eventlog

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// Errors that callers branch on.
var (
	// ErrNotFound: the log has no such entry, tile or message, or it is not on stable storage yet.
	ErrNotFound = errors.New("not in the log")
	// ErrErased: the private half of the event was erased.
	ErrErased = errors.New("private half was erased")
	// ErrHeld: the message is under legal hold and nothing of it may be erased.
	ErrHeld = errors.New("under legal hold")
	// ErrRolledBack: the store has an older or another history than the one that was signed.
	ErrRolledBack = errors.New("log is not the one that was signed")
)

// Section is the part of the queue's store that is the log's. It is safe for use by many goroutines
// and shows what was last committed.
type Section interface {
	// Get returns a copy of the value of a key; queue.ErrNotFound where there is none.
	Get(key []byte) ([]byte, error)
	// Scan calls fn with the keys that begin with prefix, from the key from (or the first, if nil)
	// on in order, until fn returns false. Both slices are valid during the call only.
	Scan(prefix, from []byte, fn func(key, value []byte) bool) error
}

// Config is what a log needs to know. Only Signer must be set.
type Config struct {
	// Signer signs checkpoints. Its name is the origin of the log.
	Signer *tlog.Signer
	// LastSigned keeps the last signed checkpoint apart from the store. Nil keeps it in memory
	// only, which is for tests and for logs that nobody relies on.
	LastSigned LastSigned
	// SignEvery is the least time between two checkpoints that are asked for without naming an
	// entry they must cover. 0: one second.
	SignEvery time.Duration
	// Beacon names the best block that is known, if one is: then the entries of the next group say
	// that they are younger. It is called once for each group, by the committer, and must not wait.
	// May be nil.
	Beacon func() (tlog.Block, bool)
	// Clock is the source of time. Nil: the machine's.
	Clock clock.Clock
}

func (c *Config) validate() error {
	if c.Signer == nil {
		return errors.New("event log: no signing key")
	}
	if err := tlog.CheckOrigin(c.Signer.Name()); err != nil {
		return fmt.Errorf("event log: %w", err)
	}
	if c.SignEvery <= 0 {
		c.SignEvery = time.Second
	}
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	return nil
}

// Log is the log of one server. Append and Committed are the committer's; all other methods may be
// called by anybody, and see only what was committed.
type Log struct {
	cfg     Config
	section Section

	// Owned by the committer.
	appended tlog.Edge
	holds    []holdChange // appended but not committed
	erased   []uint64     // likewise

	mu        sync.Mutex
	committed tlog.Edge          // guarded by mu; a copy of appended
	held      map[mail.ID]bool   // guarded by mu; under legal hold, from the call of Hold on
	erasing   map[uint64]mail.ID // guarded by mu; Erase was called for, not yet committed

	signing sync.Mutex // held while a checkpoint is signed and saved; taken before mu
	signed  signed     // guarded by signing
}

// Open reads the state of a log from its section, which is empty for a new one, and checks it
// against the last checkpoint that was signed.
func Open(cfg Config, section Section) (*Log, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, section: section, erasing: make(map[uint64]mail.ID)}
	size, err := l.readState()
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	l.committed, err = tlog.RestoreEdge(size, l.fullTile, l.leafHash)
	if err != nil {
		return nil, fmt.Errorf("event log of size %d: %w", size, err)
	}
	l.appended = l.committed
	if _, err := section.Get(entryKey(size)); !errors.Is(err, queue.ErrNotFound) {
		return nil, fmt.Errorf("event log of size %d: has an entry %d, or cannot tell: %v", size,
			size, err)
	}
	if err := l.loadSigned(); err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	if l.held, err = l.readHolds(); err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	return l, nil
}

// Origin is the name of the log.
func (l *Log) Origin() string { return l.cfg.Signer.Name() }

// Verifier is the key that checkpoints are verified with, which is to be published.
func (l *Log) Verifier() *tlog.Verifier { return l.cfg.Signer.Verifier() }

// Size is the number of entries that are on stable storage.
func (l *Log) Size() uint64 {
	edge := l.snapshot()
	return edge.Size()
}

// snapshot returns the committed tree.
func (l *Log) snapshot() tlog.Edge {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committed
}
