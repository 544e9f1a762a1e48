package evidence

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bridge/tlog"
	"github.com/tallypost/tallypost/mail"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

const (
	origin  = "mail.example.org/tlog"
	message = "From: alice@example.net\r\nTo: bob@example.org\r\n" +
		"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.net>\r\n\r\n.dot\r\nBody.\r\n"
	queueID = mail.ID(0x650f8c1d2e3f4a5b)
)

// testKey is no secret: its seed is 1, 2, 3 ... 32.
const testKey = "PRIVATE+KEY+mail.example.org/tlog+facb3ca9+" +
	"AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"

// testLog is a log in memory: what eventlog does, with salts that are no secret.
type testLog struct {
	t      testing.TB
	signer *tlog.Signer
	after  tlog.Block
	edge   tlog.Edge
	full   map[tlog.Tile][]byte
	events []Event
}

func newLog(t testing.TB) *testLog {
	t.Helper()
	s, err := tlog.ParseSigner(testKey)
	if err != nil {
		t.Fatal(err)
	}
	return &testLog{t: t, signer: s, full: make(map[tlog.Tile][]byte)}
}

// Add enters an event.
func (l *testLog) Add(ev mail.Event) {
	l.t.Helper()
	canonical, err := ev.Canonical()
	if err != nil {
		l.t.Fatal(err)
	}
	l.AddOctets(ev.Kind, canonical)
}

// AddOctets enters octets that need not be an event.
func (l *testLog) AddOctets(kind mail.EventKind, canonical []byte) {
	salt := sha256.Sum256(fmt.Append(nil, len(l.events)))
	entry := tlog.Entry{Kind: kind, Commitment: tlog.Commit(salt, canonical),
		After: l.after}.AppendTo(nil)
	l.edge.Append(tlog.LeafHash(entry), func(t tlog.Tile, data []byte) { l.full[t] = data })
	l.events = append(l.events, Event{Canonical: canonical, Salt: salt, Entry: entry})
}

// Prove returns entries with their proofs under one checkpoint.
func (l *testLog) Prove(indexes ...uint64) []Event {
	l.t.Helper()
	c := tlog.Checkpoint{Origin: l.signer.Name(), Size: l.edge.Size(), Root: l.edge.Root()}
	signed, err := c.Sign(l.signer)
	if err != nil {
		l.t.Fatal(err)
	}
	var events []Event
	for _, index := range indexes {
		hashes, err := tlog.ProveInclusion(index, c.Size, func(t tlog.Tile) ([]byte, error) {
			if p, data := l.edge.Partial(t.Level); p.N == t.N {
				return data, nil
			}
			return l.full[tlog.Tile{Level: t.Level, N: t.N, Width: tlog.TileWidth}], nil
		})
		if err != nil {
			l.t.Fatal(err)
		}
		e := l.events[index]
		e.Proof = &tlog.Proof{Index: index, Hashes: hashes, Checkpoint: signed}
		events = append(events, e)
	}
	return events
}

func acceptance(body string) mail.Event {
	sum := sha256.Sum256([]byte(body))
	return mail.Event{
		Kind: mail.ReceivedFromNonERDS, Time: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
		ID:        queueID,
		MessageID: "<1@example.net>", From: &mail.Address{Local: "alice", Domain: "example.net"},
		To: []mail.Address{{Local: "bob", Domain: "example.org"}}, Size: int64(len(body)),
		SHA256: hex.EncodeToString(sum[:]),
		Peer:   &mail.Peer{Name: "mx.example.net", Addr: "192.0.2.1", TLSVersion: "TLS 1.3"},
	}
}

func outcome(kind mail.EventKind, reply string) mail.Event {
	return mail.Event{Kind: kind, Time: time.Date(2026, 11, 22, 12, 0, 1, 0, time.UTC), ID: queueID,
		To: []mail.Address{{Local: "bob", Domain: "example.org"}}, Reply: reply}
}

// fixture is a log of 20 entries with the acceptance at 7 and outcomes at 9 and 19.
func fixture(t testing.TB) *testLog {
	t.Helper()
	l := newLog(t)
	for i := range 20 {
		l.after = tlog.Block{}
		switch i {
		case 7:
			l.after = tlog.Block{Height: 912095, Hash: [32]byte{31: 9}}
			l.Add(acceptance(message))
		case 9:
			l.Add(outcome(mail.ContentConsignment, ""))
		case 19:
			l.Add(outcome(mail.RelayToNonERDS, "250 2.0.0 \x1b[31mtaken\nas 12"))
		default:
			l.Add(mail.Event{Kind: mail.Digest, Note: fmt.Sprint(i)})
		}
	}
	return l
}

func (l *testLog) contents(indexes ...uint64) Contents {
	return Contents{Message: []byte(message), Events: l.Prove(indexes...), Key: l.signer.Verifier()}
}

func build(t testing.TB, c Contents) []byte {
	t.Helper()
	file, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestBuildAndVerify(t *testing.T) {
	l := fixture(t)
	vkey := l.signer.Verifier().String()
	file := build(t, l.contents(7, 19, 9)) // in any order
	for _, key := range []string{vkey, vkey + "\n", ""} {
		r, err := Verify(file, Options{Key: key})
		if err != nil {
			t.Fatal(err)
		}
		if r.Origin != origin || r.Key != vkey || r.KeyTrusted != (key != "") || r.TreeSize != 20 ||
			r.Root != l.edge.Root().String() || r.Message.Octets != int64(len(message)) || len(r.Events) != 3 {
			t.Errorf("report %+v", r)
		}
		loud := strings.Contains(r.String(), "THE KEY WAS TAKEN FROM THE FILE ITSELF")
		if loud != (key == "") {
			t.Errorf("key %q: warned %v", key, loud)
		}
		for i, want := range []uint64{7, 9, 19} {
			e := r.Events[i]
			if e.Index != want || !bytes.Equal(e.Event, l.events[want].Canonical) {
				t.Errorf("event %d: %+v", i, e)
			}
		}
		if r.Events[0].AfterHeight != 912095 || r.Events[1].AfterBlock != "" {
			t.Errorf("blocks of %+v", r.Events)
		}
	}
}

func TestReportText(t *testing.T) {
	l := fixture(t)
	r, err := Verify(build(t, l.contents(7, 9, 19)), Options{Key: l.signer.Verifier().String()})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.txt", []byte(r.String()))
	if strings.ContainsRune(r.String(), '\x1b') {
		t.Error("an escape of the peer's reply reaches the terminal")
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", append(text, '\n'))
}

// TestFileOfToday verifies a file that was made when the format was laid down: it has to stay
// readable, and Build has to go on making the same octets.
func TestFileOfToday(t *testing.T) {
	l := fixture(t)
	golden(t, "example.evidence.zip", build(t, l.contents(7, 9, 19)))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what was made:\n%s", path, got)
	}
}

func TestWithheldMessage(t *testing.T) {
	c := fixture(t).contents(7)
	c.Message = nil
	r, err := Verify(build(t, c), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Message != nil || !strings.Contains(r.String(), "message is not in the file") {
		t.Errorf("report\n%s", r)
	}
}

func TestEmptyMessage(t *testing.T) {
	l := newLog(t)
	l.Add(acceptance(""))
	r, err := Verify(build(t, Contents{Message: []byte{}, Events: l.Prove(0),
		Key: l.signer.Verifier()}), Options{})
	if err != nil || r.Message == nil {
		t.Errorf("report %+v, %v", r, err)
	}
}

// TestEveryFlip changes every octet of a file, in turn, cuts it at every octet, and adds one.
func TestEveryFlip(t *testing.T) {
	l := fixture(t)
	vkey := l.signer.Verifier().String()
	file := build(t, l.contents(7, 9))
	for i := range file {
		for _, flip := range []byte{1 << (i % 8), 0xff} {
			file[i] ^= flip
			if _, err := Verify(file, Options{Key: vkey}); err == nil {
				t.Errorf("octet %d changed by %#x: accepted", i, flip)
			}
			file[i] ^= flip
		}
		// Without a key of the reader's own nothing but the forger's key stands against a forgery,
		// but an accident is found all the same.
		file[i] ^= 0x20
		if _, err := Verify(file, Options{}); err == nil {
			t.Errorf("octet %d changed, key from the file: accepted", i)
		}
		file[i] ^= 0x20
		if _, err := Verify(file[:i], Options{Key: vkey}); err == nil {
			t.Errorf("cut at %d: accepted", i)
		}
	}
	for _, more := range []string{"\x00", "\n", "PK\x03\x04"} {
		if _, err := Verify(append(bytes.Clone(file), more...), Options{Key: vkey}); err == nil {
			t.Errorf("%q at the end: accepted", more)
		}
		if _, err := Verify(append([]byte(more), file...), Options{Key: vkey}); err == nil {
			t.Errorf("%q in front: accepted", more)
		}
	}
	if _, err := Verify(file, Options{Key: vkey}); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// TestFlipsInBigMessage changes octets of a message of 3 MiB, a few hundred of them.
func TestFlipsInBigMessage(t *testing.T) {
	body := strings.Repeat("0123456789 abcdefghijklmnopqrstuvwxyz\r\n", 3<<20/39)
	l := newLog(t)
	l.Add(acceptance(body))
	vkey := l.signer.Verifier().String()
	file := build(t, Contents{Message: []byte(body), Events: l.Prove(0), Key: l.signer.Verifier()})
	for i := 0; i < len(file); i += 27_011 {
		file[i] ^= 1
		if _, err := Verify(file, Options{Key: vkey}); err == nil {
			t.Errorf("octet %d changed: accepted", i)
		}
		file[i] ^= 1
	}
}

// TestTamperedParts makes archives that are in order, of parts that are not.
func TestTamperedParts(t *testing.T) {
	l := fixture(t)
	vkey := l.signer.Verifier().String()
	good, err := readArchive(build(t, l.contents(7, 9)))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := tlog.GenerateKey(origin)
	if err != nil {
		t.Fatal(err)
	}
	other, err := tlog.ParseSigner(stranger)
	if err != nil {
		t.Fatal(err)
	}
	resigned, err := tlog.Checkpoint{Origin: origin, Size: 20, Root: l.edge.Root()}.Sign(other)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(name, old, new string) func(map[string]string) {
		return func(p map[string]string) {
			changed := strings.Replace(p[name], old, new, 1)
			if changed == p[name] {
				panic("row changes nothing")
			}
			p[name] = changed
		}
	}
	for _, row := range []struct {
		name string
		do   func(p map[string]string)
		want string
	}{
		{"message", replace("message.eml", "Body", "body"), "message.eml: SHA-256 is "},
		{"message longer", replace("message.eml", "Body", "Body "),
			"message.eml: 129 octets, event.json says 128"},
		{"bare LF", replace("message.eml", "Body.\r\n", "Body.\n"), "message.eml: 127 octets"},
		{"event", replace("event.json", "alice", "carol"),
			"event.json: with salt it makes the commitment"},
		{"space in the event", replace("event.json", ",", ", "), "event.json: with salt"},
		{"salt", replace("salt", "a", "b"), "event.json: with salt it makes the commitment"},
		{"salt in upper case", replace("salt", "a", "A"), "salt: digits are not in lower case"},
		{"salt not hex", replace("salt", "a", "x"), "salt: encoding/hex"},
		{"short salt", replace("salt", "a", ""),
			"salt: 64 octets, want 64 hexadecimal digits and a line end"},
		{"entry of another kind", replace("entry", "ReceivedFromNonERDS", "SubmissionAcceptance"),
			`event.json: kind "ReceivedFromNonERDS", entry has "SubmissionAcceptance"`},
		{"entry", replace("entry", "912095", "912096"), "message.tlog-proof: inclusion proof"},
		{"entry of another version", replace("entry", "/v1", "/v2"), "entry: entry does not begin"},
		{"other index", replace("message.tlog-proof", "index 7", "index 6"),
			"message.tlog-proof: inclusion proof"},
		{"index past the end", replace("message.tlog-proof", "index 7", "index 20"),
			"message.tlog-proof: index 20"},
		{"hash", replace("message.tlog-proof", "=\n", "=\n"+tlog.Hash{}.String()+"\n"),
			"message.tlog-proof: inclusion proof"},
		{"extra line", replace("message.tlog-proof", "index", "extra AAAA\nindex"),
			"message.tlog-proof: has an extra"},
		{"proof of another checkpoint", replace("message.tlog-proof", "\n20\n", "\n21\n"),
			"message.tlog-proof: ends in another checkpoint"},
		{"checkpoint", replace("checkpoint", "\n20\n", "\n21\n"), "checkpoint: "},
		{"checkpoint of another key", func(p map[string]string) {
			for _, name := range []string{"checkpoint", "message.tlog-proof", "outcome-0001.tlog-proof"} {
				p[name] = strings.Replace(p[name], p["checkpoint"], string(resigned), 1)
			}
		}, "checkpoint: checkpoint has no signature by " + vkey},
		{"all of it by another key", func(p map[string]string) {
			for _, name := range []string{"checkpoint", "message.tlog-proof", "outcome-0001.tlog-proof"} {
				p[name] = strings.Replace(p[name], p["checkpoint"], string(resigned), 1)
			}
			p["key"] = other.Verifier().String() + "\n"
		}, "key: the file has "},
		{"signature of a stranger", func(p map[string]string) {
			line := string(resigned[bytes.LastIndex(resigned, []byte("— ")):])
			for _, name := range []string{"checkpoint", "message.tlog-proof", "outcome-0001.tlog-proof"} {
				p[name] += line
			}
		}, "checkpoint: 2 signatures"},
		{"key", replace("key", "+", "-"), "key: "},
		{"key without line end", replace("key", "\n", ""), "key: not a line"},
		{"two keys", replace("key", "\n", "\nx\n"), "key: "},
		{"README", replace("README", "evidence", "Evidence"), "README is not"},
		{"outcome of another message", func(p map[string]string) {
			l := fixture(t)
			ev := outcome(mail.ContentConsignment, "")
			ev.ID++
			l.Add(ev)
			swap(t, p, l, 7, 20)
		}, "outcome-0001.json: about message"},
		{"outcome with another digest", func(p map[string]string) {
			l := fixture(t)
			ev := outcome(mail.ContentConsignment, "")
			ev.SHA256 = strings.Repeat("0", 64)
			l.Add(ev)
			swap(t, p, l, 7, 20)
		}, "outcome-0001.json: sha256"},
		{"outcome as acceptance", func(p map[string]string) { swap(t, p, l, 9, 19) },
			"event.json: kind \"ContentConsignment\", want an acceptance"},
		{"outcome before the acceptance", func(p map[string]string) { swap(t, p, l, 7, 6) },
			"outcome-0001.tlog-proof: index 6, want more"},
		{"the acceptance twice", func(p map[string]string) { swap(t, p, l, 7, 7) },
			"outcome-0001.tlog-proof: index 7, want more"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := make(map[string]string)
			for _, part := range good {
				p[part.name] = string(part.data)
			}
			row.do(p)
			var parts []part
			for _, part := range good {
				part.data = []byte(p[part.name])
				parts = append(parts, part)
			}
			rejects(t, parts, vkey, row.want)
		})
	}
}

// swap puts two other entries of a log into a set of parts.
func swap(t *testing.T, p map[string]string, l *testLog, first, second uint64) {
	t.Helper()
	for i, e := range l.Prove(first, second) {
		n := eventNames(i)
		p[n.event], p[n.salt] = string(e.Canonical), hex.EncodeToString(e.Salt[:])+"\n"
		p[n.entry], p[n.proof] = string(e.Entry), string(e.Proof.Marshal())
		p["checkpoint"] = string(e.Proof.Checkpoint)
	}
}

func rejects(t *testing.T, parts []part, vkey, want string) {
	t.Helper()
	var file bytes.Buffer
	if err := writeArchive(&file, parts); err != nil {
		t.Fatal(err)
	}
	_, err := Verify(file.Bytes(), Options{Key: vkey})
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one with %q", err, want)
	}
}

func TestPartsOutOfPlace(t *testing.T) {
	l := fixture(t)
	vkey := l.signer.Verifier().String()
	good, err := readArchive(build(t, l.contents(7, 9)))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range good {
		without := append(append([]part{}, good[:i]...), good[i+1:]...)
		var file bytes.Buffer
		if err := writeArchive(&file, without); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(file.Bytes(), Options{Key: vkey}); (err == nil) != (p.name == partMessage) {
			t.Errorf("without %s: %v", p.name, err)
		}
		twice := append(append([]part{}, good[:i+1]...), good[i:]...)
		rejects(t, twice, vkey, "a newer version, or not an evidence file")
		renamed := append([]part{}, good...)
		renamed[i].name = strings.ToUpper(p.name) + "x"
		rejects(t, renamed, vkey, "a newer version, or not an evidence file")
		if i > 0 {
			turned := append([]part{}, good...)
			turned[i-1], turned[i] = turned[i], turned[i-1]
			rejects(t, turned, vkey, "where")
		}
	}
	rejects(t, append(good[:len(good):len(good)], part{"checkpoint.ots", nil}), vkey,
		"behind the last")
	rejects(t, []part{{"x", nil}}, vkey, "where README should be")
}

// TestForeignArchives packs the same parts with other tools' habits.
func TestForeignArchives(t *testing.T) {
	l := fixture(t)
	good, err := readArchive(build(t, l.contents(7)))
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []uint16{zip.Store, zip.Deflate} {
		var file bytes.Buffer
		w := zip.NewWriter(&file)
		for _, p := range good {
			f, err := w.CreateHeader(&zip.FileHeader{Name: p.name, Method: method})
			if err != nil {
				t.Fatal(err)
			}
			f.Write(p.data)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(file.Bytes(), Options{}); err == nil {
			t.Errorf("archive/zip, method %d: accepted", method)
		}
	}
	for _, file := range []string{"", "x", "PK\x05\x06" + strings.Repeat("\x00", 18), message} {
		if _, err := Verify([]byte(file), Options{}); err == nil ||
			!strings.Contains(err.Error(), "not an evidence file") {
			t.Errorf("%.10q: %v", file, err)
		}
	}
}

func TestLimits(t *testing.T) {
	l := fixture(t)
	file := build(t, l.contents(7))
	if _, err := Verify(file, Options{MaxBytes: int64(len(file)) - 1}); err == nil ||
		!strings.Contains(err.Error(), "limit") {
		t.Errorf("file over the limit: %v", err)
	}
	huge := bytes.Clone(file)
	copy(huge[22:], "\xff\xff\xff\xff") // size of the README
	if _, err := Verify(huge, Options{}); err == nil ||
		!strings.Contains(err.Error(), "ends inside part 1") {
		t.Errorf("part of 4 GiB: %v", err)
	}
	many := bytes.Repeat(file[:localSize+len(partReadme)+len(readme)], maxParts+1)
	if _, err := Verify(many, Options{}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("many parts: %v", err)
	}
}

// TestManyEvents has a message with 600 recipients.
func TestManyEvents(t *testing.T) {
	l := newLog(t)
	ev := acceptance(message)
	l.Add(ev)
	indexes := []uint64{0}
	for i := range uint64(600) {
		l.Add(outcome(mail.RelayToNonERDS, fmt.Sprintf("250 2.0.0 taken as %d", i)))
		indexes = append(indexes, i+1)
	}
	r, err := Verify(build(t, l.contents(indexes...)), Options{})
	if err != nil || len(r.Events) != 601 {
		t.Errorf("%v", err)
	}
}

func TestBuildRefuses(t *testing.T) {
	l := fixture(t)
	for _, row := range []struct {
		name string
		do   func(c *Contents)
		want string
	}{
		{"no event", func(c *Contents) { c.Events = nil }, "needs an event"},
		{"no key", func(c *Contents) { c.Key = nil }, "and the key"},
		{"no proof", func(c *Contents) { c.Events[0].Proof = nil }, "event 0 has no proof"},
		{"message with trace fields", func(c *Contents) {
			c.Message = []byte("Received: from x\r\n" + message)
		}, "would not be verified: evidence: message.eml"},
		{"two checkpoints", func(c *Contents) {
			l.Add(mail.Event{Kind: mail.Digest})
			c.Events[1] = l.Prove(9)[0]
		}, "another checkpoint"},
	} {
		c := l.contents(7, 9)
		row.do(&c)
		if _, err := Build(c); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v, want one with %q", row.name, err, row.want)
		}
	}
}

// TestAmbiguousEvents enters events that two readers could read in two ways: an operator could make
// them on purpose.
func TestAmbiguousEvents(t *testing.T) {
	sum := sha256.Sum256([]byte(message))
	good := fmt.Sprintf(`{"kind":"ReceivedFromNonERDS","id":"1","size":%d,"sha256":"%x"}`,
		len(message), sum)
	for _, row := range []struct{ name, old, new, want string }{
		{"two digests", `"sha256"`, `"sha256":"00","sha256"`, "two members have the name"},
		{"digest in another case", `"sha256"`, `"SHA256":"00","sha256"`, "other than a-z"},
		{"two names in an inner object", `"id"`, `"peer":{"name":"a","name":"b"},"id"`,
			"two members"},
		{"escaped name", `"sha256"`, `"sha\u0032\u0035\u0036":"00","sha256"`, "two members"},
		{"long s for s", `"sha256"`, `"ſha256":"00","sha256"`, "other than a-z"},
		{"deep", `"id"`, `"x":[[[[[[1]]]]]],"id"`, "nested deeper"},
		{"two values", `}`, `}{}`, "more than one JSON value"},
		{"array", `{`, `[{`, "not a JSON object"},
		{"string", good, `"x"`, "not a JSON object"},
		{"number as id", `"1"`, `1`, "cannot unmarshal"},
		{"not UTF-8", `"1"`, "\"\xff\"", "not UTF-8"},
		{"cut", `}`, ``, "event.json: EOF"},
		{"nothing", good, ``, "EOF"},
		{"no queue id", `"id":"1",`, ``, "no queue id"},
		{"no kind", `"kind":"ReceivedFromNonERDS",`, ``, `kind ""`},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := strings.Replace(good, row.old, row.new, 1)
			if text == good {
				t.Fatal("row changes nothing")
			}
			l := newLog(t)
			l.AddOctets(mail.ReceivedFromNonERDS, []byte(text))
			if _, err := Build(l.contents(0)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want one with %q", err, row.want)
			}
		})
	}
	l := newLog(t)
	l.AddOctets(mail.ReceivedFromNonERDS, []byte(strings.Replace(good, `"id"`,
		`"new_thing":[{"x":1}],"id"`, 1)))
	r, err := Verify(build(t, l.contents(0)), Options{})
	if err != nil || !strings.Contains(r.String(), "new_thing") {
		t.Errorf("member of a newer version: %v\n%s", err, r)
	}
}

// TestStockTools unpacks a file with other programs and follows the README by hand.
func TestStockTools(t *testing.T) {
	l := fixture(t)
	file := build(t, l.contents(7, 9))
	r, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range r.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in) // which compares the CRC
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []string{"unzip", "openssl", "sha256sum", "base64"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s on this machine", tool)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file.zip"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	sh := func(command string) string {
		t.Helper()
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if out := sh("unzip -tq file.zip"); !strings.Contains(out, "No errors") {
		t.Errorf("unzip: %s", out)
	}
	leaf := tlog.LeafHash(l.events[7].Entry)
	for command, want := range map[string]string{
		"sha256sum message.eml":                   acceptance(message).SHA256 + "  message.eml",
		"(printf '\\000'; cat entry) | sha256sum": fmt.Sprintf("%x  -", leaf[:]),
		"openssl dgst -sha256 -mac HMAC -macopt hexkey:$(cat salt) -binary event.json | base64": sh(
			"sed -n 3p entry"),
	} {
		if !strings.Contains(readme, command) {
			t.Errorf("README does not say %s", command)
		}
		if got := sh(command); got != want {
			t.Errorf("%s: %s, want %s", command, got, want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	l := newLog(f)
	l.Add(acceptance("x\r\n"))
	l.Add(outcome(mail.ContentConsignment, ""))
	c := Contents{Message: []byte("x\r\n"), Events: l.Prove(0, 1), Key: l.signer.Verifier()}
	file := build(f, c)
	c.Message = nil
	withheld := build(f, c)
	f.Add(file)
	f.Add(withheld)
	vkey := l.signer.Verifier().String()
	f.Fuzz(func(t *testing.T, data []byte) {
		Verify(data, Options{})
		if _, err := Verify(data, Options{Key: vkey}); err == nil && !bytes.Equal(data, file) &&
			!bytes.Equal(data, withheld) {
			t.Errorf("accepted %q", data)
		}
	})
}

// FuzzParts gets behind the archive: the parts are the fuzzer's, the archive is in order.
func FuzzParts(f *testing.F) {
	l := newLog(f)
	l.Add(acceptance("x\r\n"))
	e := l.Prove(0)[0]
	salt := []byte(hex.EncodeToString(e.Salt[:]) + "\n")
	key := []byte(l.signer.Verifier().String() + "\n")
	f.Add([]byte("x\r\n"), e.Canonical, salt, e.Entry, e.Proof.Marshal(), e.Proof.Checkpoint, key)
	good := [][]byte{[]byte("x\r\n"), e.Canonical, salt, e.Entry, e.Proof.Marshal(),
		e.Proof.Checkpoint, key}
	f.Fuzz(func(t *testing.T, message, event, salt, entry, proof, checkpoint, key []byte) {
		n := eventNames(0)
		parts := []part{{partReadme, []byte(readme)}, {partMessage, message}, {n.event, event},
			{n.salt, salt},
			{n.entry, entry}, {n.proof, proof}, {partCheckpoint, checkpoint}, {partKey, key}}
		var file bytes.Buffer
		if err := writeArchive(&file, parts); err != nil {
			t.Fatal(err)
		}
		r, err := Verify(file.Bytes(), Options{Key: l.signer.Verifier().String()})
		if err != nil {
			return
		}
		_ = r.String()
		for i, p := range parts[1:] {
			if !bytes.Equal(p.data, good[i]) {
				t.Errorf("accepted %s %q", p.name, p.data)
			}
		}
		parseFields(event)
	})
}

// FuzzFields reads events alone, for the fuzzer can make no commitment to one.
func FuzzFields(f *testing.F) {
	ev := acceptance(message)
	canonical, err := ev.Canonical()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(canonical)
	f.Add([]byte(`{"peer":{"x":[1,{}]},"to":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, _, err := parseFields(text); err == nil && !json.Valid(text) {
			t.Errorf("read %q, which is not JSON", text)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	l := newLog(b)
	body := strings.Repeat("0123456789 abcdefghijklmnopqrstuvwxyz\r\n", 1<<20/39)
	l.Add(acceptance(body))
	file := build(b, Contents{Message: []byte(body), Events: l.Prove(0), Key: l.signer.Verifier()})
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if _, err := Verify(file, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
