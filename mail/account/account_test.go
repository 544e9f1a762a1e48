package account

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/mail"
)

func addr(t testing.TB, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newResolver(t *testing.T) Resolver {
	a, err := Open(filepath.Join(t.TempDir(), "accounts.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"root@example.org", "ada@example.org", "bob@example.net"} {
		if err := a.Add(Account{Address: addr(t, s)}); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string][]string{
		"team@example.org":   {"ada@example.org", "bob@example.net", "eve@elsewhere.test"},
		"deep@example.org":   {"team@example.org"},
		"loop1@example.org":  {"loop2@example.org"},
		"loop2@example.org":  {"loop1@example.org", "ada@example.org"},
		"dead@example.org":   {"nobody@example.org"},
		"*@example.net":      {"bob@example.net"},
		"second@example.net": {"ada@example.org"},
	} {
		al := Alias{Address: mail.Address{}}
		local, domain, _ := strings.Cut(from, "@")
		al.Address = mail.Address{Local: local, Domain: mail.Domain(domain)}
		for _, s := range to {
			al.Targets = append(al.Targets, addr(t, s))
		}
		if err := a.AddAlias(al); err != nil {
			t.Fatal(err)
		}
	}
	return Resolver{Accounts: a, Separator: "+",
		Local: map[mail.Domain]bool{"example.org": true, "example.net": true}}
}

func TestResolve(t *testing.T) {
	r := newResolver(t)
	for _, c := range []struct {
		in, want string
		err      error
	}{
		{"ada@example.org", "ada@example.org", nil},
		{"ADA@EXAMPLE.org", "ada@example.org", nil},
		{"ada+lists@example.org", "ada@example.org/lists", nil},
		{"team@example.org", "ada@example.org bob@example.net eve@elsewhere.test", nil},
		{"deep@example.org", "ada@example.org bob@example.net eve@elsewhere.test", nil},
		{"loop1@example.org", "ada@example.org", nil},
		{"anything@example.net", "bob@example.net", nil},
		{"nobody@example.org", "", ErrUnknown},
		{"dead@example.org", "", ErrUnknown},
		{"postmaster@example.org", "root@example.org", nil},
		{"someone@elsewhere.test", "someone@elsewhere.test", nil},
	} {
		targets, err := r.Resolve(addr(t, c.in))
		var got []string
		for _, x := range targets {
			s := x.Address.String()
			if x.Detail != "" {
				s += "/" + x.Detail
			}
			if (x.Account == nil) != (x.Address.Domain == "elsewhere.test") {
				t.Errorf("%s: target %s with account %v", c.in, s, x.Account)
			}
			got = append(got, s)
		}
		if !errors.Is(err, c.err) || strings.Join(got, " ") != c.want {
			t.Errorf("%s leads to %v, %v; want %q, %v", c.in, got, err, c.want, c.err)
		}
	}
}

func TestMaySendAs(t *testing.T) {
	r := newResolver(t)
	ada, ok := r.Login("ada@example.org")
	if !ok {
		t.Fatal("ada cannot log in")
	}
	for from, want := range map[string]bool{
		"ada@example.org": true, "ada+x@example.org": true, "second@example.net": true, "team@example.org": true,
		"bob@example.net": false, "other@example.net": false, "ada@elsewhere.test": false, "nobody@example.org": false,
	} {
		if got := r.MaySendAs(ada, addr(t, from)); got != want {
			t.Errorf("ada as %s: %v", from, got)
		}
	}
}

func TestCredential(t *testing.T) {
	c, err := NewCredential("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]bool{"correct horse": true, "correct hors": false, "": false,
		strings.Repeat("x", MaxPassword+1): false} {
		if c.Matches(password) != want {
			t.Errorf("%.20q matches: %v", password, !want)
		}
	}
	if (Credential{}).Matches("") {
		t.Error("the zero credential matches the empty password")
	}
	if _, err := NewCredential(""); err == nil {
		t.Error("empty password accepted")
	}
}

// TestCredentialRFC7677 checks the keys of the example of RFC 7677, section 3: user, "pencil".
func TestCredentialRFC7677(t *testing.T) {
	salt := []byte("\x5b\x6d\x99\x68\x9d\x12\x35\x8e\xec\xa0\x4b\x14\x12\x36\xfa\x81") // W22ZaJ0SNY7soEsUEjb6gQ==
	c, err := derive("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	// The server's signature over the AuthMessage of the example is 6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=.
	const auth = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0," +
		"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	if got := mac(c.ServerKey, auth); string(got) != string(unbase64(t, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")) {
		t.Errorf("server signature %x", got)
	}
}

func TestOtherProcessesSeeChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "accounts.json")
	server, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	cli, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := cli.Add(Account{Address: addr(t, "ada@example.org")}); err != nil {
		t.Fatal(err)
	}
	if err := cli.Add(Account{Address: addr(t, "Ada@example.org")}); !errors.Is(err, ErrExists) {
		t.Errorf("the same address twice: %v", err)
	}
	if accs, _ := server.List(); len(accs) != 1 {
		t.Errorf("the server sees %d accounts", len(accs))
	}
	if err := cli.Remove(addr(t, "eve@example.org")); !errors.Is(err, ErrUnknown) {
		t.Errorf("removing a stranger: %v", err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestBadFileKeepsTheLastGoodOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "accounts.json")
	a, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Add(Account{Address: addr(t, "ada@example.org")}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(`{"version":1,"accounts":[`), 0o600); err != nil {
		t.Fatal(err)
	}
	a.checked = a.checked.Add(-2 * recheck)
	if accs, _ := a.List(); len(accs) != 1 {
		t.Errorf("%d accounts after the file was damaged", len(accs))
	}
	for _, bad := range []string{`{"version":2}`, `{"version":1,"nonsense":1}`, `[`,
		`{"version":1,"accounts":[{"address":"a@b"},{"address":"A@b"}]}`} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
