package main

import (
	"bytes"
	"testing"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// TestShown: nothing that a stranger says steers the terminal.
func TestShown(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"250 ok\n\tünï ✓\n", "250 ok\n\tünï ✓\n"},
		{"550 \x1b[2J\x07 a\rb\x00\x7f", `550 \x1b[2J\a a\rb\x00\x7f`},
		{"\u009b31m \u202eevil \xff\xc3", `\u009b31m \u202eevil \xff\xc3`},
	} {
		var b bytes.Buffer
		if n, err := (shown{&b}).Write([]byte(c.in)); n != len(c.in) || err != nil || b.String() != c.want {
			t.Errorf("%q is shown as %q (%d, %v), want %q", c.in, b.String(), n, err, c.want)
		}
	}
}

// TestReplyIsShown: a reply reaches the terminal that way only.
func TestReplyIsShown(t *testing.T) {
	const evil = "550 \x1b]0;x\x07"
	m := queue.Message{
		Recipients: []queue.Recipient{{Last: &queue.Attempt{Result: queue.Result{Reply: evil}}}},
		Accepted:   mail.Event{Note: evil, Peer: &mail.Peer{Name: evil}},
		Attempts:   []queue.Attempt{{Result: queue.Result{Reply: evil, Peer: &mail.Peer{Name: evil}}}},
	}
	var b bytes.Buffer
	printMessage(&b, m)
	printHistory(&b, m)
	if bytes.ContainsAny(b.Bytes(), "\x1b\x07") || bytes.Count(b.Bytes(), []byte(`\x1b]0;x\a`)) != 5 {
		t.Errorf("%q", b.String())
	}
}
