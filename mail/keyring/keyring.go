// Package keyring keeps the DKIM keys of our domains and says which of them sign.
//
// A key is a file, DIR/<domain>/<selector>.pem, PKCS #8 in PEM with the time of its making in
// front of it ("Created: 2026-11-22T14:00:00Z", else the file's own time counts). Nothing else
// makes or changes keys: an operator may put in his own and take old ones away while the node
// runs. What the node has found out about them stands beside, in DIR/<domain>/state.json, which
// only the node writes.
//
// A signature whose key is not in the DNS is worse than none: receivers call it dkim=permerror,
// and some refuse the message. So a key signs only once its record has been seen, which is tried
// as a receiver would, by verifying a signature; of several that are seen the newest of each
// algorithm signs. To rotate is therefore to make a key and to publish its record: the node
// changes over by itself. The package publishes nothing, and what is signed is its callers'
// affair.
package keyring

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
)

// Mode says which keys sign.
type Mode string

// The modes; empty is SignPublished.
const (
	SignPublished Mode = "published" // those whose record is in the DNS
	SignAlways    Mode = "always"    // the newest, whatever the DNS says
	SignNever     Mode = "never"
)

// Config says where keys are. Dir and Domains are needed.
type Config struct {
	Dir     string
	Domains []mail.Domain
	Sign    Mode
	// Expire is how long signatures are valid; 0: for ever (see dkim.SignConfig).
	Expire time.Duration
	// LookEvery is the time between looks at the DNS. 0: 10 minutes.
	LookEvery time.Duration
}

// Key is a key and what is known of it.
type Key struct {
	dkim.Key
	Algorithm string // "rsa" or "ed25519"
	Created   time.Time
	State
}

// State is what the node has found out about a key.
type State struct {
	Signs bool `json:"signs,omitempty"`
	// Published is since when the record is in the DNS as it should be; zero: it is not.
	Published time.Time `json:"published,omitzero"`
	// Missing is since when it is not, and Problem what a receiver says instead. With both times
	// zero nobody has looked yet.
	Missing time.Time `json:"missing,omitzero"`
	Problem string    `json:"problem,omitempty"`
	// Retired is when the key ceased to sign. Receivers need its record for as long as a message
	// may wait on the way to them.
	Retired time.Time `json:"retired,omitzero"`
}

// RecordNeeded is how long the record of a retired key must stay in the DNS: as long as a queue
// keeps a message, and some days for delivery behind it.
const RecordNeeded = 10 * 24 * time.Hour

// Status says in words what the key does.
func (k Key) Status() string {
	switch {
	case k.Signs && k.Published.IsZero():
		return "signs, though receivers do not find its record"
	case k.Signs:
		return "signs"
	case !k.Retired.IsZero():
		return "retired; its record may go on " + k.Retired.Add(RecordNeeded).UTC().Format(time.DateOnly)
	case !k.Missing.IsZero():
		return "waits for its record: " + k.Problem
	case k.Published.IsZero():
		return "new: no running node has looked for its record yet"
	}
	return "spare: a newer key signs"
}

// Ring holds the keys of all domains. Its methods may be called from several goroutines.
type Ring struct {
	cfg      Config
	resolver dns.Resolver
	clock    clock.Clock
	log      *slog.Logger

	signers atomic.Pointer[map[string]*dkim.Signer] // by A-labels; replaced as a whole

	mu    sync.Mutex
	keys  map[mail.Domain][]loaded // guarded by mu; newest first
	saved map[mail.Domain][]byte   // guarded by mu; what was written to state.json
}

// Open reads the keys there are and returns a Ring that signs with those that did so last; Run
// looks after them.
func Open(cfg Config, resolver dns.Resolver, clk clock.Clock, log *slog.Logger) (*Ring, error) {
	if cfg.Sign == "" {
		cfg.Sign = SignPublished
	}
	if cfg.LookEvery == 0 {
		cfg.LookEvery = 10 * time.Minute
	}
	r := &Ring{cfg: cfg, resolver: resolver, clock: clk, log: log,
		keys: make(map[mail.Domain][]loaded), saved: make(map[mail.Domain][]byte)}
	for _, d := range cfg.Domains {
		keys, err := r.load(d, nil)
		if err != nil {
			return nil, err
		}
		r.keys[d] = keys
	}
	return r, r.choose()
}

// Keys returns the keys of a domain, newest first.
func (r *Ring) Keys(d mail.Domain) []Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Key, 0, len(r.keys[d]))
	for _, k := range r.keys[d] {
		out = append(out, k.Key)
	}
	return out
}

// Signer returns who signs for a domain of ours or, as for the host itself, for a name below one;
// nil if nobody does.
func (r *Ring) Signer(d mail.Domain) *dkim.Signer {
	signers := *r.signers.Load()
	for name, found := d.ASCII(), true; found; _, name, found = strings.Cut(name, ".") {
		if s, ok := signers[name]; ok {
			return s
		}
	}
	return nil
}

// reloadEvery is how often the folders are looked at for keys that came or went.
const reloadEvery = 30 * time.Second

// Run looks at the files and at the DNS until ctx ends.
func (r *Ring) Run(ctx context.Context) error {
	if r.cfg.Sign == SignNever {
		<-ctx.Done()
		return nil
	}
	var next time.Time // look at the DNS
	for {
		changed := r.reload()
		if now := r.clock.Now(); changed || !now.Before(next) {
			r.Look(ctx)
			next = now.Add(r.cfg.LookEvery)
		}
		if err := clock.Sleep(ctx, r.clock, reloadEvery); err != nil {
			return nil
		}
	}
}

// reload reads the folders anew and reports whether a key came or went.
func (r *Ring) reload() (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.cfg.Domains {
		old := r.keys[d]
		keys, err := r.load(d, old)
		if err != nil {
			r.log.Error("DKIM keys cannot be read, the last good ones stay", "domain", d, "err", err)
			continue
		}
		same := func(a, b loaded) bool { return a.Selector == b.Selector && a.stamp == b.stamp }
		changed = changed || !slices.EqualFunc(old, keys, same)
		r.keys[d] = keys
	}
	return changed
}

// lookers bounds the questions asked of the DNS at a time.
const lookers = 8

// Look asks the DNS for every key's record once, and has those sign that should.
func (r *Ring) Look(ctx context.Context) {
	r.mu.Lock()
	keys := make(map[mail.Domain][]loaded)
	for d, list := range r.keys {
		keys[d] = slices.Clone(list)
	}
	r.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(lookers)
	for d, list := range keys {
		for i := range list {
			k := &keys[d][i]
			g.Go(func() error { r.probe(ctx, k); return nil })
		}
	}
	_ = g.Wait()
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	maps.Copy(r.keys, keys)
	r.mu.Unlock()
	err := r.choose()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.cfg.Domains {
		err = errors.Join(err, r.save(d))
	}
	if err != nil {
		r.log.Error("DKIM keys", "err", err)
	}
}

// probe tries a key as a receiver would.
func (r *Ring) probe(ctx context.Context, k *loaded) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	now := r.clock.Now()
	state, problem := Probe(ctx, r.resolver, k.Key.Key, now)
	if state == dkim.TempError {
		return // what was known stays
	}
	was := k.State
	now = now.UTC().Truncate(time.Second)
	k.Problem = problem
	switch {
	case state == dkim.Pass && was.Published.IsZero():
		k.Published, k.Missing = now, time.Time{}
	case state != dkim.Pass && was.Missing.IsZero():
		k.Published, k.Missing = time.Time{}, now
		if was.Signs {
			r.log.Warn("the record of a DKIM key is gone", "domain", k.Domain, "selector", k.Selector,
				"err", problem)
		} else if was.Published.IsZero() {
			r.log.Info("a DKIM key waits for its record, `tallypost dns` prints it", "domain", k.Domain,
				"selector", k.Selector, "err", problem)
		}
	}
}

// Probe signs a message with a key and verifies it by what the DNS has, and returns the outcome
// with its reason.
func Probe(ctx context.Context, resolver dns.Resolver, k dkim.Key, now time.Time) (dkim.State,
	string) {
	signer, err := dkim.NewSigner(dkim.SignConfig{Keys: []dkim.Key{k}})
	if err != nil {
		return dkim.PermError, err.Error()
	}
	msg := []byte("From: <postmaster@" + k.Domain.ASCII() + ">\r\n\r\n")
	fields, err := signer.Sign(msg, now)
	if err != nil {
		return dkim.PermError, err.Error()
	}
	header, err := mail.ParseHeader(append(fields, msg...))
	if err != nil {
		return dkim.PermError, err.Error()
	}
	v := dkim.NewVerifier(ctx, resolver, header, now, dkim.VerifyConfig{SkipARC: true})
	results := v.Finish()
	if len(results) != 1 {
		return dkim.PermError, "the signature is not found again"
	}
	return results[0].State, results[0].Reason
}

// choose says which keys sign and notes it.
func (r *Ring) choose() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	signers := make(map[string]*dkim.Signer)
	var errs []error
	for _, d := range r.cfg.Domains {
		signing := r.chooseFor(d)
		if len(signing) > 0 {
			s, err := dkim.NewSigner(dkim.SignConfig{Keys: signing, Expire: r.cfg.Expire})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			signers[d.ASCII()] = s
		}
	}
	r.signers.Store(&signers)
	return errors.Join(errs...)
}

// chooseFor picks the newest usable key of each algorithm, RSA first, and retires those that
// signed before. mu is held.
func (r *Ring) chooseFor(d mail.Domain) (signing []dkim.Key) {
	picked := make(map[string]*loaded)
	list := r.keys[d]
	for i := range list {
		k := &list[i]
		usable := r.cfg.Sign == SignAlways || r.cfg.Sign == SignPublished && !k.Published.IsZero()
		if usable && picked[k.Algorithm] == nil {
			picked[k.Algorithm] = k
		}
	}
	for i := range list {
		k := &list[i]
		switch signs := picked[k.Algorithm] == k; {
		case signs && !k.Signs:
			k.Signs, k.Retired = true, time.Time{}
			r.log.Info("DKIM key signs", "domain", d, "selector", k.Selector)
		case !signs && k.Signs:
			k.Signs, k.Retired = false, r.clock.Now().UTC().Truncate(time.Second)
			r.log.Info("DKIM key signs no more", "domain", d, "selector", k.Selector)
		}
	}
	for _, algorithm := range []string{"rsa", "ed25519"} {
		if k := picked[algorithm]; k != nil {
			signing = append(signing, k.Key.Key)
		}
	}
	return signing
}
