package tlspolicy

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
)

// Times of fetching a policy.
const (
	fetchTimeout = 60 * time.Second // "a suggested timeout is one minute": RFC 8461, section 3.3
	fetchAgain   = 5 * time.Minute  // after a failure, likewise
	refresh      = 24 * time.Hour   // of a policy with the same id; half its age where that is less
)

// CachedPolicy is a policy in the store.
type CachedPolicy struct {
	ID      string // of the record at the time
	Policy  STSPolicy
	Fetched time.Time
}

func (c *CachedPolicy) expires() time.Time { return c.Fetched.Add(c.Policy.MaxAge) }

// stale is when a policy is fetched again though its id is the same.
func (c *CachedPolicy) stale() time.Time { return c.Fetched.Add(min(refresh, c.Policy.MaxAge/2)) }

// STSStore keeps policies for as long as they are valid; that is their worth, for who can block the
// record or the web site cannot take back what is kept. It may be called from many goroutines.
type STSStore interface {
	// LoadSTS returns what was saved for a domain, or nil.
	LoadSTS(domain string) (*CachedPolicy, error)
	SaveSTS(domain string, p *CachedPolicy) error
}

// STSConfig says how policies are found.
type STSConfig struct {
	Resolver dns.Resolver
	// Client fetches policies. It must verify certificates; redirects are refused whatever it
	// says of them.
	Client *http.Client
	// Store keeps policies. Nil: a NewMemoryStore(1000).
	Store STSStore
	// Now is the clock that policies expire by. Nil: time.Now.
	Now func() time.Time
}

// STS finds, fetches and keeps the MTA-STS policies of other domains.
type STS struct {
	cfg    STSConfig
	client http.Client

	mu     sync.Mutex // guards what follows; not held while fetching
	under  map[string]chan struct{}
	failed map[string]failedFetch
}

type failedFetch struct {
	at      time.Time
	id      string
	failure *Failure
}

// maxFailed bounds the memory of failures; beyond it they are forgotten.
const maxFailed = 10_000

// NewSTS returns an STS.
func NewSTS(cfg STSConfig) *STS {
	if cfg.Store == nil {
		cfg.Store = NewMemoryStore(1000)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Client == nil {
		cfg.Client = http.DefaultClient
	}
	s := &STS{cfg: cfg, client: *cfg.Client, under: make(map[string]chan struct{}),
		failed: make(map[string]failedFetch)}
	// "HTTP 3xx redirects MUST NOT be followed": RFC 8461, section 3.3.
	s.client.CheckRedirect = noRedirect
	s.client.Jar = nil
	return s
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Policy returns the policy of a domain, nil where it has none, and what went wrong on the way to
// it. A policy that is kept and has not expired counts, whatever goes wrong.
func (s *STS) Policy(ctx context.Context, domain mail.Domain) (*STSPolicy, *Failure) {
	if _, literal := domain.Literal(); literal || domain == "" {
		return nil, nil
	}
	name := domain.ASCII()
	kept, err := s.cfg.Store.LoadSTS(name)
	if err != nil {
		return nil, storeFailure(err)
	}
	if kept != nil && !s.cfg.Now().Before(kept.expires()) {
		kept = nil
	}
	id, _ := s.record(ctx, name)
	if id == "" {
		if kept != nil {
			return &kept.Policy, nil
		}
		// A domain whose record cannot be had, for whatever reason, has no policy: RFC 8461,
		// section 3.1.
		return nil, nil
	}
	if kept != nil && kept.ID == id && s.cfg.Now().Before(kept.stale()) {
		return &kept.Policy, nil
	}
	fresh, failure := s.fetchOnce(ctx, name, id)
	if fresh == nil && kept != nil {
		return &kept.Policy, failure
	}
	return fresh, failure
}

// record asks for the id of the policy that the domain has now; "" where there is no valid
// record, or more than one.
func (s *STS) record(ctx context.Context, domain string) (id string, err error) {
	texts, _, err := s.cfg.Resolver.TXT(ctx, "_mta-sts."+domain)
	if err != nil {
		return "", err
	}
	n := 0
	for _, t := range texts {
		if strings.HasPrefix(t, "v=STSv1") {
			id, err = ParseSTSRecord(t)
			n++
		}
	}
	if n != 1 || err != nil {
		return "", ErrNoSTS
	}
	return id, nil
}

// fetchOnce lets one fetch at a time go on for a domain; who waited for it finds the policy in
// the store, or its failure.
func (s *STS) fetchOnce(ctx context.Context, domain, id string) (*STSPolicy, *Failure) {
	for {
		s.mu.Lock()
		if f, ok := s.failed[domain]; ok && f.id == id && s.cfg.Now().Before(f.at.Add(fetchAgain)) {
			s.mu.Unlock()
			return nil, f.failure
		}
		wait := s.under[domain]
		if wait == nil {
			s.under[domain] = make(chan struct{})
		}
		s.mu.Unlock()
		if wait == nil {
			return s.lead(ctx, domain, id)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, &Failure{Type: STSFetchError, Policy: PolicySTS, Err: ctx.Err()}
		}
		kept, err := s.cfg.Store.LoadSTS(domain)
		if err == nil && kept != nil && kept.ID == id && s.cfg.Now().Before(kept.expires()) {
			return &kept.Policy, nil
		}
	}
}

// lead fetches for all who wait.
func (s *STS) lead(ctx context.Context, domain, id string) (*STSPolicy, *Failure) {
	p, failure := s.fetch(ctx, domain)
	if failure != nil && ctx.Err() != nil {
		// Whatever else went wrong is a consequence.
		failure = &Failure{Type: STSFetchError, Policy: PolicySTS, Err: ctx.Err()}
	}
	var unsaved *Failure // the policy is good; only whoever comes next has to fetch it again
	if failure == nil {
		err := s.cfg.Store.SaveSTS(domain, &CachedPolicy{ID: id, Policy: *p, Fetched: s.cfg.Now()})
		if err != nil {
			unsaved = storeFailure(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.under[domain])
	delete(s.under, domain)
	delete(s.failed, domain)
	if failure != nil && ctx.Err() == nil { // who gave up has not learnt anything about the domain
		if len(s.failed) >= maxFailed {
			clear(s.failed)
		}
		s.failed[domain] = failedFetch{s.cfg.Now(), id, failure}
	}
	if unsaved != nil {
		return p, unsaved
	}
	return p, failure
}

func storeFailure(err error) *Failure {
	return &Failure{Type: STSFetchError, Policy: PolicySTS,
		Err: fmt.Errorf("policy store: %w", err)}
}

// fetch is RFC 8461, section 3.3.
func (s *STS) fetch(ctx context.Context, domain string) (*STSPolicy, *Failure) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	url := "https://mta-sts." + domain + "/.well-known/mta-sts.txt"
	fail := func(t ResultType, err error) (*STSPolicy, *Failure) {
		return nil, &Failure{Type: t, Policy: PolicySTS,
			Err: fmt.Errorf("MTA-STS policy of %s: %w", domain, err)}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fail(STSFetchError, err)
	}
	req.Header.Set("Accept", "text/plain")
	resp, err := s.client.Do(req)
	if err != nil {
		if certificateError(err) {
			return fail(STSWebPKIInvalid, err)
		}
		return fail(STSFetchError, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fail(STSFetchError, fmt.Errorf("%s answers %q", url, resp.Status))
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "text/plain" {
		return fail(STSFetchError, fmt.Errorf("%s has the type %.60q, not text/plain", url,
			resp.Header.Get("Content-Type")))
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPolicy+1))
	if err != nil {
		return fail(STSFetchError, err)
	}
	p, err := ParseSTSPolicy(string(text))
	if err != nil {
		return fail(STSPolicyInvalid, err)
	}
	return p, nil
}

func certificateError(err error) bool {
	var verification *tls.CertificateVerificationError
	return errors.As(err, &verification)
}

// MemoryStore is an STSStore that forgets on restart, and the policy used least recently where it
// is full.
type MemoryStore struct {
	max int

	mu      sync.Mutex // guards what follows
	entries map[string]*list.Element
	recent  *list.List // of *memoryEntry
}

type memoryEntry struct {
	domain string
	policy *CachedPolicy
}

// NewMemoryStore returns a store of at most so many policies.
func NewMemoryStore(most int) *MemoryStore {
	return &MemoryStore{max: most, entries: make(map[string]*list.Element), recent: list.New()}
}

// LoadSTS is as STSStore has it; the error is always nil.
func (m *MemoryStore) LoadSTS(domain string) (*CachedPolicy, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	el := m.entries[domain]
	if el == nil {
		return nil, nil
	}
	m.recent.MoveToFront(el)
	return el.Value.(*memoryEntry).policy, nil
}

// SaveSTS is as STSStore has it; the error is always nil.
func (m *MemoryStore) SaveSTS(domain string, p *CachedPolicy) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if el := m.entries[domain]; el != nil {
		m.recent.Remove(el)
	}
	m.entries[domain] = m.recent.PushFront(&memoryEntry{domain, p})
	for len(m.entries) > m.max {
		last := m.recent.Remove(m.recent.Back()).(*memoryEntry)
		delete(m.entries, last.domain)
	}
	return nil
}
