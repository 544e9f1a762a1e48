package dns

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const exampleZone = `
$TTL 60
@           SOA   ns hostmaster 1 3600 600 86400 30
            MX    20 mx2
            MX    10 MX1.Example.ORG.
            TXT   "v=spf1 " "mx -all"
            TXT   "with \"quotes\" and \\ and \195\164"
mx1         A     192.0.2.1
            AAAA  2001:db8::1
mx2         A     192.0.2.2
_25._tcp.mx1 TLSA 3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
alias       CNAME chain
chain       CNAME mx1
dangling    CNAME nowhere
loop        CNAME loop
out         CNAME www.example.net.
null        MX    0 .
*.wild      A     192.0.2.9
deep.wild   TXT   "here"
a.b.ent     A     192.0.2.7
1.2.0.192.in-addr.arpa. PTR MX1
            PTR   bad\010name.example.org.
www.example.net. A 198.51.100.1
`

func testZone(t testing.TB) *Zone {
	t.Helper()
	z, err := ParseZone("example.org", exampleZone)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// resolvers runs a test against the Zone and against a Client that asks a Server of it: one
// behaviour.
func resolvers(t *testing.T, test func(t *testing.T, z *Zone, r Resolver)) {
	t.Run("zone", func(t *testing.T) {
		z := testZone(t)
		test(t, z, z)
	})
	t.Run("client", func(t *testing.T) {
		z := testZone(t)
		test(t, z, serveZone(t, z, Config{}))
	})
}

func TestResolverMX(t *testing.T) {
	resolvers(t, func(t *testing.T, _ *Zone, r Resolver) {
		mxs, auth, err := r.MX(t.Context(), "example.ORG.")
		want := []MX{{10, "mx1.example.org"}, {20, "mx2.example.org"}}
		if err != nil || auth || !slices.Equal(mxs, want) {
			t.Errorf("MX = %v, %v, %v; want %v", mxs, auth, err, want)
		}
		if mxs, _, err := r.MX(t.Context(), "null.example.org"); err != nil || mxs[0].Host != "" {
			t.Errorf("null MX (RFC 7505) = %v, %v", mxs, err)
		}
	})
}

func TestResolverAddrs(t *testing.T) {
	rows := []struct {
		name, want string
		err        error
	}{
		{"mx1.example.org", "2001:db8::1 192.0.2.1", nil},
		{"alias.example.org", "2001:db8::1 192.0.2.1", nil},
		{"out.example.org", "198.51.100.1", nil},
		{"x.wild.example.org", "192.0.2.9", nil},
		{"y.x.wild.example.org", "192.0.2.9", nil},
		{"deep.wild.example.org", "", ErrNotFound},   // exists: the wildcard does not count
		{"x.deep.wild.example.org", "", ErrNXDomain}, // RFC 4592, section 2.2.1: closest encloser
		{"b.ent.example.org", "", ErrNotFound},       // empty non-terminal (RFC 8020)
		{"ent.example.org", "", ErrNotFound},
		{"none.example.org", "", ErrNXDomain},
		{"dangling.example.org", "", ErrNXDomain},
		{"loop.example.org", "", ErrTemporary},
		{strings.Repeat("a", 64) + ".example.org", "", ErrNXDomain},
		{"a..example.org", "", ErrNXDomain},
		{strings.Repeat("a.", 130) + "org", "", ErrNXDomain},
		{`back\slash sp@ce."q;.example.org`, "", ErrNXDomain},
	}
	resolvers(t, func(t *testing.T, _ *Zone, r Resolver) {
		for _, row := range rows {
			addrs, _, err := r.Addrs(t.Context(), row.name)
			var got []string
			for _, a := range addrs {
				got = append(got, a.String())
			}
			if s := strings.Join(got, " "); s != row.want || !errors.Is(err, row.err) {
				t.Errorf("%s: %q, %v; want %q, %v", row.name, s, err, row.want, row.err)
			}
			if row.err == ErrNotFound && errors.Is(err, ErrNXDomain) {
				t.Errorf("%s: NXDOMAIN, but the name exists", row.name)
			}
		}
	})
}

func TestResolverOtherTypes(t *testing.T) {
	resolvers(t, func(t *testing.T, _ *Zone, r Resolver) {
		txts, _, err := r.TXT(t.Context(), "example.org")
		want := []string{"v=spf1 mx -all", `with "quotes" and \ and ä`}
		if err != nil || !slices.Equal(txts, want) {
			t.Errorf("TXT = %q, %v; want %q", txts, err, want)
		}
		tlsas, _, err := r.TLSA(t.Context(), "_25._tcp.mx1.example.org")
		if err != nil || len(tlsas) != 1 || tlsas[0].Usage != 3 || len(tlsas[0].Data) != 32 {
			t.Errorf("TLSA = %v, %v", tlsas, err)
		}
		names, _, err := r.PTR(t.Context(), netip.MustParseAddr("::ffff:192.0.2.1"))
		if err != nil || !slices.Equal(names, []string{"mx1.example.org"}) {
			t.Errorf("PTR = %q, %v; want the one name that is a host's", names, err)
		}
		if _, _, err := r.PTR(t.Context(), netip.MustParseAddr("2001:db8::2")); !errors.Is(err, ErrNXDomain) {
			t.Errorf("PTR of an address without = %v", err)
		}
		end, _, err := r.CNAME(t.Context(), "alias.example.org")
		if end != "mx1.example.org" || err != nil {
			t.Errorf("CNAME = %q, %v", end, err)
		}
		end, _, err = r.CNAME(t.Context(), "example.org")
		if end != "example.org" || err != nil {
			t.Errorf("CNAME of a name that is none = %q, %v", end, err)
		}
		if _, _, err := r.CNAME(t.Context(), "dangling.example.org"); !errors.Is(err, ErrNXDomain) {
			t.Errorf("CNAME to nowhere = %v", err)
		}
	})
}

func TestAuthenticated(t *testing.T) {
	rows := []struct {
		name string
		want bool
	}{
		{"mx1.example.org", true},
		{"none.example.org", true}, // the lack of a record is authenticated too
		{"out.example.org", false}, // one link of the chain is not
		{"x.wild.example.org", false},
		{"www.example.net", false},
	}
	resolvers(t, func(t *testing.T, z *Zone, r Resolver) {
		z.Sign("example.org", true)
		z.Sign("wild.example.org", false)
		for _, row := range rows {
			if _, auth, err := r.Addrs(t.Context(), row.name); auth != row.want {
				t.Errorf("%s: authenticated %v, want %v (%v)", row.name, auth, row.want, err)
			}
		}
	})
}

func TestFailures(t *testing.T) {
	resolvers(t, func(t *testing.T, z *Zone, r Resolver) {
		z.Fail("mx1.example.org", ServFail)
		z.Fail("example.org", ServFail, "MX")
		z.Fail("mx2.example.org", NXDomain)
		if _, _, err := r.Addrs(t.Context(), "alias.example.org"); !errors.Is(err, ErrTemporary) {
			t.Errorf("alias of a name that fails: %v", err)
		}
		if _, _, err := r.MX(t.Context(), "example.org"); !errors.Is(err, ErrTemporary) {
			t.Errorf("MX that fails: %v", err)
		}
		if _, _, err := r.TXT(t.Context(), "example.org"); err != nil {
			t.Errorf("TXT beside an MX that fails: %v", err)
		}
		if _, _, err := r.Addrs(t.Context(), "mx2.example.org"); !errors.Is(err, ErrNXDomain) {
			t.Errorf("name made absent: %v", err)
		}
		z.Fail("mx1.example.org", Works)
		if _, _, err := r.Addrs(t.Context(), "alias.example.org"); err != nil {
			t.Errorf("after the failure was taken back: %v", err)
		}
	})
}

// TestHalfAnswer: IPv4 stands though the server chokes on AAAA, as some do; DANE must not build
// on it.
func TestHalfAnswer(t *testing.T) {
	resolvers(t, func(t *testing.T, z *Zone, r Resolver) {
		z.Sign(".", true)
		z.Fail("mx1.example.org", ServFail, "AAAA")
		addrs, auth, err := r.Addrs(t.Context(), "mx1.example.org")
		if len(addrs) != 1 || auth || err != nil {
			t.Errorf("Addrs = %v, %v, %v; want one address, not authenticated", addrs, auth, err)
		}
		z.Fail("null.example.org", ServFail, "AAAA")
		if _, _, err := r.Addrs(t.Context(), "null.example.org"); !errors.Is(err, ErrTemporary) {
			t.Errorf("no A, AAAA fails: %v; want temporary", err)
		}
	})
}

func TestZoneSet(t *testing.T) {
	long := strings.Repeat("0123456789", 60)
	z := MustZone(map[string][]string{
		"example.com":               {"MX 10 mx.example.com", "TXT v=spf1 a; \"x\" -all"},
		"k._domainkey.example.com.": {"TXT " + long},
	})
	ctx := t.Context()
	if txts, _, err := z.TXT(ctx, "example.com"); err != nil || txts[0] != `v=spf1 a; "x" -all` {
		t.Errorf("TXT = %q, %v", txts, err)
	}
	if txts, _, err := z.TXT(ctx, "k._domainkey.example.com"); err != nil || txts[0] != long {
		t.Errorf("long TXT = %q, %v", txts, err)
	}
	if _, _, err := z.TXT(ctx, "_domainkey.example.com"); errors.Is(err, ErrNXDomain) {
		t.Errorf("name above another: %v", err)
	}
	if err := z.Set("k._domainkey.example.com"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := z.TXT(ctx, "_domainkey.example.com"); !errors.Is(err, ErrNXDomain) {
		t.Errorf("name above one that was removed: %v", err)
	}
	for _, bad := range []string{"", "MX", "MX ten mx", "A 300.0.0.1", "NOTYPE x", "TLSA 3 1 1 xyz"} {
		if err := z.Set("bad.example.com", bad); err == nil {
			t.Errorf("Set took %q", bad)
		}
	}
	if n := z.Asked("example.com", "TXT"); n != 1 {
		t.Errorf("asked %d times, want 1", n)
	}
}

func TestParseZoneRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"include":   "$INCLUDE /etc/passwd\n",
		"syntax":    "@ MX mx\n",
		"too many":  "$GENERATE 1-65000 a$ A 192.0.2.1\n$GENERATE 1-65000 b$ A 192.0.2.1\n",
		"too large": strings.Repeat(";", maxZoneText+1),
	} {
		if _, err := ParseZone("example.org", text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestZoneCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := testZone(t).MX(ctx, "example.org"); !errors.Is(err, ErrTemporary) ||
		!errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

func FuzzZone(f *testing.F) {
	f.Add(exampleZone, "alias.example.org")
	f.Add("$GENERATE 1-9 a$ A 192.0.2.$\n* MX 0 .\n", "*.x")
	f.Add("@ TXT \\300 \"\\\"\n", `\300`)
	f.Fuzz(func(t *testing.T, text, name string) {
		z, err := ParseZone("example.org", text)
		if err != nil {
			return
		}
		ctx := t.Context()
		for _, ask := range []func() error{
			func() error { _, _, err := z.MX(ctx, name); return err },
			func() error { _, _, err := z.TXT(ctx, name); return err },
			func() error { _, _, err := z.Addrs(ctx, name); return err },
			func() error { _, _, err := z.CNAME(ctx, name); return err },
		} {
			if err := ask(); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrTemporary) {
				t.Errorf("error of no kind: %v", err)
			}
		}
	})
}
