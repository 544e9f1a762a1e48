package queue

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/durable"
	"github.com/tallypost/tallypost/mail"
)

var (
	testPeer = &mail.Peer{
		Name: "mx.example.com", Addr: "2001:db8::1", Account: "a", TLSVersion: "TLS 1.3",
		Cipher: "TLS_AES_128_GCM_SHA256", CertSHA256: "ab",
	}
	testTime = time.Date(2026, 5, 6, 7, 8, 9, 123456000, time.UTC)
)

func testHead() *head {
	return &head{
		index: 1 << 40, size: 123456, arrived: testTime,
		envelope: mail.Envelope{
			From: mail.Address{Local: "Jürgen \"x\"", Domain: "exämple.org"},
			Recipients: []mail.Recipient{
				{Address: mail.Address{Local: "b", Domain: "[IPv6:2001:db8::2]"}, Notify: mail.NotifySuccess, ORcpt: "rfc822;b@c"},
				{Address: mail.Address{Local: "postmaster"}},
			},
			Body: mail.BodyBinaryMIME, SMTPUTF8: true, RequireTLS: true, Ret: mail.RetHeaders, EnvID: "e\x00",
			HoldUntil: testTime.Add(time.Hour),
		},
		event: mail.Event{
			Kind: mail.ReceivedFromNonERDS, Time: testTime, ID: 77, MessageID: "<x@y>", Size: 9, SHA256: "00",
			Peer: testPeer, Reply: "250 ok\nyes", Note: "n",
		},
	}
}

func testRecipients() []recipient {
	o1 := &outcome{seq: 3, first: 5, last: 900, count: 4, route: "smtp:example.com", result: Result{
		Outcome: Deferred, Status: "4.2.0", Reply: "450 a\nb", Peer: testPeer, Class: "greylisted", Unreachable: true,
	}}
	o2 := &outcome{seq: 4, first: 7, last: 7, count: 1, route: "local", untried: true, result: Result{
		Outcome: Failed, Relayed: true, Expired: true,
	}}
	return []recipient{
		{status: pending, due: 1 << 50, stored: "smtp:example.com", route: "smtp:example.com", attempts: 4, last: o1, toldLate: true, owes: owesDelay},
		{status: held, due: 1, stored: "smtp:example.com", route: "smtp:example.com", last: o1},
		{status: failed, stored: "local", route: "local", last: o2, owes: owesFailure},
		{status: dropped, stored: "", route: ""},
	}
}

// every returns one valid record of each kind.
func every() map[string][]byte {
	history, _ := (&historyEntry{
		outcome: *testRecipients()[2].last, rcpts: []int{0, 70}, indexes: []uint64{5, 1 << 60},
	}).append(nil)
	group := []byte{groupVersion}
	group = appendWrite(group, []byte("key"), []byte("value"))
	group = appendWrite(group, []byte("k"), nil)
	group = appendWrite(group, []byte("empty"), []byte{})
	return map[string][]byte{
		"head":    testHead().append(nil),
		"page":    appendPage(nil, testRecipients()),
		"history": history,
		"group":   group,
		"extents": appendExtents(nil, []durable.Extent{{Pos: 1<<32 | 40, Len: 9}, {Pos: 7<<32 | 8, Len: 1 << 20}}),
	}
}

// decodeAny decodes a record of one kind and encodes it again.
func decodeAny(kind string, b []byte) (again []byte, err error) {
	switch kind {
	case "head":
		h, err := decodeHead(77, b)
		if err != nil {
			return nil, err
		}
		return h.append(nil), nil
	case "page":
		rcpts, err := decodePage(b)
		return appendPage(nil, rcpts), err
	case "history":
		h, err := decodeHistory(b)
		if err != nil {
			return nil, err
		}
		again, _ := h.append(nil)
		return again, nil
	case "group":
		again := []byte{groupVersion}
		err := decodeWrites(b, func(key, value []byte) error {
			again = appendWrite(again, key, value)
			return nil
		})
		return again, err
	case "extents":
		e, err := decodeExtents(b)
		return appendExtents(nil, e), err
	}
	panic(kind)
}

func TestRecordsKeepEverything(t *testing.T) {
	h, err := decodeHead(77, testHead().append(nil))
	if err != nil || !reflect.DeepEqual(h, testHead()) {
		t.Errorf("head %+v, %v\nwant %+v", h, err, testHead())
	}
	rcpts, err := decodePage(appendPage(nil, testRecipients()))
	if err != nil || !reflect.DeepEqual(rcpts, testRecipients()) {
		t.Errorf("page %+v, %v", rcpts, err)
	}
	if rcpts[0].last != rcpts[1].last {
		t.Error("recipients no longer share an outcome")
	}
	for kind, b := range every() {
		if again, err := decodeAny(kind, b); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s %x became %x, %v", kind, b, again, err)
		}
	}
}

// A record that is cut short, or has something behind it, or another version, is damaged: it is
// never taken for something else.
func TestDamagedRecords(t *testing.T) {
	for kind, b := range every() {
		for n := range b {
			if _, err := decodeAny(kind, b[:n]); err == nil && !wholeRecords(kind, b[:n]) {
				t.Errorf("%s of %d octets cut to %d is accepted", kind, len(b), n)
			}
		}
		if _, err := decodeAny(kind, append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("%s with an octet behind it is accepted", kind)
		}
		other := bytes.Clone(b)
		other[0]++
		if _, err := decodeAny(kind, other); err == nil {
			t.Errorf("%s of another version is accepted", kind)
		}
	}
}

// wholeRecords reports whether a cut is between the elements of a record that has no count of them:
// the log guards the length of groups, and the size of a body is in the head of its message.
func wholeRecords(kind string, b []byte) bool {
	again, err := decodeAny(kind, b)
	return (kind == "group" || kind == "extents") && err == nil && bytes.Equal(again, b)
}

// FuzzRecords wants every decoder to survive anything, and what it accepts to be written the same
// again and again.
func FuzzRecords(f *testing.F) {
	kinds := []string{"head", "page", "history", "group", "extents"}
	for i, kind := range kinds {
		f.Add(uint8(i), every()[kind])
	}
	f.Fuzz(func(t *testing.T, n uint8, b []byte) {
		kind := kinds[int(n)%len(kinds)]
		once, err := decodeAny(kind, b)
		if err != nil {
			return
		}
		twice, err := decodeAny(kind, once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%s %x: %x, then %x, %v", kind, b, once, twice, err)
		}
	})
}

func TestDueKeys(t *testing.T) {
	for _, r := range []Route{"", "local", "smtp:example.com", "smtp:\x00\xff"} {
		m := moment{due: 1 << 50, id: 42}
		if got := dueMoment(dueKey(r, m)); got != m {
			t.Errorf("%q: %+v", r, got)
		}
		for _, n := range []moment{{1<<50 - 1, 1 << 60}, {1 << 50, 41}, {0, 0}} {
			if a, b := dueKey(r, n), dueKey(r, m); bytes.Compare(a, b) >= 0 || !n.before(m) {
				t.Errorf("%q: %+v does not sort before %+v", r, n, m)
			}
		}
		if bytes.Compare(dueKey(r, moment{1 << 62, 1<<64 - 1}), dueEnd(r)) >= 0 {
			t.Errorf("%q: the end of its index comes too early", r)
		}
		if bytes.Compare(dueEnd(r), dueKey(r+"a", moment{})) > 0 {
			t.Errorf("%q: the end of its index comes too late", r)
		}
	}
}
