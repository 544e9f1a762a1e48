package intake

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const unsubscribe = "List-Unsubscribe: <mailto:u@here.example>, <https://here.example/u/1>\n" +
	"List-Unsubscribe-Post: List-Unsubscribe=One-Click\n"

// crowd returns n recipients at other servers, and one of ours, who does not count.
func crowd(n int) []string {
	to := []string{"bob@here.example"}
	for i := range n {
		to = append(to, fmt.Sprintf("r%d@there.example", i))
	}
	return to
}

// newBulkOffice takes ten recipients for many.
func newBulkOffice(t *testing.T, policy BulkPolicy, addresses ...string) *office {
	return newSigningOffice(t, func(cfg *Config) {
		cfg.Bulk = Bulk{Policy: policy, Recipients: Rate{Count: 10, Per: time.Hour}, PostalAddresses: addresses}
	})
}

func (o *office) send(text string, to ...string) error {
	o.t.Helper()
	return o.submit("ada@here.example", "ada@here.example", text, to...)
}

func TestBulkIsRefused(t *testing.T) {
	o := newBulkOffice(t, BulkRefuse)
	for _, row := range []struct {
		name, text string
		n          int
		want       string
	}{
		{"few", whole, 10, ""},
		{"many", whole, 11, "to unsubscribe with one click"},
		{"many, with one click", unsubscribe + whole, 11, ""},
		{"no https", strings.Replace(unsubscribe, "https", "http", 1) + whole, 11, "one click"},
		{"no post", "List-Unsubscribe: <https://here.example/u>\n" + whole, 11, "one click"},
		{"another post", strings.Replace(unsubscribe, "One-Click", "Yes", 1) + whole, 11, "one click"},
		{"two ways", "List-Unsubscribe: <https://here.example/u>\n" + unsubscribe + whole, 11, "one click"},
	} {
		o.clock.Advance(2 * time.Hour)
		err := o.send(row.text, crowd(row.n)...)
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%s: %v", row.name, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) ||
			!strings.Contains(err.Error(), "5.7.1")):
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

// TestManySingleMessages: a message to each recipient alone is bulk mail as well, and two
// campaigns are two.
func TestManySingleMessages(t *testing.T) {
	o := newBulkOffice(t, BulkRefuse)
	list := strings.Replace(whole, "Subject: s", "Subject: s\nList-Id: <news.here.example>", 1)
	for i := range 10 {
		to := fmt.Sprintf("r%d@there.example", i)
		for _, text := range []string{whole, strings.Replace(list, ": s\n", fmt.Sprintf(": s%d\n", i), 1)} {
			if err := o.send(text, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := o.send(whole, "more@there.example"); err == nil {
		t.Error("the eleventh message with one subject was taken")
	}
	if err := o.send(strings.Replace(list, ": s\n", ": other\n", 1), "more@there.example"); err == nil {
		t.Error("the eleventh message of one list was taken")
	}
	if err := o.send(strings.Replace(whole, ": s\n", ": other\n", 1), "more@there.example"); err != nil {
		t.Error(err)
	}
	if err := o.submit("bob@here.example", "bob@here.example", strings.Replace(whole, "ada@", "bob@", 1),
		"more@there.example"); err != nil {
		t.Errorf("another account: %v", err)
	}
	o.clock.Advance(time.Hour)
	if err := o.send(whole, "more@there.example"); err != nil {
		t.Errorf("an hour later: %v", err)
	}
}

func TestBulkUnsigned(t *testing.T) {
	o := newBulkOffice(t, BulkRefuse)
	o.in.cfg.Signer = nil
	err := o.send(unsubscribe+whole, crowd(11)...)
	if err == nil || !strings.Contains(err.Error(), "the keys of here.example are not in the DNS yet") {
		t.Errorf("%v", err)
	}
}

func TestBulkIsWarnedOf(t *testing.T) {
	o := newBulkOffice(t, BulkWarn)
	expect := func(letters int) {
		t.Helper()
		for range letters {
			o.last()
		}
		time.Sleep(20 * time.Millisecond) // what must not come would be here by now
		if len(o.arrived) > 0 {
			t.Errorf("%d messages too many", len(o.arrived))
		}
	}
	if err := o.send(whole, crowd(11)...); err != nil {
		t.Fatal(err)
	}
	expect(3) // for Bob, for the crowd, for Ada
	i := slices.IndexFunc(o.letters, func(l letterSent) bool { return l.env.Recipients[0].Address == at("ada@here.example") })
	if i < 0 {
		t.Fatal("Ada was not told")
	}
	l := o.letters[i]
	h := l.header(t)
	if !l.env.From.IsNull() || h.Get("From") != "<postmaster@here.example>" ||
		h.Get("Auto-Submitted") != "auto-generated" || !strings.Contains(string(l.text), "<1@here.example>") ||
		!strings.Contains(string(l.text), "one click") {
		t.Errorf("the notice:\n%s", l.text)
	}
	if err := o.send(whole, crowd(11)...); err != nil {
		t.Fatal(err)
	}
	expect(2) // not twice a day
	o.clock.Advance(25 * time.Hour)
	if err := o.send(whole, crowd(11)...); err != nil {
		t.Fatal(err)
	}
	expect(3)
	if err := o.send(unsubscribe+whole, crowd(11)...); err != nil {
		t.Fatal(err)
	}
	expect(2)
}

func TestBulkOff(t *testing.T) {
	o := newBulkOffice(t, BulkOff)
	if err := o.send(whole, crowd(100)...); err != nil {
		t.Error(err)
	}
}

func TestPostalAddress(t *testing.T) {
	o := newBulkOffice(t, BulkRefuse, "Example e. V., Größe Str. 1, 12345 Köln", "Example Ltd, London")
	head := unsubscribe + strings.TrimSuffix(whole, "\nhello\n")
	text := "hello,\n\nnews.\n\nExample e.V.\nGröße Str. 1\n12345 KÖLN\n"
	page := "<p>news</p><footer>Example e.V.<br>Gr&ouml;&szlig;e <b>Str.</b>&nbsp;1 &middot; 12345 K&ouml;ln</footer>"
	latin := "Example e.V. - Gr\xf6\xdfe Str. 1 - 12345 K\xf6ln\n"
	for _, row := range []struct {
		name, text string
		want       bool
	}{
		{"none", head + "\nhello\n", false},
		{"plain", head + "\n" + text, true},
		{"the other one", head + "\nExample Ltd, London\n", true},
		{"a part of it", head + "\nExample e.V., 12345 Köln\n", false},
		{"in another word", head + "\nExample Ltd, Londonderry\n", false},
		{"base64", head + "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n" +
			base64.StdEncoding.EncodeToString([]byte(text)) + "\n", true},
		{"quoted-printable", head + "Content-Transfer-Encoding: quoted-printable\n\nExample Ltd=2C Lon=\ndon\n", true},
		{"Latin-1", head + "Content-Type: text/plain; charset=iso-8859-1\n\n" + latin, true},
		{"HTML", head + "Content-Type: text/html\n\n" + page + "\n", true},
		{"a part of many", head + "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=b\n\n" +
			"--b\n\nhello\n--b\nContent-Type: text/html\n\n" + page + "\n--b--\n", true},
		{"in a picture", head + "Content-Type: image/png\n\nExample Ltd, London\n", false},
		{"far behind", head + "\n" + strings.Repeat("0123456789abcde\n", maxBulkBody/17) + text, false},
	} {
		o.clock.Advance(2 * time.Hour)
		err := o.send(row.text, crowd(11)...)
		if row.want && err != nil || !row.want && (err == nil || !strings.Contains(err.Error(), "your postal address")) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}
