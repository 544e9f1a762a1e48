package queuetest

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// TestJournal tests a Journal. open opens the journal that a section holds, or begins one; it is
// called again for the same section to see what is left after the process ended.
func TestJournal(t *testing.T, open func(t *testing.T, section queue.Section) queue.Journal) {
	tests := []struct {
		name string
		test func(t *testing.T, j *journal)
	}{
		{"Indexes", testIndexes},
		{"EmptyGroup", testEmptyGroup},
		{"Restart", testJournalRestart},
		{"GroupThatWasLost", testLostGroup},
		{"EventsAreTheCallers", testEventsUntouched},
		{"ManyGroups", testManyGroups},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := &journal{T: t, store: queue.NewMemory(), opener: open}
			j.open()
			tt.test(t, j)
		})
	}
}

// journal is a Journal under test, with the store that it writes to.
type journal struct {
	*testing.T
	store  queue.Store
	opener func(t *testing.T, section queue.Section) queue.Journal
	queue.Journal
	first uint64 // the index of the first event that a test appends; a journal may begin with its own
}

func (j *journal) open() {
	j.Helper()
	j.Journal = j.opener(j.T, queue.JournalSection(j.store))
	if j.Journal == nil {
		j.Fatal("no journal")
	}
}

// entered is a group between Append and Committed.
type entered struct {
	indexes []uint64
	writes  []queue.Write
}

func (j *journal) append(events ...mail.Event) entered {
	j.Helper()
	indexes, writes, err := j.Append(events)
	if err != nil {
		j.Fatalf("append: %v", err)
	}
	if len(indexes) != len(events) {
		j.Fatalf("%d indexes for %d events", len(indexes), len(events))
	}
	if len(events) > 0 && len(writes) == 0 {
		j.Errorf("%d events lead to no write: a crash would lose them", len(events))
	}
	return entered{indexes, writes}
}

// commit does with a group what the queue does.
func (j *journal) commit(e entered) {
	j.Helper()
	var g queue.Group
	for _, w := range e.writes {
		if len(w.Key) == 0 {
			j.Fatal("write of an empty key")
		}
		g.Writes = append(g.Writes, queue.Write{Key: append([]byte("j"), w.Key...), Value: w.Value})
	}
	if err := j.store.Commit(&g); err != nil {
		j.Fatal(err)
	}
	j.Committed()
}

func (j *journal) wantIndexes(e entered, from uint64) {
	j.Helper()
	for i, index := range e.indexes {
		if want := from + uint64(i); index != want {
			j.Errorf("index %d, want %d", index, want)
		}
	}
}

// event returns an event that has every field.
func event(n int) mail.Event {
	from := mail.Address{Local: "sender", Domain: "example.org"}
	return mail.Event{
		Kind:      mail.ReceivedFromNonERDS,
		Time:      time.Date(2026, 1, 2, 3, 4, 5, n*1000, time.UTC),
		ID:        mail.ID(1000 + n),
		MessageID: fmt.Sprintf("<%d@example.org>", n),
		From:      &from,
		To:        []mail.Address{{Local: "b", Domain: "example.com"}, {Local: "ü", Domain: "exämple.com"}},
		Size:      int64(n),
		SHA256:    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		Peer:      &mail.Peer{Name: "mx.example.org", Addr: "192.0.2.1"},
		Reply:     "250 ok\n\"quoted\" <&>",
	}
}

func testIndexes(t *testing.T, j *journal) {
	if j.Origin() == "" {
		t.Error("the log has no name")
	}
	e := j.append(event(0))
	j.first = e.indexes[0]
	j.commit(e)
	e = j.append(event(1), event(2), event(3))
	j.wantIndexes(e, j.first+1)
	j.commit(e)
	e = j.append(event(2)) // the same event again is another entry
	j.wantIndexes(e, j.first+4)
	j.commit(e)
	for n, kind := range []mail.EventKind{
		mail.SubmissionAcceptance, mail.ContentConsignment, mail.ContentConsignmentFailure,
		mail.RelayToNonERDS, mail.RelayToNonERDSFailure, mail.Digest,
	} {
		e := j.append(mail.Event{Kind: kind, Time: event(0).Time, ID: 7})
		j.wantIndexes(e, j.first+5+uint64(n))
		j.commit(e)
	}
}

func testEmptyGroup(t *testing.T, j *journal) {
	e := j.append(event(0))
	j.first = e.indexes[0]
	j.commit(e)
	j.commit(j.append())
	j.wantIndexes(j.append(event(1)), j.first+1)
}

func testJournalRestart(t *testing.T, j *journal) {
	origin := j.Origin()
	e := j.append(event(0), event(1))
	j.first = e.indexes[0]
	j.commit(e)
	for n := range 3 {
		j.open()
		if j.Origin() != origin {
			t.Errorf("origin %q, was %q", j.Origin(), origin)
		}
		e := j.append(event(2 + n))
		j.wantIndexes(e, j.first+2+uint64(n))
		j.commit(e)
	}
}

// What was appended but never became durable has never been: the indexes are given out again.
func testLostGroup(t *testing.T, j *journal) {
	e := j.append(event(0))
	j.first = e.indexes[0]
	j.commit(e)
	j.append(event(1), event(2)) // the process ends before the commit
	j.open()
	e = j.append(event(3))
	j.wantIndexes(e, j.first+1)
	j.commit(e)
	j.open()
	j.wantIndexes(j.append(event(4)), j.first+2)
}

func testEventsUntouched(t *testing.T, j *journal) {
	events := []mail.Event{event(1), event(2)}
	_, writes, err := j.Append(events)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(events, []mail.Event{event(1), event(2)}) {
		t.Error("append changed the events")
	}
	// The slice is used again for the next group: nothing in the writes may depend on it.
	before := make([][]byte, len(writes))
	for i, w := range writes {
		before[i] = bytes.Clone(w.Value)
	}
	clear(events)
	for i, w := range writes {
		if !bytes.Equal(before[i], w.Value) {
			t.Errorf("the value of %q changed with the events", w.Key)
		}
	}
}

func testManyGroups(t *testing.T, j *journal) {
	e := j.append(event(0))
	j.first = e.indexes[0]
	j.commit(e)
	next := j.first + 1
	for n := range 60 {
		events := make([]mail.Event, 1+n*7%23)
		for i := range events {
			events[i] = event(n*100 + i)
		}
		e := j.append(events...)
		j.wantIndexes(e, next)
		j.commit(e)
		next += uint64(len(events))
		if n%20 == 19 {
			j.open()
		}
	}
}
