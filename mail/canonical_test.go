package mail

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// sameAsJSON compares AppendCanonical with encoding/json, which defines the form.
func sameAsJSON(t *testing.T, ev Event) {
	t.Helper()
	ev.Time = ev.Time.UTC()
	want, wantErr := json.Marshal(ev)
	got, err := ev.AppendCanonical([]byte("x"))
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("error %v, encoding/json: %v", err, wantErr)
	}
	if err == nil && !bytes.Equal(got[1:], want) {
		t.Errorf("wrote\n%s, encoding/json\n%s", got[1:], want)
	}
}

func TestAppendCanonical(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 120, time.FixedZone("", 3600))
	full := Event{
		Kind: RelayToNonERDS, Time: at, ID: 0x8123456789abcdef, MessageID: "<a@example.org>",
		From: &Address{Local: "a b", Domain: "example.org"},
		To: []Address{{Local: "b", Domain: "bücher.example"}, {Local: "postmaster"},
			{Local: `q"\`, Domain: "[192.0.2.1]"}},
		Size: 1 << 40, SHA256: "00ff",
		Peer: &Peer{Name: "mx", Addr: "2001:db8::1", Account: "a", TLSVersion: "TLS 1.3",
			Cipher:     "c",
			CertSHA256: "ff"},
		Reply: "250 2.0.0 <ok> & \"fine\" \\ \n\r\t\b\f\x00\x1f\x7f \u2028\u2029 \xff\xc3( é \U0001F600",
		Note:  "note",
	}
	sameAsJSON(t, Event{})
	sameAsJSON(t, full)
	sameAsJSON(t, Event{Kind: "x", Time: at, From: &Address{}, To: []Address{{}}, Peer: &Peer{},
		Size: -1})
	sameAsJSON(t, Event{Peer: &Peer{Cipher: "only"}})
	for _, year := range []int{-1, 0, 9999, 10000} {
		sameAsJSON(t, Event{Time: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)})
	}
	sameAsJSON(t, Event{Time: time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -7200))})
}

// TestAppendCanonicalKnowsEveryField fails for a field that was added to Event or Peer and not
// here.
func TestAppendCanonicalKnowsEveryField(t *testing.T) {
	var ev Event
	fill(reflect.ValueOf(&ev).Elem())
	sameAsJSON(t, ev)
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Int64:
		v.SetInt(1)
	case reflect.Uint64:
		v.SetUint(1)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	default:
		panic("a field of kind " + v.Kind().String())
	}
}

func FuzzCanonical(f *testing.F) {
	f.Add("ContentConsignment", int64(0), uint64(1), "<x@y>", "a", "example.org", int64(2),
		"reply \xff", true)
	f.Add("", int64(1<<62), uint64(0), "", "", "", int64(0), "\u2028<>", false)
	f.Fuzz(func(t *testing.T, kind string, ns int64, id uint64, mid, local, domain string,
		size int64, reply string,
		peer bool) {
		a := Address{Local: local, Domain: Domain(domain)}
		ev := Event{Kind: EventKind(kind), Time: time.Unix(0, ns), ID: ID(id), MessageID: mid,
			From: &a,
			To:   []Address{a, {}}, Size: size, Reply: reply, Note: mid, SHA256: kind}
		if peer {
			ev.Peer = &Peer{Name: mid, Account: reply}
		}
		sameAsJSON(t, ev)
	})
}

func BenchmarkAppendCanonical(b *testing.B) {
	ev := Event{Kind: ReceivedFromNonERDS, Time: time.Now(), ID: 12345,
		MessageID: "<12.abc@example.net>",
		From:      &Address{Local: "alice", Domain: "example.net"}, To: []Address{{Local: "bob",
			Domain: "example.org"}},
		Size: 10240, SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		Peer: &Peer{Name: "mx.example.net", Addr: "192.0.2.1", TLSVersion: "TLS 1.3"}}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = ev.AppendCanonical(buf[:0])
	}
}
