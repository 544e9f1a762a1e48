package reporting

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
	"github.com/tallypost/tallypost/mail/dmarc"
	"github.com/tallypost/tallypost/mail/queue"
)

var start = time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)

// ledger is a Journal that numbers events and keeps nothing.
type ledger struct{ next uint64 }

func (l *ledger) Append(events []mail.Event) (indexes []uint64, writes []queue.Write, err error) {
	for range events {
		indexes = append(indexes, l.next)
		l.next++
	}
	return indexes, nil, nil
}
func (l *ledger) Committed()     {}
func (l *ledger) Origin() string { return "test.example/log" }

// letter is a message that left the queue.
type letter struct {
	env  mail.Envelope
	text []byte
}

// postman is a Deliverer that keeps what it delivers.
type postman struct {
	mu      sync.Mutex
	letters []letter
}

func (p *postman) Route(to mail.Address) queue.Route { return queue.Route("smtp:" + string(to.Domain)) }

func (p *postman) Deliver(_ context.Context, d *queue.Delivery) []queue.Result {
	text, err := io.ReadAll(io.NewSectionReader(d.Body, 0, d.Size))
	if err != nil {
		panic(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.letters = append(p.letters, letter{d.Envelope, text})
	out := make([]queue.Result, len(d.Envelope.Recipients))
	for i := range out {
		out[i] = queue.Result{Outcome: queue.Delivered, Status: "2.0.0", Reply: "250 2.0.0 taken"}
	}
	return out
}

// rig is a Sender with the queue it sends through and the DNS it asks.
type rig struct {
	*Sender
	t       *testing.T
	cfg     Config
	zone    *dns.Zone
	clock   *clock.Mock
	queue   *queue.Queue
	postman *postman
	signer  *dkim.Signer // nil: nobody signs
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, zone: new(dns.Zone), clock: clock.NewMock(start), postman: new(postman)}
	private, err := dkim.GenerateEd25519()
	if err != nil {
		t.Fatal(err)
	}
	record, err := dkim.Record(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	r.zone.Set("s._domainkey.us.example", "TXT "+record)
	r.signer, err = dkim.NewSigner(dkim.SignConfig{Keys: []dkim.Key{
		{Domain: "us.example", Selector: "s", Private: private}}})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	r.queue, err = queue.Open(queue.Config{}, queue.NewMemory(), new(ledger), r.postman, nil, clock.Real{}, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.queue.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r.cfg = Config{Dir: t.TempDir(), Domain: "us.example", Software: "tallypost test", DMARC: true, TLS: true,
		Sign: func(mail.Domain) *dkim.Signer { return r.signer }}
	r.open()
	return r
}

// open makes the Sender anew, as a restart does.
func (r *rig) open() {
	r.t.Helper()
	var err error
	r.Sender, err = NewSender(r.cfg, r.zone, r.clock, slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
}

// step does what Run does between two sleeps.
func (r *rig) step() {
	now := r.clock.Now()
	r.cut(now)
	r.sendDue(r.t.Context(), now, r.queue)
}

// nextDay lets all of the night's reports become due.
func (r *rig) nextDay() {
	r.clock.Set(midnight(r.clock.Now()))
	r.step()
	r.clock.Advance(r.Sender.cfg.Spread)
	r.step()
}

// see counts n messages by a domain's name from outside.
func (r *rig) see(domain string, n int) {
	r.t.Helper()
	v := dmarc.Evaluate(r.t.Context(), r.zone, domain, dmarc.SPF{Result: "pass", Domain: domain}, nil)
	for range n {
		r.Seen(&dmarc.Seen{Verdict: v, Source: netip.MustParseAddr("192.0.2.7"), EnvelopeFrom: domain,
			SPF: dmarc.SPF{Result: "pass", Domain: domain}, Applied: dmarc.PolicyNone})
	}
}

// letters waits until n messages have left the queue.
func (r *rig) letters(n int) []letter {
	r.t.Helper()
	for range 6000 { // half a minute
		r.postman.mu.Lock()
		got := r.postman.letters
		r.postman.mu.Unlock()
		if len(got) >= n {
			return got
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.t.Fatalf("%d messages left the queue, want %d", len(r.postman.letters), n)
	return nil
}

// expectLetters wants no more than n messages to have been put into the queue so far.
func (r *rig) expectLetters(n int) []letter {
	r.t.Helper()
	got := r.letters(n)
	if s := r.queue.Stats(); len(got) != n {
		r.t.Fatalf("%d messages left the queue, want %d (%+v)", len(got), n, s)
	}
	return got
}

func (r *rig) expectPending(n int) {
	r.t.Helper()
	if len(r.pending) != n {
		r.t.Errorf("%d reports pending, want %d", len(r.pending), n)
	}
}

// verify wants a message to pass DKIM for our domain, and returns its header.
func (r *rig) verify(text []byte) mail.Header {
	r.t.Helper()
	header, err := mail.ParseHeader(text)
	if err != nil {
		r.t.Fatal(err)
	}
	v := dkim.NewVerifier(r.t.Context(), r.zone, header, r.clock.Now(), dkim.VerifyConfig{})
	v.Write(text[header.Len:])
	results := v.Finish()
	if len(results) != 1 || results[0].State != dkim.Pass || results[0].Domain != "us.example" {
		r.t.Errorf("DKIM of the report: %+v", results)
	}
	return header
}
