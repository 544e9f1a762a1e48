package intake

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// Greylist makes senders that nothing speaks for try a second time, which programs that send spam
// seldom do. Who passes DMARC, or is on a list of good addresses, or has a good name with a Weigher, never
// waits; who has come back once waits no more.
type Greylist struct {
	Enabled bool
	// Delay is how long a message has to wait. 0: 5 minutes.
	Delay time.Duration
	// Window is how long after its first attempt a message may come back. 0: 2 days.
	Window time.Duration
	// Remember is how long a sender that has come back is known after his last message. 0: 35 days, so
	// that those who write once a month are.
	Remember time.Duration
	// MaxEntries bounds what is remembered, at about 60 octets each. 0: 200,000.
	MaxEntries int
	// State keeps it over a restart. nil: nothing does.
	State Keeper
}

func (g *Greylist) fill() {
	if g.Delay == 0 {
		g.Delay = 5 * time.Minute
	}
	if g.Window == 0 {
		g.Window = 48 * time.Hour
	}
	if g.Remember == 0 {
		g.Remember = 35 * 24 * time.Hour
	}
	if g.MaxEntries == 0 {
		g.MaxEntries = 200_000
	}
}

// Keeper keeps a piece of state over a restart.
type Keeper interface {
	// Load returns what Save was given last; none where there was none.
	Load() ([]byte, error)
	// Save replaces it, whole or not at all.
	Save([]byte) error
}

// greyKey names a network with a sender and a recipient, or with a sender's domain. It is a digest, so
// that the state has nobody's address in it.
type greyKey [16]byte

// greyEntry is what is remembered of a key. Times are in seconds since 1970.
type greyEntry struct {
	first, last uint32
	passed      bool // it has come back
}

// greylist is what is remembered.
type greylist struct {
	cfg Greylist

	mu      sync.Mutex
	entries map[greyKey]greyEntry // guarded by mu
	changed bool                  // guarded by mu: since the last save
}

func newGreylist(cfg Greylist) *greylist {
	cfg.fill()
	return &greylist{cfg: cfg, entries: make(map[greyKey]greyEntry)}
}

// key makes a key of its parts; none of them has a NUL.
func (g *greylist) key(parts ...string) (k greyKey) {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	copy(k[:], sum[:])
	return k
}

// wait returns how long a message has to wait before it is taken, and remembers that it was here. Zero
// says that it need not.
func (g *greylist) wait(from netip.Prefix, sender mail.Address, rcpts []mail.Recipient,
	now time.Time) time.Duration {
	network := from.String()
	known := g.key("sender", network, string(sender.Domain))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changed = true
	// Everybody sends reports, so the null path makes nobody known.
	if e, ok := g.entries[known]; ok && !sender.IsNull() && !g.expired(e, now) {
		e.last = unix(now)
		g.entries[known] = e
		return 0
	}
	var wait time.Duration
	for _, to := range rcpts {
		key := g.key("message", network, recipientKey(sender), recipientKey(to.Address))
		wait = max(wait, g.waitOne(key, now))
	}
	if wait == 0 && !sender.IsNull() {
		g.put(known, greyEntry{first: unix(now), last: unix(now), passed: true}, now)
	}
	return wait
}

// waitOne is wait for one recipient. mu is held.
func (g *greylist) waitOne(k greyKey, now time.Time) time.Duration {
	e, ok := g.entries[k]
	if !ok || g.expired(e, now) {
		g.put(k, greyEntry{first: unix(now), last: unix(now)}, now)
		return g.cfg.Delay
	}
	e.last = unix(now)
	wait := time.Unix(int64(e.first), 0).Add(g.cfg.Delay).Sub(now)
	e.passed = e.passed || wait <= 0
	g.entries[k] = e
	if e.passed {
		return 0
	}
	return wait
}

// unix is a time as entries have it, up to the year 2106.
func unix(t time.Time) uint32 { return uint32(t.Unix()) }

// expired reports whether an entry says nothing any more.
func (g *greylist) expired(e greyEntry, now time.Time) bool {
	if e.passed {
		return now.Sub(time.Unix(int64(e.last), 0)) > g.cfg.Remember
	}
	return now.Sub(time.Unix(int64(e.first), 0)) > g.cfg.Window
}

// put adds an entry and makes room for it. mu is held.
func (g *greylist) put(k greyKey, e greyEntry, now time.Time) {
	if len(g.entries) >= g.cfg.MaxEntries {
		g.forget(now)
	}
	g.entries[k] = e
}

// forget drops what has expired, then some of what has not come back yet, and only then some of those
// that are known: a flood of strangers costs other strangers a further wait, and nobody else anything.
// mu is held.
func (g *greylist) forget(now time.Time) {
	for k, e := range g.entries {
		if g.expired(e, now) {
			delete(g.entries, k)
		}
	}
	room := g.cfg.MaxEntries - max(g.cfg.MaxEntries/10, 1)
	for _, known := range []bool{false, true} {
		for k, e := range g.entries {
			if len(g.entries) <= room {
				return
			}
			if e.passed == known {
				delete(g.entries, k)
			}
		}
	}
}

// The state is a line, then 25 octets for each entry, then a check sum; numbers are big-endian.
const (
	greyMagic = "TALLYPOST GREYLIST 1\n"
	greySize  = len(greyKey{}) + 9
)

// save gives the state to the keeper, if it has changed.
func (g *greylist) save() error {
	if g.cfg.State == nil {
		return nil
	}
	g.mu.Lock()
	changed, state := g.changed, []byte(nil)
	if changed {
		state = g.marshal()
	}
	g.changed = false
	g.mu.Unlock()
	if !changed {
		return nil
	}
	if err := g.cfg.State.Save(state); err != nil {
		g.mu.Lock()
		g.changed = true
		g.mu.Unlock()
		return err
	}
	return nil
}

// marshal returns the state. mu is held.
func (g *greylist) marshal() []byte {
	b := make([]byte, 0, len(greyMagic)+len(g.entries)*greySize+4)
	b = append(b, greyMagic...)
	for k, e := range g.entries {
		b = append(b, k[:]...)
		b = binary.BigEndian.AppendUint32(b, e.first)
		b = binary.BigEndian.AppendUint32(b, e.last)
		b = append(b, flag(e.passed))
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func flag(yes bool) byte {
	if yes {
		return 1
	}
	return 0
}

// load takes the state from the keeper. What cannot be read is forgotten: senders wait once more.
func (g *greylist) load(log *slog.Logger) {
	if g.cfg.State == nil {
		return
	}
	b, err := g.cfg.State.Load()
	if err == nil && len(b) > 0 {
		err = g.unmarshal(b)
	}
	if err != nil {
		log.Warn("greylist is forgotten", "err", err)
	}
}

var errGreyState = errors.New("state is damaged")

func (g *greylist) unmarshal(b []byte) error {
	if !bytes.HasPrefix(b, []byte(greyMagic)) {
		return fmt.Errorf("%w: unknown format", errGreyState)
	}
	n := len(b) - len(greyMagic) - 4
	if n < 0 || n%greySize != 0 {
		return fmt.Errorf("%w: %d octets", errGreyState, len(b))
	}
	end := len(b) - 4
	if crc32.ChecksumIEEE(b[:end]) != binary.BigEndian.Uint32(b[end:]) {
		return fmt.Errorf("%w: check sum", errGreyState)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for rec := range slices.Chunk(b[len(greyMagic):end], greySize) {
		if len(g.entries) >= g.cfg.MaxEntries {
			return nil
		}
		rest := rec[len(greyKey{}):]
		g.entries[greyKey(rec[:16])] = greyEntry{first: binary.BigEndian.Uint32(rest),
			last: binary.BigEndian.Uint32(rest[4:]), passed: rest[8] == 1}
	}
	return nil
}
