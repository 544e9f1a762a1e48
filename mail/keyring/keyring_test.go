package keyring

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
)

const domain = mail.Domain("example.org")

// start is a time of day at which a day's selectors are made.
var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// site is a ring with the DNS it looks at.
type site struct {
	*Ring
	t     *testing.T
	zone  *dns.Zone
	clock *clock.Mock
	dir   string
}

func newSite(t *testing.T, mode Mode) *site {
	t.Helper()
	s := &site{t: t, zone: new(dns.Zone), clock: clock.NewMock(start), dir: t.TempDir()}
	s.open(mode)
	return s
}

// open opens the ring anew, as a restart does.
func (s *site) open(mode Mode) {
	s.t.Helper()
	var err error
	s.Ring, err = Open(Config{Dir: s.dir, Domains: []mail.Domain{domain}, Sign: mode}, s.zone, s.clock,
		slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) create() []Key {
	s.t.Helper()
	keys, err := s.Create(domain)
	if err != nil {
		s.t.Fatal(err)
	}
	return keys
}

func (s *site) publish(keys ...Key) {
	s.t.Helper()
	for _, k := range keys {
		record, err := dkim.Record(k.Private.Public())
		if err != nil {
			s.t.Fatal(err)
		}
		s.zone.Set(dkim.RecordName(k.Domain, k.Selector), "TXT "+record)
	}
}

func (s *site) withdraw(k Key) { s.zone.Set(dkim.RecordName(k.Domain, k.Selector)) }

var selectorTag = regexp.MustCompile(`;\s*s=([^;]+)`)

// expectSigners wants these selectors to sign, in this order.
func (s *site) expectSigners(want ...string) {
	s.t.Helper()
	var got []string
	if signer := s.Signer(domain); signer != nil {
		fields, err := signer.Sign([]byte("From: <ada@example.org>\r\n\r\nx\r\n"), s.clock.Now())
		if err != nil {
			s.t.Fatal(err)
		}
		header, err := mail.ParseHeader(fields)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, f := range header.All("DKIM-Signature") {
			got = append(got, selectorTag.FindStringSubmatch(f.Value())[1])
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		s.t.Errorf("signs with %v, want %v", got, want)
	}
}

func (s *site) expectStatus(selector, want string) {
	s.t.Helper()
	for _, k := range s.Keys(domain) {
		if k.Selector == selector {
			if got := k.Status(); !strings.HasPrefix(got, want) {
				s.t.Errorf("%s: %q, want %q", selector, got, want)
			}
			return
		}
	}
	s.t.Errorf("no key %s", selector)
}

func TestKeySignsOnceItsRecordIsSeen(t *testing.T) {
	s := newSite(t, SignPublished)
	keys := s.create()
	s.expectStatus("t20261122-rsa", "new: ")
	s.Look(t.Context())
	s.expectSigners()
	s.expectStatus("t20261122-rsa", "waits for its record: ")

	s.publish(keys[0])
	s.Look(t.Context())
	s.expectSigners("t20261122-rsa") // and not the other, whose record is missing
	s.publish(keys[1])
	s.Look(t.Context())
	s.expectSigners("t20261122-rsa", "t20261122-ed25519")
	s.expectStatus("t20261122-rsa", "signs")
}

func TestRotation(t *testing.T) {
	s := newSite(t, SignPublished)
	old := s.create()
	s.publish(old...)
	s.Look(t.Context())
	s.clock.Advance(time.Hour)
	fresh := s.create()
	if fresh[0].Selector != "t20261122b-rsa" {
		t.Errorf("second key of the day is called %s", fresh[0].Selector)
	}
	s.Look(t.Context())
	s.expectSigners("t20261122-rsa", "t20261122-ed25519")
	s.publish(fresh[0])
	s.Look(t.Context())
	s.expectSigners("t20261122b-rsa", "t20261122-ed25519")
	s.expectStatus("t20261122-rsa", "retired; its record may go on 2026-12-02")

	// The new record is lost: the old one, still there, helps out.
	s.withdraw(fresh[0])
	s.Look(t.Context())
	s.expectSigners("t20261122-rsa", "t20261122-ed25519")
	s.publish(fresh...)
	s.Look(t.Context())
	s.expectSigners("t20261122b-rsa", "t20261122b-ed25519")

	if err := s.Remove(domain, "t20261122b-rsa"); err == nil {
		t.Error("a key that signs was removed")
	}
	if err := s.Remove(domain, "t20261122-rsa"); err != nil {
		t.Error(err)
	}
	if n := len(s.Keys(domain)); n != 3 {
		t.Errorf("%d keys, want 3", n)
	}
}

func TestStateSurvivesRestart(t *testing.T) {
	s := newSite(t, SignPublished)
	s.publish(s.create()...)
	s.Look(t.Context())
	s.zone.Fail("t20261122-rsa._domainkey.example.org", dns.Timeout)
	s.open(SignPublished)
	s.expectSigners("t20261122-rsa", "t20261122-ed25519") // before any look
	s.Look(t.Context())
	s.expectSigners("t20261122-rsa", "t20261122-ed25519") // no answer changes nothing
	s.withdraw(s.Keys(domain)[0])
	s.zone.Fail("t20261122-rsa._domainkey.example.org", dns.Works)
	s.Look(t.Context())
	s.expectSigners("t20261122-ed25519")
}

func TestModes(t *testing.T) {
	s := newSite(t, SignAlways)
	s.create()
	s.expectSigners("t20261122-rsa", "t20261122-ed25519")
	s.Look(t.Context())
	s.expectSigners("t20261122-rsa", "t20261122-ed25519")
	s.expectStatus("t20261122-rsa", "signs, though receivers do not find its record")
	s.open(SignNever)
	s.expectSigners()
}

// TestRecordThatReceiversRefuse: a record that is there does not count, if a receiver could not
// verify by it.
func TestRecordThatReceiversRefuse(t *testing.T) {
	s := newSite(t, SignPublished)
	keys := s.create()
	right, err := dkim.Record(keys[0].Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	other, err := dkim.Record(keys[1].Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range []string{
		"v=DKIM1; k=rsa; p=", // withdrawn
		other,                // of another key
		strings.Replace(right, "p=", "s=tlsrpt; p=", 1), // not for mail
		right[:len(right)-8],                            // cut off
		"v=spf1 -all",
	} {
		s.zone.Set(dkim.RecordName(domain, keys[0].Selector), "TXT "+record)
		s.Look(t.Context())
		s.expectSigners()
	}
	s.zone.Set(dkim.RecordName(domain, keys[0].Selector), "TXT "+right)
	s.Look(t.Context())
	s.expectSigners(keys[0].Selector)
}

func TestRunFindsKeysOfOthers(t *testing.T) {
	s := newSite(t, SignPublished)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	await := func() {
		t.Helper()
		if err := s.clock.Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	await()
	other := &site{t: t, zone: s.zone, clock: s.clock, dir: s.dir}
	other.open(SignPublished) // the command line
	s.publish(other.create()...)
	s.clock.Advance(reloadEvery)
	await()
	s.expectSigners("t20261122-rsa", "t20261122-ed25519")
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSignerOfNamesBelow(t *testing.T) {
	s := newSite(t, SignAlways)
	s.create()
	for name, signs := range map[mail.Domain]bool{"example.org": true, "mx.example.org": true, "org": false,
		"example.net": false, "": false, "notexample.org": false} {
		if got := s.Signer(name) != nil; got != signs {
			t.Errorf("somebody signs for %q: %v, want %v", name, got, signs)
		}
	}
}

func TestFilesOfOperators(t *testing.T) {
	s := newSite(t, SignAlways)
	dir := filepath.Join(s.dir, "example.org")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	private, err := dkim.GenerateEd25519()
	if err != nil {
		t.Fatal(err)
	}
	pem, err := dkim.MarshalKey(private)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("mail.pem", pem)
	s.open(SignAlways)
	s.expectSigners("mail")
	for name, content := range map[string][]byte{
		"broken.pem":   []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"empty.pem":    nil,
		"bad name.pem": pem,
		"large.pem":    bytes.Repeat([]byte("x"), maxKeyFile+1),
	} {
		put(name, content)
		_, err := Open(s.cfg, s.zone, s.clock, s.log)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want an error that names the file", name, err)
		}
		if s.reload() {
			t.Errorf("%s: a running node forgot its keys", name)
		}
		s.expectSigners("mail")
		os.Remove(filepath.Join(dir, name))
	}
	put(stateFile, []byte(`{"version":9}`))
	if _, err := Open(s.cfg, s.zone, s.clock, s.log); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("state of a later version: %v", err)
	}
}

func TestCreateForForeignDomain(t *testing.T) {
	s := newSite(t, SignPublished)
	if _, err := s.Create("example.net"); err == nil {
		t.Error("a key was made for a domain that is not ours")
	}
}

func TestEnsure(t *testing.T) {
	s := newSite(t, SignPublished)
	for i, want := range []bool{true, false} {
		if made, err := s.Ensure(domain); made != want || err != nil {
			t.Errorf("time %d: %v, %v; want %v", i, made, err, want)
		}
	}
	files, _ := filepath.Glob(filepath.Join(s.dir, "example.org", "*"))
	for _, f := range files {
		if fi, err := os.Stat(f); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", f, fi.Mode(), err)
		}
	}
}
