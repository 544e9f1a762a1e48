package intake

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail/smtp"
)

func TestMeter(t *testing.T) {
	m := newMeter[string](Rate{Count: 3, Per: time.Minute})
	now := time.Unix(1e9, 0)
	for i := range 3 {
		if wait := m.take("a", 1, now); wait != 0 {
			t.Fatalf("number %d has to wait %v", i, wait)
		}
	}
	if wait := m.take("a", 1, now); wait != 20*time.Second {
		t.Errorf("the fourth has to wait %v, want 20s", wait)
	}
	if wait := m.take("b", 1, now); wait != 0 {
		t.Errorf("another sender has to wait %v", wait)
	}
	if wait := m.take("a", 1, now.Add(20*time.Second)); wait != 0 {
		t.Errorf("20 seconds later: %v", wait)
	}
	if wait := m.take("a", 1<<62, now); wait <= 0 {
		t.Error("more than will ever fit was taken")
	}
	if wait := newMeter[string](Rate{}).take("a", 1e9, now); wait != 0 {
		t.Errorf("no limit: %v", wait)
	}
}

func TestMeterIsBounded(t *testing.T) {
	m := newMeter[int](Rate{Count: 1, Per: time.Hour})
	now := time.Unix(1e9, 0)
	for i := range 2*maxMetered + 10 {
		m.take(i, 1, now)
	}
	if n := len(m.paid); n > maxMetered {
		t.Errorf("%d senders are remembered", n)
	}
}

func TestAdmit(t *testing.T) {
	now := time.Unix(1e9, 0)
	friend := netip.MustParseAddr("10.0.0.1")
	l := newLimiter(Limits{Connections: 5, ConnectionsAddress: 1, ConnectionsNetwork: 2,
		ConnectRate: Rate{4, time.Minute}}, func(ip netip.Addr) bool { return ip == friend },
		func() time.Time { return now })
	try := func(s string) (func(), error) {
		return l.admit(context.Background(), netip.AddrPortFrom(netip.MustParseAddr(s), 1))
	}
	leave, err := try("192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ip   string
		want bool
	}{
		{"192.0.2.1", false},        // one for each address
		{"::ffff:192.0.2.1", false}, // the same address
		{"192.0.2.2", true},
		{"192.0.2.3", false}, // two for each network
		{"2001:db8::1", true},
		{"10.0.0.1", true}, // exempt
		{"10.0.0.1", true},
		{"198.51.100.1", false}, // five in all
	} {
		_, err := try(c.ip)
		if (err == nil) != c.want {
			t.Errorf("%s: %v", c.ip, err)
		}
		var r *smtp.Reply
		if err != nil && (!errors.As(err, &r) || r.Code != 421) {
			t.Errorf("%s: refused with %v", c.ip, err)
		}
	}
	leave()
	if _, err := try("192.0.2.1"); err != nil {
		t.Errorf("after one has left: %v", err)
	}
	for range 4 {
		try("192.0.2.9")
	}
	if _, err := try("192.0.2.9"); err == nil || err.Error() != "421 4.7.0 192.0.2.9 connects too often, try again in 15 seconds" {
		t.Errorf("the fifth in a minute: %v", err)
	}
}
