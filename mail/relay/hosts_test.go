package relay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
)

// TestDestination: RFC 5321, section 5, and RFC 7505.
func TestDestination(t *testing.T) {
	for _, tt := range []struct {
		name string
		zone func(w *world)
		to   string // default u@d.example
		want string // of brief
		at   string // the address that took it
	}{
		{name: "best first", zone: func(w *world) { w.mx("d.example", "20 mx2.example", "10 mx1.example", "30 mx3.example") },
			want: "delivered 2.0.0", at: "192.0.2.1"},
		{name: "implicit MX", zone: func(w *world) { w.zone.Set("d.example", "A 192.0.2.2") },
			want: "delivered 2.0.0", at: "192.0.2.2"},
		{name: "null MX", zone: func(w *world) { w.zone.Set("d.example", "MX 0 .", "A 192.0.2.1") },
			want: "failed 5.1.10 no such domain"},
		{name: "null MX among others is none", zone: func(w *world) { w.mx("d.example", "0 .", "10 mx1.example") },
			want: "delivered 2.0.0", at: "192.0.2.1"},
		{name: "no such domain", zone: func(w *world) {}, want: "failed 5.1.2 no such domain"},
		{name: "neither MX nor address", zone: func(w *world) { w.zone.Set("d.example", "TXT hello") },
			want: "failed 5.4.4 no such domain"},
		{name: "MX without address", zone: func(w *world) { w.mx("d.example", "10 nowhere.example") },
			want: "failed 5.4.4 no such domain"},
		{name: "MX without address, and one with", zone: func(w *world) { w.mx("d.example", "10 nowhere.example", "20 mx1.example") },
			want: "delivered 2.0.0", at: "192.0.2.1"},
		{name: "MX that is an address", zone: func(w *world) { w.mx("d.example", "10 192.0.2.2") },
			want: "delivered 2.0.0", at: "192.0.2.2"},
		{name: "MX lookup fails", zone: func(w *world) {
			w.mx("d.example", "10 mx1.example")
			w.zone.Fail("d.example", dns.ServFail)
		}, want: "deferred 4.4.3 unreachable"},
		{name: "address lookup fails", zone: func(w *world) {
			w.mx("d.example", "10 mx1.example")
			w.zone.Fail("mx1.example", dns.ServFail)
		}, want: "deferred 4.4.3 unreachable"},
		{name: "address of the best fails", zone: func(w *world) {
			w.mx("d.example", "10 mx1.example", "20 mx2.example")
			w.zone.Fail("mx1.example", dns.Timeout)
		}, want: "delivered 2.0.0", at: "192.0.2.2"},
		{name: "alias", zone: func(w *world) {
			w.zone.Set("d.example", "CNAME real.example")
			w.mx("real.example", "10 mx1.example")
		}, want: "delivered 2.0.0", at: "192.0.2.1"},
		{name: "MX is an alias", zone: func(w *world) {
			w.mx("d.example", "10 alias.example")
			w.zone.Set("alias.example", "CNAME mx2.example")
		}, want: "delivered 2.0.0", at: "192.0.2.2"},
		{name: "literal", zone: func(w *world) {}, to: "u@[192.0.2.1]", want: "delivered 2.0.0", at: "192.0.2.1"},
		{name: "IPv6 literal", zone: func(w *world) {}, to: "u@[IPv6:2001:db8::6]", want: "delivered 2.0.0", at: "2001:db8::6"},
		{name: "MX is ourselves", zone: func(w *world) { w.mx("d.example", "10 us.example") },
			want: "failed 5.4.6 mail loop"},
		{name: "we are the backup", zone: func(w *world) {
			w.mx("d.example", "10 mx1.example", "20 us.example", "20 mx2.example", "30 mx3.example")
		}, want: "delivered 2.0.0", at: "192.0.2.1"},
		{name: "we are the backup, the best is down", zone: func(w *world) {
			w.mx("d.example", "10 down.example", "20 US.example", "20 mx2.example", "30 mx3.example")
		}, want: "deferred 4.4.1 unreachable"},
		{name: "we under another name", zone: func(w *world) { w.mx("d.example", "10 other.example", "20 mx2.example") },
			want: "failed 5.4.6 mail loop"},
		{name: "backup under another name", zone: func(w *world) {
			w.mx("d.example", "10 down.example", "20 other.example", "30 mx2.example")
		}, want: "deferred 4.4.1 unreachable"},
		{name: "backup, address of the best fails", zone: func(w *world) {
			w.mx("d.example", "10 mx1.example", "20 other.example")
			w.zone.Fail("mx1.example", dns.ServFail)
		}, want: "deferred 4.4.3 unreachable"},
		{name: "one that greets with our name", zone: func(w *world) { w.mx("d.example", "10 mirror.example", "20 mx2.example") },
			want: "failed 5.4.6 mail loop"},
		{name: "unspecified address", zone: func(w *world) {
			w.zone.Set("d.example", "A 0.0.0.0", "AAAA ::")
		}, want: "failed 5.4.4 no such domain"},
		{name: "IPv6 alone", zone: func(w *world) { w.mx("d.example", "10 six.example") },
			want: "delivered 2.0.0", at: "2001:db8::6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(c *Config) { c.Self = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.99:25")} }, func(w *world) {
				remotes := map[string]*remote{
					"192.0.2.1":   w.remote("mx1.example", "192.0.2.1", nil),
					"192.0.2.2":   w.remote("mx2.example", "192.0.2.2", nil),
					"192.0.2.3":   w.remote("mx3.example", "192.0.2.3", nil),
					"2001:db8::6": w.remote("six.example", "2001:db8::6", nil),
					"192.0.2.98":  w.remote("mirror.example", "192.0.2.98", answers{"greeting": "220 US.example ESMTP"}),
				}
				w.zone.Set("other.example", "A 192.0.2.99")
				w.zone.Set("down.example", "A 192.0.2.97")
				tt.zone(w)
				to := tt.to
				if to == "" {
					to = "u@d.example"
				}
				got := w.deliver(to)
				w.expect(got, tt.want)
				for addr, r := range remotes {
					if n := len(r.got()); (n == 1) != (addr == tt.at) {
						t.Errorf("%s got %d messages", addr, n)
					}
				}
				if tt.at != "" && (got[0].Peer == nil || got[0].Peer.Addr != tt.at || got[0].Reply != "250 2.0.0 taken") {
					t.Errorf("result %+v, peer %+v", got[0], got[0].Peer)
				}
			})
		})
	}
}

// TestBackupWaits: mail that we keep for a domain waits for its own servers, however often these are found
// away, and goes to them when they are back.
func TestBackupWaits(t *testing.T) {
	for _, self := range []string{"us.example", "other.example"} { // by our name, by our address
		bubble(t, func(c *Config) {
			c.Self = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.99:25")}
		}, func(w *world) {
			w.zone.Set("other.example", "A 192.0.2.99")
			best := netip.MustParseAddr("192.0.2.1")
			r := w.remote("mx1.example", "192.0.2.1", nil)
			w.block[best] = errBlackHole
			w.mx("d.example", "10 mx1.example", "20 "+self)
			for range 5 {
				w.expect(w.deliver("u@d.example"), "deferred 4.4.1 unreachable")
				time.Sleep(5 * time.Minute)
			}
			delete(w.block, best)
			w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
			if len(r.got()) != 1 {
				t.Error("not at the best server")
			}
		})
	}
}

// TestEqualHostsShare: hosts of one preference take turns by chance (RFC 5321, section 5.1: "MUST randomize").
func TestEqualHostsShare(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxIdle = -1 }, func(w *world) {
		a, b := w.remote("a.example", "192.0.2.1", nil), w.remote("b.example", "192.0.2.2", nil)
		w.mx("d.example", "10 a.example", "10 b.example")
		for range 60 {
			w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		}
		if n, m := len(a.got()), len(b.got()); n < 10 || m < 10 {
			t.Errorf("%d and %d of 60", n, m)
		}
	})
}

// TestAddressesAlternate: versions of IP take turns, hosts too, and there is a limit.
func TestAddressesAlternate(t *testing.T) {
	bubble(t, nil, func(w *world) {
		for i := range 4 {
			host := fmt.Sprintf("mx%d.example", i)
			w.zone.Set(host, fmt.Sprintf("A 192.0.2.%d", i), fmt.Sprintf("A 192.0.2.1%d", i),
				fmt.Sprintf("AAAA 2001:db8::%d", i), fmt.Sprintf("AAAA 2001:db8::1%d", i))
		}
		w.mx("d.example", "10 mx0.example", "10 mx1.example", "20 mx2.example", "30 mx3.example")
		w.expect(w.deliver("u@d.example"), "deferred 4.4.1 unreachable")
		got := w.dialled()
		if len(got) != 5 {
			t.Fatalf("dialled %v, want 5 addresses", got)
		}
		for i, addr := range got {
			if six := netip.MustParseAddrPort(addr).Addr().Is6(); six != (i%2 == 0) {
				t.Errorf("dialled %v: versions do not alternate", got)
			}
			if strings.HasSuffix(addr, "2]:25") || strings.HasSuffix(addr, "3]:25") {
				t.Errorf("dialled %v: a worse host before all addresses of the better", got)
			}
		}
		if !sameSet(got[:4], []string{"[2001:db8::]:25", "[2001:db8::1]:25", "192.0.2.0:25", "192.0.2.1:25"}) {
			t.Errorf("dialled %v: second addresses before the first of each host", got)
		}
	})
}

// TestManyRecords: a domain may have more of them than anybody needs; what we look up is bounded.
func TestManyRecords(t *testing.T) {
	bubble(t, nil, func(w *world) {
		var mx []string
		for i := range 200 {
			mx = append(mx, fmt.Sprintf("10 h%d.example", i))
			w.zone.Set(fmt.Sprintf("h%d.example", i), "TXT no address")
		}
		w.mx("d.example", mx...)
		w.expect(w.deliver("u@d.example"), "failed 5.4.4 no such domain")
		if n := w.zone.Asked("", "A"); n > maxHosts {
			t.Errorf("%d lookups", n)
		}
	})
}

// TestIPv6LeadsNowhere: mail for a host with both versions does not wait for a time-out each time, as in
// github.com/mjl-/mox issue 36.
func TestIPv6LeadsNowhere(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		notice int // messages until it is noticed
	}{
		{"no route", syscall.ENETUNREACH, 1},
		{"black hole", errBlackHole, familyFails},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(c *Config) { c.MaxIdle = -1 }, func(w *world) {
				for i := range 20 {
					six := fmt.Sprintf("2001:db8::%x", i+1)
					w.remote(fmt.Sprintf("mx%d.example", i), fmt.Sprintf("192.0.2.%d", i+1), nil)
					if err := w.zone.Add(".", fmt.Sprintf("mx%d.example. AAAA %s\n", i, six)); err != nil {
						t.Fatal(err)
					}
					w.block[netip.MustParseAddr(six)] = tt.err
					w.mx(fmt.Sprintf("d%d.example", i), fmt.Sprintf("10 mx%d.example", i))
				}
				for i := range 10 {
					w.expect(w.deliver(fmt.Sprintf("u@d%d.example", i)), "delivered 2.0.0")
					if six := w.dialled()[0][0] == '['; six != (i < tt.notice) {
						t.Errorf("message %d: IPv6 tried: %v", i, six)
					}
				}
				if !strings.Contains(w.logged(), "leads nowhere") {
					t.Error("the operator was not told")
				}
				// A host that has nothing else is tried all the same.
				w.zone.Set("only6.example", "AAAA 2001:db8::1")
				w.expect(w.deliver("u@only6.example"), "deferred 4.4.1 unreachable")
				w.dialled()
				time.Sleep(familyRest)
				w.deliver("u@d15.example")
				if !slices.Contains(w.dialled(), "[2001:db8::10]:25") {
					t.Error("IPv6 is never tried again")
				}
			})
		})
	}
}

// TestDeadHostIsShunned: a host that does not answer costs its time-out once, not with each message; it is
// still the one that gets the mail when nobody else does.
func TestDeadHostIsShunned(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxIdle = -1 }, func(w *world) {
		dead := netip.MustParseAddr("192.0.2.1")
		first := w.remote("mx1.example", "192.0.2.1", nil)
		w.remote("mx2.example", "192.0.2.2", nil)
		w.mx("d.example", "10 mx1.example", "20 mx2.example")
		w.block[dead] = errBlackHole
		for i := range 5 {
			begun := time.Now()
			w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
			if slow := time.Since(begun) > 20*time.Second; slow != (i == 0) {
				t.Errorf("message %d took %v", i, time.Since(begun))
			}
		}
		w.net.Kill(netip.MustParseAddr("192.0.2.2"))
		delete(w.block, dead)
		w.expect(w.deliver("u@d.example"), "delivered 2.0.0")
		if n := len(first.got()); n != 1 {
			t.Errorf("the first host got %d messages after it came back", n)
		}
	})
}
