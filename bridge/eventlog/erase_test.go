package eventlog

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/mail"
)

func TestErase(t *testing.T) {
	b := newBench(t)
	b.Add(events(0, 6)...)
	before := b.Sign()
	salt, err := b.log.Event(1)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := b.log.Erase(1, OnRequest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.log.Event(1); err != nil {
		t.Errorf("erased before it was recorded: %v", err)
	}
	b.Add(ev)
	if len(b.log.erasing) != 0 {
		t.Error("erasure that was done is still waited for")
	}
	for range 2 {
		_, err := b.log.Event(1)
		if !errors.Is(err, ErrErased) || !strings.Contains(err.Error(), "entry 6") {
			t.Errorf("event: %v", err)
		}
		if _, err := b.log.Erase(1, OnRequest); !errors.Is(err, ErrErased) {
			t.Errorf("erased twice: %v", err)
		}
		if found, err := b.log.Find(event(1).ID); err != nil || !slices.Equal(found, []uint64{2}) {
			t.Errorf("events of the message: %d, %v", found, err)
		}
		b.Reopen()
	}
	// Neither salt nor event nor queue id is left anywhere in the store.
	id := appendKey(nil, spaceMessage, uint64(event(1).ID), 1)
	for k, v := range b.store {
		if strings.Contains(k, string(id)) || bytes.Contains(v, salt.Salt[:]) ||
			bytes.Contains(v, []byte(event(1).MessageID)) {
			t.Errorf("%q still has something of the event", k)
		}
	}
	// The entry keeps its place and its proof.
	proofs, err := b.log.Prove(1)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := b.log.Entry(1)
	if _, err := proofs[0].Verify(tlog.LeafHash(text), b.log.Verifier()); err != nil {
		t.Error(err)
	}
	proof, err := b.log.ProveConsistency(before.Size, 7)
	if err != nil || tlog.VerifyConsistency(before.Size, before.Root, 7, b.root(7), proof) != nil {
		t.Errorf("log is not the continuation: %v", err)
	}
	if a := b.Audit(); a.Erased != 1 {
		t.Errorf("audit found %d erasures", a.Erased)
	}
	if why := b.events[6].Note; why != "index 1 reason request" {
		t.Errorf("tombstone says %q", why)
	}
}

func TestEraseRefuses(t *testing.T) {
	b := newBench(t)
	digest := mail.Event{Kind: mail.Digest, Time: b.clock.Now(), Note: "12 log-ins failed"}
	b.Add(event(0), digest)
	if _, err := b.log.Erase(0, "because"); err == nil {
		t.Error("unknown reason accepted")
	}
	if _, err := b.log.Erase(1, OnRequest); err == nil {
		t.Error("digest erased")
	}
	ev, err := b.log.Erase(0, RetentionEnded)
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.log.Erase(0, OnOrder)
	if err != nil {
		t.Fatal(err)
	}
	b.Add(ev)
	b.Add(again) // recorded twice: only a second entry
	if _, err := b.log.Erase(2, OnRequest); err == nil {
		t.Error("tombstone erased")
	}
	b.Audit()
}

// TestForgedErasure records an Erasure that Erase did not make: nothing is erased, and the audit
// objects.
func TestForgedErasure(t *testing.T) {
	for _, note := range []string{
		"index 0 reason request", "index 00 reason request", "index 0 reason x", "",
	} {
		b := newBench(t)
		b.Add(event(0))
		b.Add(mail.Event{Kind: mail.Erasure, Time: b.clock.Now(), Note: note})
		if _, err := b.log.Event(0); err != nil {
			t.Errorf("note %q: %v", note, err)
		}
		a, err := b.log.Audit(context.Background(), nil)
		if err != nil || len(a.Problems) != 1 {
			t.Errorf("note %q: audit %+v, %v", note, a, err)
		}
	}
}

func TestLegalHold(t *testing.T) {
	b := newBench(t)
	b.Add(events(0, 3)...)
	id := event(1).ID
	if _, err := b.log.Hold(id, " "); err == nil {
		t.Error("hold without a note")
	}
	if _, err := b.log.Hold(999, "case 7"); !errors.Is(err, ErrNotFound) {
		t.Errorf("hold of an unknown message: %v", err)
	}
	if _, err := b.log.Release(id, "case 7"); err == nil {
		t.Error("released what is not held")
	}
	hold, err := b.log.Hold(id, "case 7")
	if err != nil {
		t.Fatal(err)
	}
	refused := func(when string) {
		t.Helper()
		for _, index := range []uint64{1, 2} {
			if _, err := b.log.Erase(index, OnRequest); !errors.Is(err, ErrHeld) {
				t.Errorf("%s: erasure of %d: %v", when, index, err)
			}
		}
	}
	refused("before it is recorded")
	b.Add(hold)
	if found, err := b.log.Find(id); err != nil || !slices.Equal(found, []uint64{1, 2}) {
		t.Errorf("events of the message: %d, %v; the hold is none of them", found, err)
	}
	refused("once recorded")
	b.Reopen()
	refused("after a restart")
	if a := b.Audit(); a.Held != 1 {
		t.Errorf("audit found %d holds", a.Held)
	}
	if _, err := b.log.Erase(3, OnRequest); err == nil {
		t.Error("hold itself erased")
	}
	if _, err := b.log.Erase(0, OnRequest); err != nil {
		t.Errorf("another message: %v", err)
	}
	release, err := b.log.Release(id, "case 7 closed")
	if err != nil {
		t.Fatal(err)
	}
	refused("before the release is recorded")
	b.Add(release)
	for range 2 {
		if _, err := b.log.Erase(1, OnRequest); err != nil || b.log.Held(id) {
			t.Errorf("after the release: %v", err)
		}
		b.Reopen()
	}
	b.CheckLog()
}

func TestAuditFindsEverything(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(b *bench)
		want string
	}{
		{"entry of another event", func(b *bench) {
			b.store[string(entryKey(5))] = b.store[string(entryKey(6))]
		}, "tile/0/000 is not the tile of its entries"},
		{"entry damaged", func(b *bench) { b.store[string(entryKey(5))][3] ^= 1 }, "entry 5: "},
		{"entry behind the last tile", func(b *bench) {
			b.store[string(entryKey(599))] = b.store[string(entryKey(598))]
		}, "that of the log"},
		{"entry lost", func(b *bench) { delete(b.store, string(entryKey(7))) },
			"entry 7 is missing"},
		{"last entry lost", func(b *bench) { delete(b.store, string(entryKey(599))) },
			"has 599 entries"},
		{"tile changed", func(b *bench) { b.store[string(tileKey(0, 1))][9] ^= 1 },
			"tile/0/001 is not"},
		{"tile lost", func(b *bench) { delete(b.store, string(tileKey(0, 1))) },
			"tile/0/001: not found"},
		{"salt changed", func(b *bench) { b.store[string(privateKey(8))][0] ^= 1 },
			"half of entry 8 is not"},
		{"event changed", func(b *bench) { b.store[string(privateKey(8))][99] ^= 1 },
			"half of entry 8 is not"},
		{"event lost", func(b *bench) { delete(b.store, string(privateKey(8))) },
			"entry 8: not found"},
		{"event cut", func(b *bench) { b.store[string(privateKey(8))] = make([]byte, 31) },
			"31 octets"},
		{"erased without a word", func(b *bench) {
			b.store[string(privateKey(8))] = []byte{0, 0, 0, 0, 0, 0, 0, 9}
		}, "entry 9 is not its erasure"},
		{"erased by nothing", func(b *bench) {
			b.store[string(privateKey(8))] = []byte{0, 0, 0, 0, 0, 0, 9, 9}
		}, "but of the erasure"},
		{"not listed", func(b *bench) {
			delete(b.store, string(messageKey(event(8).ID, 8)))
		}, "entry 8 is not listed"},
		{"signed another tree", func(b *bench) { b.log.signed.Root[0] ^= 1 },
			"the checkpoint of size 600"},
		{"signature changed", func(b *bench) { b.log.signed.text[120] ^= 1 }, "last signed"},
		{"signed a greater tree", func(b *bench) { b.log.signed.Size = 601 }, "changed in memory"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			b.Add(events(0, 600)...)
			b.Sign()
			b.log.signed.text = bytes.Clone(b.log.signed.text)
			row.do(b)
			a, err := b.log.Audit(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(a.Problems, func(p string) bool { return strings.Contains(p, row.want) }) {
				t.Errorf("problems %q, want one with %q", a.Problems, row.want)
			}
		})
	}
}

func TestAuditStops(t *testing.T) {
	b := newBench(t)
	b.Add(events(0, 600)...)
	var told []uint64
	tell := func(done, size uint64) { told = append(told, done) }
	if _, err := b.log.Audit(context.Background(), tell); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(told, []uint64{256, 512, 600}) {
		t.Errorf("progress %d", told)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	cancel()
	if _, err := b.log.Audit(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled audit: %v", err)
	}
	for i := range uint64(600) {
		b.store[string(privateKey(i))][0] ^= 1
	}
	if a, err := b.log.Audit(context.Background(), nil); err != nil || len(a.Problems) > maxProblems+2 {
		t.Errorf("%d problems, %v", len(a.Problems), err)
	}
}
