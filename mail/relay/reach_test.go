package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// TestFamilies: only failures in a row count, a refusal is an answer, and IPv4 is judged by itself.
func TestFamilies(t *testing.T) {
	six, four := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")
	now := time.Now()
	silence := errors.New("nobody answers")
	for _, answer := range []error{nil, syscall.ECONNREFUSED, syscall.ECONNRESET} {
		var f families
		for i := range 20 {
			if i%familyFails == familyFails-1 {
				f.learn(six, answer, now)
				continue
			}
			if f.learn(six, silence, now) || f.down(six, now) {
				t.Fatalf("down after %d with answers of %v in between", i, answer)
			}
		}
	}
	var f families
	for i := range familyFails {
		if down := f.learn(six, silence, now); down != (i == familyFails-1) {
			t.Errorf("after %d: %v", i, down)
		}
	}
	if !f.down(six, now) || f.down(four, now) || f.down(six, now.Add(familyRest)) {
		t.Error("not IPv6 alone, or not for a while")
	}
}

// TestMemoryIsBounded: what is remembered of addresses has a limit, and what has expired goes first.
func TestMemoryIsBounded(t *testing.T) {
	m := memory{hosts: make(map[string]hostMemory)}
	now := time.Now()
	at := func(i int) target { return target{path: fmt.Sprint(i)} }
	shun := func(i int, d time.Duration) {
		m.update(at(i), now, func(h *hostMemory) { h.shunUntil = now.Add(d) })
	}
	for i := range maxMemory {
		shun(i, time.Duration(1+i%2)*time.Minute)
	}
	now = now.Add(time.Minute)
	shun(maxMemory, time.Minute)
	if n := len(m.hosts); n != maxMemory/2+1 || m.get(at(1)).shunUntil.IsZero() {
		t.Errorf("%d are remembered", n)
	}
	for i := range 3 * maxMemory {
		shun(i, time.Hour)
	}
	if n := len(m.hosts); n > maxMemory {
		t.Errorf("%d are remembered", n)
	}
}
