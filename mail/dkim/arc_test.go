package dkim

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/vectors"
	"github.com/tallypost/tallypost/mail"
)

// node is a mapping or a text of the small part of YAML that the ARC suite is written in: mappings
// by indentation, plain values, and blocks of text after "|" or ">-".
type node struct {
	text string
	keys []string
	sub  map[string]*node
}

func (n *node) get(key string) *node {
	if s := n.sub[key]; s != nil {
		return s
	}
	return new(node)
}

// readYAML returns the documents of a file.
func readYAML(t *testing.T, name string) []*node {
	t.Helper()
	var docs []*node
	text := "\n" + string(vectors.Read(t, name))
	for strings.Contains(text, "\n--- ") {
		text = strings.ReplaceAll(text, "\n--- ", "\n---")
	}
	for doc := range strings.SplitSeq(text, "\n---\n") {
		lines := strings.Split(doc, "\n")
		n, _ := readMapping(lines, 0, 0)
		docs = append(docs, n)
	}
	return docs
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

func readMapping(lines []string, i, depth int) (*node, int) {
	n := &node{sub: make(map[string]*node)}
	for i < len(lines) {
		line := lines[i]
		if strings.TrimSpace(line) == "" || strings.HasPrefix(strings.TrimSpace(line), "#") {
			i++
			continue
		}
		if indent(line) < depth {
			break
		}
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		var child *node
		switch i++; value {
		case "|", ">-", ">":
			child, i = readBlock(lines, i, indent(line), value != "|")
		case "":
			child, i = readMapping(lines, i, indent(line)+1)
		default:
			child = &node{text: strings.Trim(value, `"'`)}
		}
		n.keys = append(n.keys, key)
		n.sub[key] = child
	}
	return n, i
}

// readBlock reads the lines that are indented more than the key.
func readBlock(lines []string, i, depth int, folded bool) (*node, int) {
	var out []string
	width := -1
	for ; i < len(lines); i++ {
		if strings.TrimSpace(lines[i]) == "" {
			out = append(out, strings.TrimPrefix(lines[i], strings.Repeat(" ", max(width, 0))))
			if width < 0 || strings.Trim(out[len(out)-1], " ") == "" && len(lines[i]) <= width {
				out[len(out)-1] = ""
			}
			continue
		}
		if indent(lines[i]) <= depth {
			break
		}
		if width < 0 {
			width = indent(lines[i])
		}
		out = append(out, lines[i][width:])
	}
	for len(out) > 0 && out[len(out)-1] == "" {
		out = out[:len(out)-1]
	}
	if folded {
		return &node{text: strings.Join(out, " ")}, i
	}
	return &node{text: strings.Join(out, "\n") + "\n"}, i
}

func zoneOf(t *testing.T, doc *node) *dns.Zone {
	t.Helper()
	z := new(dns.Zone)
	for _, name := range doc.get("txt-records").keys {
		text := strings.Join(strings.Fields(doc.get("txt-records").get(name).text), " ")
		text = strings.ReplaceAll(text, `" "`, "")
		if text == "" {
			continue
		}
		if err := z.Set(name, "TXT "+text); err != nil {
			t.Fatal(err)
		}
	}
	return z
}

// arcNow is after every t= in the suite.
var arcNow = time.Date(2017, 6, 1, 0, 0, 0, 0, time.UTC)

// TestARCValidation runs the validation cases of ValiMail's suite.
func TestARCValidation(t *testing.T) {
	// Cases in which we say something else than the suite, with the reason.
	differs := map[string]State{
		// RFC 6376, section 3.5, wants a name in h=, and section 5.4 wants From.
		"ams_fields_h_empty": Fail,
		// No expectation in the suite; RFC 8617, section 5.2, steps 2 and 3.C.
		"cv_fail_i1_as_cv_fail": Fail,
		"cv_fail_i2_as2_fail":   Fail,
		"cv_fail_i2_as1_fail":   Fail,
	}
	want := map[string]State{"None": None, "Pass": Pass, "Fail": Fail}
	cases := 0
	for _, doc := range readYAML(t, "mail/arc/arc-draft-validation-tests.yml") {
		zone := zoneOf(t, doc)
		for _, name := range doc.get("tests").keys {
			c := doc.get("tests").get(name)
			cases++
			msg := crlf(c.get("message").text)
			_, v := verify(t, zone, msg, arcNow, 5, VerifyConfig{})
			got := v.ARC()
			expect := want[strings.TrimSpace(c.get("cv").text)]
			if d, ok := differs[name]; ok {
				expect = d
			}
			if got.State != expect {
				t.Errorf("%s (%s): %s (%s), want %s", name, c.get("description").text,
					got.State, got.Reason, expect)
			}
		}
	}
	if cases != 175 {
		t.Errorf("%d cases, the suite has 175", cases)
	}
}

// TestARCSealing runs the sealing cases: the same signatures must come out, octet for octet.
func TestARCSealing(t *testing.T) {
	cases := 0
	for _, doc := range readYAML(t, "mail/arc/arc-draft-sign-tests.yml") {
		private, err := ParseKey([]byte(doc.get("privatekey").text))
		if err != nil {
			t.Fatal(err)
		}
		sealer, err := NewSealer(Key{Domain: mail.Domain(doc.get("domain").text),
			Selector: doc.get("sel").text, Private: private})
		if err != nil {
			t.Fatal(err)
		}
		zone := zoneOf(t, doc)
		for _, name := range doc.get("tests").keys {
			cases++
			c := doc.get("tests").get(name)
			t.Run(name, func(t *testing.T) { sealCase(t, sealer, zone, c) })
		}
	}
	if cases != 17 {
		t.Errorf("%d cases, the suite has 17", cases)
	}
}

func sealCase(t *testing.T, sealer *Sealer, zone *dns.Zone, c *node) {
	msg := crlf(c.get("message").text)
	seconds, err := strconv.ParseInt(c.get("t").text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(seconds, 0)
	_, v := verify(t, zone, msg, now, 0, VerifyConfig{})
	h, err := mail.ParseHeader([]byte(msg))
	if err != nil {
		t.Fatal(err)
	}
	// The suite takes the results from the fields of this server; ours knows them.
	results := mail.AuthResults{ServID: c.get("srv-id").text}
	for _, f := range h.All("Authentication-Results") {
		a, err := mail.ParseAuthResults(f.Value())
		if err == nil && a.ServID == results.ServID {
			results.Results = append(results.Results, a.Results...)
		}
	}
	names := strings.Split(c.get("sig-headers").text, ":")
	g, err := sealer.begin(h, newHeaderSource(h), names, v.ARC(), results, now)
	if strings.TrimSpace(c.get("AS").text) == "" {
		if err == nil {
			t.Error("sealed what must not be")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	g.Write([]byte(msg[h.Len:]))
	set, err := g.Finish()
	if err != nil {
		t.Fatal(err)
	}
	made, err := mail.ParseHeader(set)
	if err != nil || len(made.Fields) != 3 {
		t.Fatalf("%d fields, %v", len(made.Fields), err)
	}
	for i, key := range []string{"AS", "AMS"} {
		got, err1 := parseTags(made.Fields[i].Value())
		want, err2 := parseTags(strings.TrimSpace(c.get(key).text))
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		for _, w := range want {
			if v, _ := got.get(w.name); dropFWS(v) != dropFWS(w.value) {
				t.Errorf("%s: %s=%s, want %s", key, w.name, v, w.value)
			}
		}
	}
	if got, want := dropFWS(made.Fields[2].Value()), dropFWS(c.get("AAR").text); got != want {
		t.Errorf("AAR %s\nwant %s", got, want)
	}
}
