package queue_test

import (
	"context"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail/queue"
)

// TestBusyAndClass: a Deliverer without a place for the message is asked again when it said, not
// after a backoff, and that is no attempt; and what it made of the reply is kept.
func TestBusyAndClass(t *testing.T) {
	busy := later("451 4.4.5 no place")
	busy.Busy, busy.RetryAfter = true, 10*time.Second
	refused := queue.Result{Outcome: queue.Failed, Status: "5.2.2", Reply: "552 5.2.2 full", Class: "mailbox full"}
	post := newRecorder(busy, busy, refused)
	r := newRig(t, queue.Config{MinBackoff: time.Hour, MaxBackoff: time.Hour}, nil, &post.postman)
	r.run()
	receipt := r.submit(envelope("", "b@example.com"), text)
	r.advance("three calls", func() bool { return len(post.all()) == 3 })
	if took := r.clk.Now().Sub(start); took > 25*time.Second {
		t.Errorf("came again after %v, want 10 s twice", took)
	}
	if n := post.all()[2].attempt; n != 1 {
		t.Errorf("attempt %d, want the first", n)
	}
	eventually(t, "the end of the message", r.empty)
	r.restart()
	x, err := r.q.Show(context.Background(), receipt.ID)
	if err != nil {
		t.Fatal(err)
	}
	if class := x.Recipients[0].Last.Result.Class; class != "mailbox full" {
		t.Errorf("class %q after a restart", class)
	}
}
