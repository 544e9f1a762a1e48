package clock

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestMockFiresWhatIsDue(t *testing.T) {
	start := time.Unix(1e9, 0)
	m := NewMock(start)
	early, _ := m.After(time.Minute)
	late, _ := m.After(time.Hour)
	gone, stop := m.After(time.Minute)
	stop()
	if at, ok := m.Next(); !ok || !at.Equal(start.Add(time.Minute)) {
		t.Errorf("next is %v, %v", at, ok)
	}
	m.Advance(time.Minute)
	select {
	case at := <-early:
		if !at.Equal(start.Add(time.Minute)) {
			t.Errorf("fired with %v", at)
		}
	default:
		t.Error("due and not fired")
	}
	select {
	case <-late:
		t.Error("fired early")
	case <-gone:
		t.Error("fired after it was stopped")
	default:
	}
	m.Set(start) // back
	if at, ok := m.Next(); !ok || !at.Equal(start.Add(time.Hour)) {
		t.Errorf("after going back next is %v, %v", at, ok)
	}
}

func TestAfterNothingFiresAtOnce(t *testing.T) {
	for name, c := range map[string]Clock{"real": Real{}, "mock": NewMock(time.Unix(0, 0))} {
		for _, d := range []time.Duration{0, -time.Second} {
			fired, stop := c.After(d)
			<-fired
			stop()
		}
		if err := Sleep(context.Background(), c, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	m := NewMock(time.Unix(0, 0))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Sleep(ctx, m, time.Hour) }()
	if err := m.Wait(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Sleep: %v", err)
	}
	if _, ok := m.Next(); ok {
		t.Error("the timer was left behind")
	}
}
