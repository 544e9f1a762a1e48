package dkim

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// recipe says how to get from a message to what it was before a hop changed it. Steps make a list of
// lines or of fields from those there are now.
type recipe struct {
	header map[string][]recipeStep // by name; the fields of a name are counted from the last one up
	body   []recipeStep            // nil: unchanged
	// lost says that the body cannot be had again.
	lost bool
}

// recipeStep copies what is numbered Copy[0] to Copy[1], counted from 1, or adds Data.
type recipeStep struct {
	Copy []int    `json:"c"`
	Data []string `json:"d"`
}

// spareOctets is how much larger than message and recipe together an earlier version may be. Copying a
// line again and again would let a short recipe make gigabytes.
const spareOctets = 64 << 10

var errRecipeTooLarge = errors.New("undoing it makes more than there can have been")

func parseRecipe(text []byte) (*recipe, error) {
	var parts struct {
		Header map[string][]recipeStep `json:"h"`
		Body   json.RawMessage         `json:"b"` // "null" is not the same as absent
	}
	if err := json.Unmarshal(text, &parts); err != nil {
		return nil, errors.New("not the JSON that it should be")
	}
	r := &recipe{header: make(map[string][]recipeStep, len(parts.Header))}
	for name, steps := range parts.Header {
		r.header[strings.ToLower(name)] = steps
	}
	switch {
	case parts.Body == nil:
	case string(parts.Body) == "null":
		r.lost = true
	default:
		r.body = []recipeStep{}
		if err := json.Unmarshal(parts.Body, &r.body); err != nil {
			return nil, errors.New("no steps for the body")
		}
	}
	return r, nil
}

// version is a message as it was at some hop, as far as DKIM2 looks at it.
type version struct {
	fields map[string][][]byte // raw, by name in lower case, the last one of a name first
	body   []byte
	size   int // octets of header and body, and of the recipes applied: the budget for growing
}

func newVersion(h mail.Header, body []byte) *version {
	v := &version{fields: make(map[string][][]byte), body: body, size: h.Len + len(body)}
	for _, f := range slices.Backward(h.Fields) {
		if name := strings.ToLower(f.Name()); !unsigned(name) {
			v.fields[name] = append(v.fields[name], f.Raw)
		}
	}
	return v
}

// unsigned reports whether a field is left out of the hash: trace, other signatures, and X- fields, which
// servers add on the way.
func unsigned(name string) bool {
	switch name {
	case "received", "return-path", "delivered-to", "authentication-results", "dkim-signature",
		"message-instance", "dkim2-signature", "arc-authentication-results",
		"arc-message-signature", "arc-seal":
		return true
	}
	return strings.HasPrefix(name, "x-")
}

// headerHash hashes the fields in relaxed form, sorted by name, those of a name from the last one up.
func (v *version) headerHash() []byte {
	h := sha256.New()
	var buf []byte
	for _, name := range slices.Sorted(maps.Keys(v.fields)) {
		for _, raw := range v.fields[name] {
			buf = appendRelaxed(buf[:0], raw)
			h.Write(buf)
		}
	}
	return h.Sum(nil)
}

func (v *version) bodyHash() []byte {
	b := newBodyHash(simple)
	defer b.release()
	b.Write(v.body)
	return b.sum()
}

// undo turns the version into the one before.
func (v *version) undo(r *recipe) error {
	if r.lost {
		return errors.New("the body before it cannot be had again")
	}
	v.size += spareOctets + r.octets()
	room := v.size
	for _, name := range slices.Sorted(maps.Keys(r.header)) {
		if unsigned(name) {
			continue
		}
		fields, err := apply(r.header[name], v.fields[name], &room, func(value string) []byte {
			return []byte(name + ":" + value + "\r\n")
		})
		if err != nil {
			return err
		}
		if v.fields[name] = fields; len(fields) == 0 {
			delete(v.fields, name)
		}
	}
	if r.body == nil {
		return nil
	}
	lines, err := apply(r.body, bodyLines(v.body), &room, func(s string) []byte { return []byte(s) })
	if err != nil {
		return err
	}
	v.body = bytes.Join(lines, []byte("\r\n"))
	if len(lines) > 0 {
		v.body = append(v.body, '\r', '\n')
	}
	return nil
}

// octets is how much the recipe itself can add.
func (r *recipe) octets() int {
	n := 0
	for name, steps := range r.header {
		n += dataOctets(steps, len(name)+3)
	}
	return n + dataOctets(r.body, 2)
}

func dataOctets(steps []recipeStep, each int) int {
	n := 0
	for _, s := range steps {
		for _, d := range s.Data {
			n += len(d) + each
		}
	}
	return n
}

// apply follows the steps. Numbers beyond the end copy what there is; room is what may still be made.
func apply(steps []recipeStep, have [][]byte, room *int, data func(string) []byte) ([][]byte, error) {
	var out [][]byte
	for _, s := range steps {
		if len(s.Copy) == 2 {
			for i := max(s.Copy[0], 1); i <= min(s.Copy[1], len(have)); i++ {
				if *room -= len(have[i-1]) + 2; *room < 0 {
					return nil, errRecipeTooLarge
				}
				out = append(out, have[i-1])
			}
			continue
		}
		for _, d := range s.Data {
			line := data(d)
			if *room -= len(line) + 2; *room < 0 {
				return nil, errRecipeTooLarge
			}
			out = append(out, line)
		}
	}
	return out, nil
}

// bodyLines splits a body into lines without their ends.
func bodyLines(body []byte) [][]byte {
	lines := bytes.Split(body, []byte("\n"))
	for i, l := range lines {
		lines[i] = bytes.TrimSuffix(l, []byte("\r"))
	}
	if last := len(lines) - 1; len(lines[last]) == 0 {
		lines = lines[:last] // the last line end ended a line, it did not begin one
	}
	return lines
}
