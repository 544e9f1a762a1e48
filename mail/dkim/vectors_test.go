package dkim

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/vectors"
	"github.com/tallypost/tallypost/mail"
)

// verify parses and verifies a message; the body goes in pieces of step octets, whole if step is 0.
func verify(t testing.TB, r dns.Resolver, msg string, now time.Time, step int,
	cfg VerifyConfig) ([]Result, *Verifier) {
	t.Helper()
	h, err := mail.ParseHeader([]byte(msg))
	if err != nil {
		t.Fatalf("%v in %q", err, msg)
	}
	v := NewVerifier(context.Background(), r, h, now, cfg)
	body := []byte(msg[h.Len:])
	if step == 0 {
		step = max(len(body), 1)
	}
	for len(body) > 0 {
		n := min(step, len(body))
		v.Write(body[:n])
		body = body[n:]
	}
	return v.Finish(), v
}

func crlf(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n")
}

// TestVectors runs chasquid's cases, the example of RFC 8463 among them.
func TestVectors(t *testing.T) {
	dir := vectors.Path(t, "mail/dkim")
	files, err := filepath.Glob(filepath.Join(dir, "*.msg"))
	if err != nil || len(files) != 11 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	// Where we are stricter than the authors of the cases.
	differs := map[string]State{
		"09-limited_body/0": Policy, // l= (field notes, section 6)
	}
	states := map[string]State{"SUCCESS": Pass, "PERMFAIL": PermError, "TEMPFAIL": TempError}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".msg")
		t.Run(name, func(t *testing.T) {
			msg, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if name == "03-bad_message" {
				if _, err := mail.ParseHeader(msg); err == nil {
					t.Error("a header that begins with a continuation was parsed")
				}
				return
			}
			want := readResult(t, strings.TrimSuffix(file, ".msg"))
			got, _ := verify(t, readZone(t, strings.TrimSuffix(file, ".msg")), crlf(string(msg)),
				time.Unix(1709466347, 0), 7, VerifyConfig{MaxSignatures: 5})
			if len(got) != len(want) {
				t.Fatalf("%d results, want %d", len(got), len(want))
			}
			for i, w := range want {
				state := states[w.State]
				if s, ok := differs[name+"/"+string(rune('0'+i))]; ok {
					state = s
				}
				if got[i].State != state {
					t.Errorf("signature %d: %s (%s), want %s", i, got[i].State, got[i].Reason, state)
				}
				if w.Domain != "" && (string(got[i].Domain) != w.Domain ||
					got[i].Selector != w.Selector || !strings.HasPrefix(w.B, got[i].B)) {
					t.Errorf("signature %d: %+v, want %+v", i, got[i], w)
				}
			}
		})
	}
}

type vectorResult struct{ State, Domain, Selector, B string }

func readResult(t *testing.T, base string) []vectorResult {
	t.Helper()
	b, err := os.ReadFile(base + ".result")
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ Results []vectorResult }
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return f.Results
}

// readZone reads "name: text" entries, with backslashes at the ends of lines, and words for errors.
// A name that comes twice has two records.
func readZone(t *testing.T, base string) *dns.Zone {
	t.Helper()
	z := new(dns.Zone)
	b, err := os.ReadFile(base + ".dns")
	if os.IsNotExist(err) {
		return z
	}
	if err != nil {
		t.Fatal(err)
	}
	records := make(map[string][]string)
	for line := range bytes.SplitSeq(bytes.ReplaceAll(b, []byte("\\\n"), nil), []byte("\n")) {
		name, text, ok := strings.Cut(string(line), ":")
		if !ok {
			continue
		}
		switch text = strings.TrimSpace(text); text {
		case "TEMPERROR":
			z.Fail(name, dns.ServFail)
		case "PERMERROR":
			z.Fail(name, dns.NXDomain)
		default:
			records[name] = append(records[name], "TXT "+text)
		}
	}
	for name, rrs := range records {
		if err := z.Set(name, rrs...); err != nil {
			t.Fatal(err)
		}
	}
	return z
}
