package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxDepth is how deep an event may nest; ours have two levels.
const maxDepth = 4

// fields is what a verifier reads of an event. Addresses stay text: a proof does not fail because
// of the form of an address.
type fields struct {
	Kind      string   `json:"kind"`
	Time      string   `json:"time"`
	ID        string   `json:"id"`
	MessageID string   `json:"message_id"`
	From      *string  `json:"from"`
	To        []string `json:"to"`
	Size      int64    `json:"size"`
	SHA256    string   `json:"sha256"`
	Peer      *peer    `json:"peer"`
	Reply     string   `json:"reply"`
	Note      string   `json:"note"`
}

type peer struct {
	Name       string `json:"name"`
	Addr       string `json:"addr"`
	Account    string `json:"account"`
	TLSVersion string `json:"tls_version"`
	Cipher     string `json:"cipher"`
	CertSHA256 string `json:"cert_sha256"`
}

// parseFields reads an event. Its octets were verified as a whole; what is left to see to is that
// they mean the same to every reader. warn tells of members that this version does not know.
func parseFields(text []byte) (f fields, warn string, err error) {
	if !utf8.Valid(text) {
		return f, "", errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := checkNames(d, 0); err != nil {
		return f, "", err
	}
	if _, err := d.Token(); err != io.EOF {
		return f, "", errors.New("more than one JSON value")
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, "", err
	}
	d = json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(new(fields)); err != nil {
		warn = err.Error()
	}
	return f, warn, nil
}

// checkNames wants names of lower case letters, digits and _, no two of them alike in an object:
// one reader takes the first of two members, another the last, and encoding/json ignores case.
func checkNames(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := token.(json.Delim)
	if !ok {
		if depth == 0 {
			return errors.New("not a JSON object")
		}
		return nil
	}
	if depth == 0 && open != '{' {
		return errors.New("not a JSON object")
	}
	seen := make(map[string]bool)
	for d.More() {
		if open == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			if err := checkName(name.(string), seen); err != nil {
				return err
			}
		}
		if err := checkNames(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token() // the closing one
	return err
}

func checkName(name string, seen map[string]bool) error {
	if seen[name] {
		return fmt.Errorf("two members have the name %q", name)
	}
	seen[name] = true
	for i := 0; i < len(name); i++ {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return fmt.Errorf("name %q has a character other than a-z, 0-9 and _", name)
		}
	}
	return nil
}
