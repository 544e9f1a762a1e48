package smtp

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// hasty is a session that makes its client hurry.
type hasty struct {
	*recorder
	c *Conn
}

func (h hasty) Mail(ctx context.Context, from mail.Address, p MailParams) error {
	h.c.Hurry(10 * time.Second)
	h.c.Hurry(time.Hour) // never longer again
	return h.recorder.Mail(ctx, from, p)
}

func TestHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		cfg := config(rec)
		cfg.CommandTimeout, cfg.DataTimeout = 0, 0
		cfg.NewSession = func(_ context.Context, c *Conn) (Session, error) {
			return hasty{rec, c}, nil
		}
		k, end := inMemoryOf(t, cfg, rec)
		defer end()
		k.follow(hello)
		k.follow("c: MAIL FROM:<a@x.example>\ns: 250 *")
		since := time.Now()
		k.follow("s: 421 4.4.2 *\ns: EOF")
		within(t, time.Since(since), 10*time.Second, 12*time.Second)
	})
}
