package dmarc

import (
	"fmt"
	"testing"
)

// TestMailboxes: the addresses that a submission server holds against those its client may use.
func TestMailboxes(t *testing.T) {
	for from, want := range map[string]string{
		"user@example.org":                                "[user@example.org]",
		"A Group: a@example.org, B <b@EXAMPLE.net>;":      "[a@example.org b@example.net]",
		"a@example.org, a@example.org":                    "[a@example.org a@example.org]",
		`"a@b.example"@example.org`:                       `["a@b.example"@example.org]`,
		`"a".b@example.org`:                               "[a.b@example.org]",
		"(c) a . b @ example . org":                       "[a.b@example.org]",
		"u@xn--bcher-kva.example":                         "[u@xn--bcher-kva.example]",
		"u@BÜcher.example":                                "[u@bücher.example]",
		"Ada@Example.ORG":                                 "[Ada@example.org]",
		"a@foo_bar.example.org":                           "[a@foo_bar.example.org]",
		`"x" <@a.example,@b.example:"u ser"@example.org>`: `["u ser"@example.org]`,
	} {
		a, _ := ParseFrom(from) // two domains are an error, with all that was read
		if got := fmt.Sprint(a.Mailboxes); got != want {
			t.Errorf("%s: %s, want %s", from, got, want)
		}
		if len(a.Mailboxes) != a.Addresses {
			t.Errorf("%s: %d mailboxes of %d addresses", from, len(a.Mailboxes), a.Addresses)
		}
	}
}
