// Package reporting tells other domains, once a day, what became of mail by their name and of the
// connections to their servers; and keeps what others tell of ours.
//
// The reports are DMARC aggregate reports (RFC 9990) and TLS reports (RFC 8460). A Sender counts
// what it is shown until midnight UTC and sends within some hours behind it, to who asks for
// reports in the DNS, signed, from the null path, so that nothing comes back. What it has counted
// and has still to send is in one file, written every few minutes: a crash costs these minutes,
// or sends a report twice under one identifier, of which receivers take one. An Inbox keeps a
// summary of each report received. The package judges no message and acts on no report.
package reporting

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/durable"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
	"github.com/tallypost/tallypost/mail/dmarc"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// Config of a Sender. Dir, Domain and Sign are needed.
type Config struct {
	Dir string // for the file of what is counted
	// Domain reports, and is that of the sender's address: a receiver wants the two to agree.
	Domain mail.Domain
	// Org is the name that people read. Empty: Domain.
	Org      string
	Software string
	// DMARC and TLS say which reports are sent.
	DMARC, TLS bool
	// Sign returns who signs for Domain; nil as long as nobody does. Reports wait for it: a
	// report that does not pass DMARC itself is not believed.
	Sign func(mail.Domain) *dkim.Signer
	// Spread is the time after midnight over which reports are sent, lest all the world's reports
	// come at once. 0: 4 hours.
	Spread time.Duration
	// Client posts reports to who wants them by HTTPS. Nil: one that connects to public addresses
	// only.
	Client *http.Client
}

// Times.
const (
	saveEvery  = 5 * time.Minute
	retryEvery = time.Hour
	giveUp     = 24 * time.Hour // RFC 8460, section 5.5
)

// Sender counts and reports. Its methods may be called from several goroutines.
type Sender struct {
	cfg      Config
	resolver dns.Resolver
	clock    clock.Clock
	log      *slog.Logger
	dmarc    *dmarc.Collector
	tls      *tlspolicy.Collector

	// What follows is Run's.
	begun   time.Time // when the collectors began to count
	pending []*job    // by Due
}

// NewSender reads what an earlier one had counted, and counts on.
func NewSender(cfg Config, resolver dns.Resolver, clk clock.Clock, log *slog.Logger) (*Sender,
	error) {
	if cfg.Org == "" {
		cfg.Org = string(cfg.Domain)
	}
	if cfg.Spread == 0 {
		cfg.Spread = 4 * time.Hour
	}
	if cfg.Client == nil {
		cfg.Client = PublicClient(resolver)
	}
	s := &Sender{cfg: cfg, resolver: resolver, clock: clk, log: log, begun: clk.Now().UTC()}
	s.dmarc = dmarc.NewCollector(dmarc.CollectorConfig{Org: cfg.Org, Email: s.from().String(),
		Receiver: cfg.Domain.ASCII(), Software: cfg.Software})
	s.tls = tlspolicy.NewCollector(tlspolicy.CollectorConfig{Organization: cfg.Org,
		Contact: s.from().String(), Submitter: cfg.Domain.ASCII()})
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	return s, s.load()
}

// from is the address that reports come from.
func (s *Sender) from() mail.Address {
	return mail.Address{Local: "postmaster", Domain: s.cfg.Domain}
}

// Seen counts a message for the DMARC report of its author's domain.
func (s *Sender) Seen(m *dmarc.Seen) {
	if s.cfg.DMARC {
		s.dmarc.Add(m)
	}
}

// Connected counts a connection to a server for the TLS report of its domain.
func (s *Sender) Connected(c *tlspolicy.Session) {
	if s.cfg.TLS {
		s.tls.Add(c)
	}
}

// job is a report that is to be sent.
type job struct {
	Due   time.Time         `json:"due"`   // for the next attempt
	Until time.Time         `json:"until"` // when it is given up
	DMARC *dmarc.Due        `json:"dmarc,omitempty"`
	TLS   *tlspolicy.Report `json:"tls,omitempty"`
	// Domain is the one the report is about.
	Domain string   `json:"domain"`
	Done   []string `json:"done,omitempty"` // places that have it, or never will
}

func (j *job) kind() string {
	if j.TLS != nil {
		return "TLS report"
	}
	return "DMARC aggregate report"
}

// file is what is kept over a restart.
type file struct {
	Version int             `json:"version"`
	Begun   time.Time       `json:"begun"`
	DMARC   json.RawMessage `json:"dmarc"`
	TLS     json.RawMessage `json:"tls"`
	Pending []*job          `json:"pending,omitempty"`
}

const fileVersion = 1

// maxFile bounds the file, in octets.
const maxFile = 512 << 20

func (s *Sender) path() string { return filepath.Join(s.cfg.Dir, "counted.json") }

func (s *Sender) load() error {
	fi, err := os.Stat(s.path())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && fi.Size() > maxFile {
		err = fmt.Errorf("%s: larger than %d octets", s.path(), maxFile)
	}
	if err != nil {
		return err
	}
	b, err := os.ReadFile(s.path())
	if err != nil {
		return err
	}
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("%s: %w: it may be deleted, then the reports of a day are lost", s.path(), err)
	}
	if f.Version != fileVersion {
		return fmt.Errorf("%s: version %d; this program reads version %d", s.path(), f.Version,
			fileVersion)
	}
	err = errors.Join(s.dmarc.Load(bytes.NewReader(f.DMARC)), s.tls.Load(bytes.NewReader(f.TLS)))
	if err != nil {
		return fmt.Errorf("%s: %w", s.path(), err)
	}
	for _, j := range f.Pending {
		if j.TLS != nil {
			j.TLS.Domain = j.Domain // JSON has no place for it
		}
	}
	s.begun, s.pending = f.Begun, f.Pending
	return nil
}

// save writes everything down.
func (s *Sender) save() error {
	var d, t bytes.Buffer
	if err := errors.Join(s.dmarc.Save(&d), s.tls.Save(&t)); err != nil {
		return err
	}
	b, err := json.Marshal(file{fileVersion, s.begun, d.Bytes(), t.Bytes(), s.pending})
	if err != nil {
		return err
	}
	return durable.ReplaceFile(s.path(), b)
}

// Outbox takes the messages that bring reports: the queue.
type Outbox interface {
	NewMessage() *queue.Incoming
}

// Run counts the days and sends until ctx ends; then it writes down what there is.
func (s *Sender) Run(ctx context.Context, out Outbox) error {
	var saved time.Time
	for {
		now := s.clock.Now().UTC()
		cut := s.cut(now)
		sent := s.sendDue(ctx, now, out)
		if cut || sent || now.Sub(saved) >= saveEvery {
			saved = now
			if err := s.save(); err != nil {
				s.log.Error("what was counted for reports cannot be written down", "err", err)
			}
		}
		if clock.Sleep(ctx, s.clock, s.wait(now)) != nil {
			return s.save()
		}
	}
}

// midnight is the end of the UTC day of t.
func midnight(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour) }

// wait is the time until there is something to do.
func (s *Sender) wait(now time.Time) time.Duration {
	next := now.Add(saveEvery)
	if m := midnight(s.begun); m.Before(next) {
		next = m
	}
	if len(s.pending) > 0 && s.pending[0].Due.Before(next) {
		next = s.pending[0].Due
	}
	return max(next.Sub(now), time.Second)
}

// cut ends the day if it is over, and makes what was counted pending.
func (s *Sender) cut(now time.Time) bool {
	end := midnight(s.begun)
	if now.Before(end) {
		return false
	}
	begin, last := s.begun.Truncate(time.Second), end.Add(-time.Second)
	add := func(j *job) {
		j.Due = now.Add(rand.N(s.cfg.Spread))
		j.Until = j.Due.Add(giveUp)
		s.pending = append(s.pending, j)
	}
	for _, d := range s.dmarc.Take(begin, last) {
		add(&job{DMARC: &d, Domain: d.Report.Published.Domain})
	}
	for _, r := range s.tls.Take(begin, last) {
		add(&job{TLS: r, Domain: r.Domain})
	}
	s.sort()
	s.begun = now.Truncate(24 * time.Hour)
	return true
}

func (s *Sender) sort() {
	slices.SortStableFunc(s.pending, func(a, b *job) int { return a.Due.Compare(b.Due) })
}
