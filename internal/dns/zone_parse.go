package dns

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	miekg "github.com/miekg/dns"
)

// Limits on the text of a zone, which may come from a file of the user's.
const (
	maxZoneText    = 16 << 20 // octets
	maxZoneRecords = 100_000
	defaultTTL     = 300 // seconds, where the text gives none
)

// ParseZone reads a zone file (RFC 1035, section 5) into a new Zone. Names without final dot are
// below origin; $INCLUDE is refused.
func ParseZone(origin, text string) (*Zone, error) {
	z := new(Zone)
	if err := z.Add(origin, text); err != nil {
		return nil, err
	}
	return z, nil
}

// Add reads records in the form of a zone file into the Zone, all of them or none.
func (z *Zone) Add(origin, text string) error {
	if len(text) > maxZoneText {
		return fmt.Errorf("zone text of %d octets, the limit is %d", len(text), maxZoneText)
	}
	zp := miekg.NewZoneParser(strings.NewReader(text), miekg.Fqdn(origin), "")
	zp.SetDefaultTTL(defaultTTL)
	var rrs []miekg.RR
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		if len(rrs) == maxZoneRecords {
			return fmt.Errorf("zone text with more than %d records", maxZoneRecords)
		}
		rrs = append(rrs, rr)
	}
	if err := zp.Err(); err != nil {
		return fmt.Errorf("zone %s: %w", origin, err)
	}
	return z.insert(rrs)
}

// Set replaces all records of a name; none removes it. A record is its type and its data as in a
// zone file, "MX 10 mx.example.org", with names taken as absolute. The text of a TXT record
// stands without quotes, spaces and semicolons as they are: "TXT v=spf1 mx -all".
func (z *Zone) Set(name string, records ...string) error {
	var rrs []miekg.RR
	for _, r := range records {
		rr, err := parseRecord(name, r)
		if err != nil {
			return fmt.Errorf("record %q of %s: %w", r, name, err)
		}
		rrs = append(rrs, rr)
	}
	owner, err := normal(name)
	if err != nil {
		return fmt.Errorf("name %q: %w", name, err)
	}
	z.mu.Lock()
	z.remove(owner)
	z.mu.Unlock()
	return z.insert(rrs)
}

func parseRecord(name, record string) (miekg.RR, error) {
	kind, data, _ := strings.Cut(strings.TrimSpace(record), " ")
	if strings.EqualFold(kind, "TXT") && !strings.HasPrefix(strings.TrimSpace(data), `"`) {
		return textRecord(name, data), nil
	}
	line := fmt.Sprintf("%s %d IN %s", miekg.Fqdn(name), defaultTTL, record)
	rr, err := miekg.NewRR(line)
	if err == nil && rr == nil {
		err = errors.New("empty")
	}
	return rr, err
}

// textRecord cuts a text into the strings of at most 255 octets that a TXT record is made of, in
// the escaped form that the library keeps them in.
func textRecord(name, text string) miekg.RR {
	rr := &miekg.TXT{Hdr: miekg.RR_Header{Name: miekg.Fqdn(name), Rrtype: miekg.TypeTXT,
		Class: miekg.ClassINET, Ttl: defaultTTL}}
	for part := range slices.Chunk([]byte(text), 255) {
		var b strings.Builder
		for _, c := range part {
			if c < ' ' || c > '~' || c == '"' || c == '\\' {
				fmt.Fprintf(&b, "\\%03d", c)
			} else {
				b.WriteByte(c)
			}
		}
		rr.Txt = append(rr.Txt, b.String())
	}
	if len(rr.Txt) == 0 {
		rr.Txt = []string{""}
	}
	return rr
}

// insert checks all records before it keeps one.
func (z *Zone) insert(rrs []miekg.RR) error {
	scratch := make([]byte, 65535)
	owners := make([]string, len(rrs))
	for i, rr := range rrs {
		err := checkRecord(rr, scratch)
		if err == nil {
			owners[i], err = normal(rr.Header().Name)
		}
		if err != nil {
			return fmt.Errorf("record %q: %w", rr, err)
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.nodes == nil {
		z.nodes, z.below = make(map[string][]miekg.RR), make(map[string]int)
	}
	for i, rr := range rrs {
		owner := owners[i]
		if len(z.nodes[owner]) == 0 {
			for n := owner; n != ""; n = parent(n) {
				z.below[n]++
			}
		}
		z.nodes[owner] = append(z.nodes[owner], rr)
	}
	return nil
}

// checkRecord wants a record that can be sent. The library also reads one without data, as dynamic
// updates have them, and leaves its fields unset.
func checkRecord(rr miekg.RR, scratch []byte) error {
	if fresh := miekg.TypeToRR[rr.Header().Rrtype]; fresh != nil {
		unset := fresh()
		*unset.Header() = *rr.Header()
		if miekg.IsDuplicate(rr, unset) {
			return errors.New("no data")
		}
	}
	_, err := miekg.PackRR(rr, scratch, 0, nil, false)
	return err
}

func (z *Zone) remove(owner string) {
	if len(z.nodes[owner]) == 0 {
		return
	}
	delete(z.nodes, owner)
	for n := owner; n != ""; n = parent(n) {
		if z.below[n]--; z.below[n] == 0 {
			delete(z.below, n)
		}
	}
}
