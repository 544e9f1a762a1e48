package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/smtp"
)

// digest counts what strangers provoke without being accepted. None of it is an entry of the log, or
// anybody could fill it; once an hour the numbers are.
type digest struct {
	mu     sync.Mutex
	counts map[string]int64 // guarded by mu: "rcpt 550 5.1.1" and how often
	begun  time.Time        // guarded by mu
}

// maxCounts bounds the different refusals that are told apart. Ours are a few dozen; those that a filter
// thinks of may be any.
const maxCounts = 200

func newDigest(now time.Time) *digest {
	return &digest{counts: make(map[string]int64), begun: now}
}

// count counts one more of a kind.
func (d *digest) count(kind string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.counts[kind]; !known && len(d.counts) >= maxCounts {
		kind = "other"
	}
	d.counts[kind]++
}

// refused counts a refusal by where it was given and by its codes.
func (d *digest) refused(at string, err error) {
	var r *smtp.Reply
	if !errors.As(err, &r) {
		d.count(at + " error")
		return
	}
	d.count(fmt.Sprintf("%s %d %s", at, r.Code, r.Enhanced))
}

// take returns the event for what was counted since the last time, and whether there was anything.
func (d *digest) take(now time.Time) (mail.Event, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	counts, begun := d.counts, d.begun
	d.counts, d.begun = make(map[string]int64), now
	if len(counts) == 0 {
		return mail.Event{}, false
	}
	kinds := make([]string, 0, len(counts))
	for k := range counts {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	var b strings.Builder
	fmt.Fprintf(&b, "refused from %s to %s:", begun.UTC().Format(time.RFC3339),
		now.UTC().Format(time.RFC3339))
	for i, k := range kinds {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s x%d", k, counts[k])
	}
	return mail.Event{Kind: mail.Digest, Time: now, Note: b.String()}, true
}

// record enters the digest into the log.
func (in *Intake) record(ctx context.Context) {
	ev, ok := in.digest.take(in.clock.Now())
	if !ok {
		return
	}
	if _, err := in.queue.Record(ctx, ev); err != nil {
		in.log.Warn("digest of refusals was not recorded", "digest", ev.Note, "err", err)
	}
}
