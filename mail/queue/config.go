package queue

import "time"

// Config says when the queue tries, waits, reports and gives up. The zero value is the default.
type Config struct {
	// MinBackoff is the wait after the first attempt that failed; each further wait is 1.5 times as
	// long, up to MaxBackoff, give or take a tenth. 0: 5 minutes and 67 minutes, which makes three
	// attempts in the first 30 minutes and is within RFC 5321, section 4.5.4.1.
	MinBackoff, MaxBackoff time.Duration
	// DelayWarning is the age at which the sender is told, once, that a message is late, as long as it
	// did not ask otherwise. 0: 4 hours; negative: never.
	DelayWarning time.Duration
	// Expire is the age at which a message is given up; a released one counts from its release.
	// 0: 5 days, as RFC 5321 has it ("at least 4-5 days").
	Expire time.Duration
	// Retain is how long the history of a message is kept after its last recipient was settled.
	// 0: 30 days; negative: not at all.
	Retain time.Duration

	// Concurrency is the most attempts at a time for one route to another server; they begin at 5 and
	// adapt to success and failure. 0: 20.
	Concurrency int
	// LocalConcurrency is the most attempts at a time for a route into mailboxes. 0: 50.
	LocalConcurrency int
	// MaxDeliveries is the most attempts at a time over all routes. 0: 500.
	MaxDeliveries int
	// MaxRecipientsPerDelivery is the most recipients of one attempt (RFC 5321, section 4.5.3.1.8, has
	// every server take 100). 0: 100.
	MaxRecipientsPerDelivery int

	// MaxActive is the most attempts that wait in memory for their turn; the others wait on disk. 0: 20,000.
	MaxActive int
	// CacheBytes is the most octets of bodies kept in memory between acceptance and the first attempt.
	// 0: 16 MiB; negative: none.
	CacheBytes int64
	// Grace is how long Run waits for attempts under way once its context has ended; then their
	// contexts end too. 0: 10 seconds.
	Grace time.Duration
}
