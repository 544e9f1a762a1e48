package queue

import "time"

// Config says when the queue tries, waits, reports and gives up. The zero value is the default.
type Config struct {
	// MinBackoff is the wait after the first attempt that failed. Each further wait is as long as
	// the message is old, so that they double, up to MaxBackoff, give or take a tenth. 0: 5 minutes
	// and 4,000 seconds: attempts after 0, 5, 10, 20, 40, 80 and 147 minutes, and then every 67
	// (RFC 5321, section 4.5.4.1, wants two in the first hour).
	MinBackoff, MaxBackoff time.Duration
	// DelayWarning is the age at which the sender is told, once, that a message is late, as long as
	// it did not ask otherwise. 0: 4 hours; negative: never.
	DelayWarning time.Duration
	// Expire is the age at which a message is given up; a released one counts from its release.
	// 0: 5 days, as RFC 5321 has it ("at least 4-5 days").
	Expire time.Duration
	// Retain is how long the history of a message is kept after its last recipient was settled.
	// 0: 30 days; negative: not at all.
	Retain time.Duration

	// Concurrency is the most attempts at a time for one route to another server; they begin at 5
	// and adapt to success and failure. 0: 20.
	Concurrency int
	// LocalConcurrency is the most attempts at a time for a route into mailboxes. 0: 50.
	LocalConcurrency int
	// MaxDeliveries is the most attempts at a time over all routes. 0: 500.
	MaxDeliveries int
	// MaxRecipientsPerDelivery is the most recipients of one attempt (RFC 5321, section 4.5.3.1.8,
	// has every server take 100). 0: 100.
	MaxRecipientsPerDelivery int

	// MaxActive is the most attempts that wait in memory for their turn; the others wait on disk.
	// 0: 20,000.
	MaxActive int
	// CacheBytes is the most octets of bodies kept in memory between acceptance and the first
	// attempt. 0: 16 MiB; negative: none.
	CacheBytes int64
	// Grace is, in real time, how long Run waits for attempts under way once its context has ended;
	// then their contexts end too. 0: 10 seconds.
	Grace time.Duration
}

func (c *Config) fill() {
	setDefault(&c.MinBackoff, 5*time.Minute)
	setDefault(&c.MaxBackoff, 4000*time.Second)
	c.MaxBackoff = max(c.MinBackoff, c.MaxBackoff)
	setDefault(&c.DelayWarning, 4*time.Hour)
	setDefault(&c.Expire, 5*24*time.Hour)
	setDefault(&c.Retain, 30*24*time.Hour)
	setDefault(&c.Concurrency, 20)
	setDefault(&c.LocalConcurrency, 50)
	setDefault(&c.MaxDeliveries, 500)
	setDefault(&c.MaxRecipientsPerDelivery, 100)
	setDefault(&c.MaxActive, 20000)
	setDefault(&c.CacheBytes, 16<<20)
	setDefault(&c.Grace, 10*time.Second)
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
