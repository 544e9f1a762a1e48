package srs

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/vectors"
	"github.com/tallypost/tallypost/mail"
)

var now = time.Unix(1577836860, 0)

func addr(t testing.TB, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func rewriter(t testing.TB, domain mail.Domain, secrets ...string) *Rewriter {
	t.Helper()
	cfg := Config{Domain: domain}
	for _, s := range secrets {
		cfg.Secrets = append(cfg.Secrets, []byte(s))
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestPostsrsd holds us to what postsrsd makes and reads.
func TestPostsrsd(t *testing.T) {
	var v struct {
		Secret  string
		Time    int64       `json:"unix_time"`
		Alias   mail.Domain `json:"alias_domain"`
		Forward [][]*string
		Reverse [][]*string
	}
	if err := json.Unmarshal(vectors.Read(t, "mail/srs/postsrsd-vectors.json"), &v); err != nil {
		t.Fatal(err)
	}
	r, at := rewriter(t, v.Alias, v.Secret), time.Unix(v.Time, 0)
	for _, c := range v.Forward {
		from, err := mail.ParseAddress(*c[0])
		if c[1] == nil {
			if err == nil {
				t.Errorf("%q parsed, want an error", *c[0])
			}
			continue
		}
		if got, err := r.Forward(from, at); err != nil || got.String() != *c[1] {
			t.Errorf("forward %s: %s, %v, want %s", *c[0], got, err, *c[1])
		}
	}
	for _, c := range v.Reverse {
		got, err := r.Reverse(addr(t, *c[0]), at)
		if c[1] == nil {
			if !errors.Is(err, ErrNotSRS) {
				t.Errorf("reverse %s: %s, %v, want ErrNotSRS", *c[0], got, err)
			}
		} else if err != nil || got.String() != *c[1] {
			t.Errorf("reverse %s: %s, %v, want %s", *c[0], got, err, *c[1])
		}
	}
}

// TestRoadOfABounce: over one, two and many forwarders, and back hop by hop to the sender.
func TestRoadOfABounce(t *testing.T) {
	for _, from := range []string{"ann@example.org", "a=b+c@example.org", `"a b"@example.org`,
		"srs0@example.org", "x@[192.0.2.1]", "δ@example.org", "SRS2=x@example.org"} {
		var hops []*Rewriter
		for _, n := range []string{"one", "two", "three", "four"} {
			hops = append(hops, rewriter(t, mail.Domain(n+".example"), "secret "+n))
		}
		path, length := addr(t, from), 0
		for i, hop := range hops {
			var err error
			if path, err = hop.Forward(path, now); err != nil {
				t.Fatalf("%s at hop %d: %v", from, i, err)
			}
			if i == 1 {
				length = len(path.Local)
			}
			if i > 1 && len(path.Local) != length {
				t.Errorf("%s grew at hop %d: %s", from, i, path)
			}
			// What we made must survive the wire.
			if got, err := mail.ParseAddress(path.String()); err != nil || got != path {
				t.Errorf("%s is not an address: %v", path, err)
			}
			back := path
			if i > 0 {
				if back, err = hop.Reverse(back, now); err != nil || back.Domain != "one.example" {
					t.Fatalf("%s back from hop %d: %s, %v", from, i, back, err)
				}
			}
			if back, err = hops[0].Reverse(back, now); err != nil || back != addr(t, from) {
				t.Errorf("%s back from hop %d: %s, %v", from, i, back, err)
			}
		}
	}
}

func TestNotRewritten(t *testing.T) {
	r, err := New(Config{Domain: "mx.example", Secrets: [][]byte{[]byte("12345678")},
		Ours: func(d mail.Domain) bool { return d == "ours.example" }})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []mail.Address{{}, addr(t, "a@ours.example"), addr(t, "a@mx.example"),
		addr(t, "SRS0=abcd=2W=example.org=a@mx.example")} {
		if got, err := r.Forward(a, now); err != nil || got != a {
			t.Errorf("%s became %s, %v", a, got, err)
		}
	}
	if _, err := r.Forward(mail.Address{Local: "postmaster"}, now); err == nil {
		t.Error("rewrote an address without domain")
	}
	long := addr(t, strings.Repeat("x", 240)+"@example.org")
	if got, err := r.Forward(long, now); !errors.Is(err, ErrTooLong) || got != long {
		t.Errorf("%s, %v, want ErrTooLong", got, err)
	}
}

// TestReverseRefuses breaks one thing a row.
func TestReverseRefuses(t *testing.T) {
	r := rewriter(t, "example.com", "tops3cr3t")
	guarded, err := rewriter(t, "example.com", "tops3cr3t").Forward(
		addr(t, "SRS0=vmyz=2W=otherdomain.com=test@first.example"), now)
	if err != nil {
		t.Fatal(err)
	}
	one := guarded.Local
	for _, c := range []struct {
		name, local string
		want        error
	}{
		{"as made", "SRS0=vmyz=2W=otherdomain.com=test", nil},
		{"lower case on the way", "srs0=vmyz=2w=otherdomain.com=test", nil},
		{"upper case on the way", "SRS0=VMYZ=2W=OTHERDOMAIN.COM=TEST", nil},
		{"other separator", "SRS0+vmyz=2W=otherdomain.com=test", nil},
		{"more of the hash, wrong", "SRS0=vmyzA=2W=otherdomain.com=test", ErrBadHash},
		{"less of the hash", "SRS0=vmy=2W=otherdomain.com=test", ErrBadHash},
		{"no hash", "SRS0==2W=otherdomain.com=test", ErrBadHash},
		{"other sender", "SRS0=vmyz=2W=otherdomain.com=tess", ErrBadHash},
		{"other domain", "SRS0=vmyz=2W=otherdomain.org=test", ErrBadHash},
		{"other day", "SRS0=vmyz=2X=otherdomain.com=test", ErrBadHash},
		{"hash longer than there is", "SRS0=" + strings.Repeat("v", 28) + "=2W=a.example=t", ErrBadHash},
		{"no sender", "SRS0=vmyz=2W=otherdomain.com=", ErrNotSRS},
		{"no domain", "SRS0=vmyz=2W", ErrNotSRS},
		{"tag alone", "SRS0=", ErrNotSRS},
		{"tag without separator", "SRS0vmyz=2W=otherdomain.com=test", ErrNotSRS},
		{"another tag", "SRS2=vmyz=2W=otherdomain.com=test", ErrNotSRS},
		{"guarded", one, nil},
		{"guarded, other host", strings.Replace(one, "first", "frist", 1), ErrBadHash},
		{"guarded, other sender", one + "x", ErrBadHash},
		{"guarded without host", "SRS1=abcd==x=y", ErrNotSRS},
		{"guarded without rest", "SRS1=abcd=host=", ErrNotSRS},
		{"guarded, rest without separator", "SRS1=abcd=host=xyz", ErrNotSRS},
	} {
		_, err := r.Reverse(mail.Address{Local: c.local, Domain: "example.com"}, now)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestAge(t *testing.T) {
	r := rewriter(t, "example.com", "tops3cr3t")
	a, err := r.Forward(addr(t, "a@example.org"), now)
	if err != nil {
		t.Fatal(err)
	}
	for days, want := range map[int]error{-2: ErrExpired, -1: nil, 0: nil, 21: nil, 22: ErrExpired,
		1002: ErrExpired} {
		if _, err := r.Reverse(a, now.AddDate(0, 0, days)); !errors.Is(err, want) {
			t.Errorf("after %d days: %v, want %v", days, err, want)
		}
	}
	// The day number wraps every 1024 days; an address must work across that.
	wrap := time.Unix(18*1024*24*60*60-1, 0)
	if a, err = r.Forward(addr(t, "a@example.org"), wrap); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reverse(a, wrap.AddDate(0, 0, 5)); err != nil {
		t.Errorf("across the wrap: %v", err)
	}
}

func TestKeyRotation(t *testing.T) {
	old := rewriter(t, "a.example", "old secret")
	both := rewriter(t, "a.example", "new secret", "old secret")
	fresh := rewriter(t, "a.example", "new secret")
	a, _ := old.Forward(addr(t, "x@example.org"), now)
	if _, err := both.Reverse(a, now); err != nil {
		t.Errorf("old address while both keys are there: %v", err)
	}
	if _, err := fresh.Reverse(a, now); !errors.Is(err, ErrBadHash) {
		t.Errorf("old address without the old key: %v, want ErrBadHash", err)
	}
	b, _ := both.Forward(addr(t, "x@example.org"), now)
	if _, err := fresh.Reverse(b, now); err != nil {
		t.Errorf("address of the first key: %v", err)
	}
}

func TestConfigRefused(t *testing.T) {
	good := func() Config { return Config{Domain: "a.example", Secrets: [][]byte{[]byte("12345678")}} }
	for name, bend := range map[string]func(*Config){
		"no domain":    func(c *Config) { c.Domain = "" },
		"no secret":    func(c *Config) { c.Secrets = nil },
		"short secret": func(c *Config) { c.Secrets = append(c.Secrets, []byte("1234567")) },
		"short hash":   func(c *Config) { c.HashLen = 3 },
		"long hash":    func(c *Config) { c.HashLen = 28 },
		"minimum":      func(c *Config) { c.MinHash = 5 },
		"age":          func(c *Config) { c.MaxAge = time.Hour },
	} {
		cfg := good()
		bend(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(good()); err != nil {
		t.Error(err)
	}
}

// FuzzReverse: whatever comes back as a bounce, only what we made is turned into an address, and
// that is one.
func FuzzReverse(f *testing.F) {
	f.Add("SRS0=vmyz=2W=otherdomain.com=test")
	f.Add("SRS1=abcd=host==x=y=z=w")
	f.Add("srs0+")
	r := rewriter(f, "example.com", "tops3cr3t")
	f.Fuzz(func(t *testing.T, local string) {
		a, err := r.Reverse(mail.Address{Local: local, Domain: "example.com"}, now)
		if err == nil && (a.Local == "" || a.Domain == "") {
			t.Errorf("%q became %+v", local, a)
		}
		// Forwarding keeps what can be undone.
		from := mail.Address{Local: local, Domain: "elsewhere.example"}
		if local == "" {
			return
		}
		to, err := r.Forward(from, now)
		if err != nil {
			return
		}
		if back, err := r.Reverse(to, now); err != nil || !IsRewritten(to) {
			t.Errorf("%q forwarded to %q: back %v, %v", local, to, back, err)
		}
	})
}
