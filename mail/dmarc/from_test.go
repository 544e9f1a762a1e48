package dmarc

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/mail"
)

func TestParseFrom(t *testing.T) {
	rows := []struct {
		name, from string
		domains    string // joined by spaces
		shown      string
		err        error
	}{
		{"address", "user@example.org", "example.org", "", nil},
		{"name", "User Name <user@Example.ORG>", "example.org", "", nil},
		{"final dot", "user@example.org.", "example.org", "", nil},
		{"quoted name", `"Name, with (all) <of> @it;" <user@example.org>`, "example.org", "", nil},
		{"quoted pair", `"a \" <b@c.example>" <user@example.org>`, "example.org", "c.example", nil},
		{"dots in name", "John Q. Public <j@example.org>", "example.org", "", nil},
		{"quoted local part", `"a@b.example"@example.org`, "example.org", "", nil},
		{"local part of parts", `"a".b@example.org`, "example.org", "", nil},
		{"comments", "(c (nested \\) c)) user (x) @ (y) example.org (z)", "example.org", "", nil},
		{"obsolete spaces", "a . b @ example . org", "example.org", "", nil},
		{"obsolete route", "<@a.example,@b.example:user@example.org>", "example.org", "", nil},
		{"group", "A Group: a@example.org, B <b@example.org>;", "example.org", "", nil},
		{"trailing comma", "a@example.org,", "example.org", "", nil},
		{"unquoted comma in name", "Doe, John <j@example.org>", "example.org", "", nil},
		{"same domain twice", "a@example.org, b@EXAMPLE.org", "example.org", "", nil},
		{"U-label", "u@bücher.example", "xn--bcher-kva.example", "", nil},
		{"A-label", "u@xn--bcher-kva.example", "xn--bcher-kva.example", "", nil},
		{"UTF-8 local part", "jürgen@example.org", "example.org", "", nil},
		{"Latin-1 name", "J\xfcrgen <j@example.org>", "example.org", "", nil},
		{"underscore", "a@foo_bar.example.org", "foo_bar.example.org", "", nil},
		{"encoded name", "=?utf-8?q?a=40bank.example?= <u@example.org>", "example.org", "bank.example", nil},
		{"address as name", "a@bank.example <u@example.org>", "example.org", "bank.example", nil},
		{"own address as name", "u@example.org <u@example.org>", "example.org", "", nil},
		{"sentence as name", `"write to a@bank.example." <u@example.org>`, "example.org", "bank.example", nil},
		{"address in a comment", "u@example.org (a@bank.example)", "example.org", "bank.example", nil},
		{"address as group", "a@bank.example: u@example.org;", "example.org", "bank.example", nil},

		{"two domains", "a@example.org, b@example.net", "example.org example.net", "", ErrManyAuthors},
		{"two domains in a group", "G: a@example.org, b@example.net;", "example.org example.net", "",
			ErrManyAuthors},
		{"two in brackets", "<a@bank.example> <b@evil.example>", "", "", ErrBadFrom},
		{"brackets in brackets", "<<a@example.org>>", "", "", ErrBadFrom},
		{"empty", "", "", "", ErrBadFrom},
		{"null path", "<>", "", "", ErrBadFrom},
		{"empty group", "Undisclosed:;", "", "", ErrBadFrom},
		{"name alone", "Mail Delivery System", "", "", ErrBadFrom},
		{"no domain", "user@", "", "", ErrBadFrom},
		{"no local part", "@example.org", "", "", ErrBadFrom},
		{"two at signs", "a@bank.example@evil.example", "", "", ErrBadFrom},
		{"two at signs in brackets", "<a@bank.example@evil.example>", "", "", ErrBadFrom},
		{"space in domain", "<a@bank.example evil.example>", "", "", ErrBadFrom},
		{"space in local part", "a b@example.org", "", "", ErrBadFrom},
		{"quoted domain", `a@"example.org"`, "", "", ErrBadFrom},
		{"encoded address", "=?utf-8?q?a=40bank.example?=", "", "bank.example", ErrBadFrom},
		{"encoded domain", "a@=?utf-8?q?bank.example?=", "", "", ErrBadFrom},
		{"open quote", `"a <u@example.org>`, "", "", ErrBadFrom},
		{"open comment", "u@example.org (", "", "", ErrBadFrom},
		{"open bracket", "<u@example.org", "", "", ErrBadFrom},
		{"stray bracket", "u@example.org>", "", "", ErrBadFrom},
		{"literal", "u@[192.0.2.1]", "", "", ErrBadFrom},
		{"NUL", "u@example.org\x00", "", "", ErrBadFrom},
		{"bad label", "u@-example.org", "", "", ErrBadFrom},
		{"dots", "u@example..org", "", "", ErrBadFrom},
		{"deep comments", strings.Repeat("(", 100) + strings.Repeat(")", 100) + "u@example.org", "", "",
			ErrBadFrom},
		{"many", strings.Repeat("u@example.org,", 101), "", "", ErrBadFrom},
		{"large", strings.Repeat(" ", maxFrom) + "u@example.org", "", "", ErrBadFrom},
	}
	for _, row := range rows {
		a, err := ParseFrom(row.from)
		if !errors.Is(err, row.err) || (row.err == nil && err != nil) {
			t.Errorf("%s: error %v, want %v", row.name, err, row.err)
		}
		if got := strings.Join(a.Domains, " "); got != row.domains {
			t.Errorf("%s: domains %q, want %q", row.name, got, row.domains)
		}
		if got := strings.Join(a.Shown, " "); got != row.shown {
			t.Errorf("%s: shows %q, want %q", row.name, got, row.shown)
		}
		if (a.Domain != "") != (err == nil) {
			t.Errorf("%s: domain %q with error %v", row.name, a.Domain, err)
		}
	}
}

func TestAuthorOf(t *testing.T) {
	for _, row := range []struct {
		header, want string
		err          error
	}{
		{"From: a\r\n <u@example.org>\r\n\r\n", "example.org", nil},
		{"from : u@example.org\n\n", "example.org", nil},
		{"To: u@example.org\r\n\r\n", "", ErrNoFrom},
		{"From: u@example.org\r\nFrom: u@example.org\r\n\r\n", "", ErrManyFrom},
		{"From: <>\r\n\r\n", "", ErrBadFrom},
	} {
		h, err := mail.ParseHeader([]byte(row.header))
		if err != nil {
			t.Fatal(err)
		}
		a, err := AuthorOf(h)
		if a.Domain != row.want || !errors.Is(err, row.err) {
			t.Errorf("%q: %q, %v; want %q, %v", row.header, a.Domain, err, row.want, row.err)
		}
	}
}

func FuzzParseFrom(f *testing.F) {
	f.Add(`"Q, \" (x" (c (d)) <@r.example:u@example.org>, G: b@c.example;`)
	f.Add("=?utf-8?q?a=40bank.example?= <u@bücher.example>")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseFrom(s)
		if (err == nil) != (a.Domain != "") {
			t.Fatalf("domain %q with error %v", a.Domain, err)
		}
		for _, d := range a.Domains {
			if again, err := ParseFrom("u@" + d); err != nil || again.Domain != d {
				t.Errorf("domain %q is not stable: %q, %v", d, again.Domain, err)
			}
			if slices.Contains(a.Shown, d) {
				t.Errorf("%q is an author's and also only shown", d)
			}
		}
	})
}
