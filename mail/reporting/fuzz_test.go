package reporting

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/mail"
)

// FuzzReceived: whatever a stranger sends to the address of reports is kept within bounds and read again.
func FuzzReceived(f *testing.F) {
	f.Add(carry("", "text/xml", dmarcXML))
	f.Add(carry("", "application/tlsrpt+json", tlsJSON))
	f.Add(carry("Authentication-Results: mx.us.example; dkim=pass header.d=x\n", "text/plain", "hello"))
	f.Add(carry("", "multipart/mixed; boundary=b", "--b\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b--b--\r\n"))
	f.Fuzz(func(t *testing.T, text string) {
		r := Received{ID: mail.ID(1).String(), At: start}
		r.Vouched = (&Inbox{name: "mx.us.example"}).vouched([]byte(text))
		if err := r.read([]byte(text)); err != nil {
			r.Error = err.Error()
		}
		if (r.Error == "") != (r.Kind != "") || len(r.Details) > maxSources {
			t.Fatalf("%+v", r)
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 100*len(text)+1<<20 {
			t.Errorf("%d octets are kept of %d", len(b), len(text))
		}
		var again Received
		if err := json.NewDecoder(strings.NewReader(string(b))).Decode(&again); err != nil {
			t.Fatal(err)
		}
	})
}
