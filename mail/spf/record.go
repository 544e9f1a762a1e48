package spf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// record is a record that was read (section 4.5).
type record struct {
	directives []directive
	redirect   string // domain-spec; empty: none
	exp        string // likewise
}

// kind is the name of a mechanism.
type kind uint8

const (
	all kind = iota
	include
	addr
	mx
	ptr
	ip4
	ip6
	exists
)

var kinds = map[string]kind{"all": all, "include": include, "a": addr, "mx": mx, "ptr": ptr,
	"ip4": ip4, "ip6": ip6, "exists": exists}

// directive is a mechanism and the result where it matches.
type directive struct {
	text   string // as published
	result Result
	kind   kind
	spec   string // domain-spec; empty: the current domain
	prefix netip.Prefix
	bits4  int // of "a" and "mx", how much of an address must be the same
	bits6  int
}

const version = "v=spf1"

// isRecord reports whether the text of a TXT record is one of SPF.
func isRecord(s string) bool {
	return len(s) >= len(version) && strings.EqualFold(s[:len(version)], version) &&
		(len(s) == len(version) || s[len(version)] == ' ')
}

// maxTerms is ours; a record that fits a UDP answer has far fewer.
const maxTerms = 500

// parseRecord reads a record to its end: one syntax error makes all of it void (section 4.6).
func parseRecord(s string) (*record, error) {
	rec := new(record)
	n := 0
	for term := range strings.SplitSeq(s[len(version):], " ") {
		if term == "" {
			continue
		}
		if n++; n > maxTerms {
			return nil, fmt.Errorf("more than %d terms", maxTerms)
		}
		if err := rec.add(term); err != nil {
			return nil, fmt.Errorf("%.80q: %w", term, err)
		}
	}
	return rec, nil
}

// add reads a term: a modifier is a name and "=", before any ":" or "/".
func (rec *record) add(term string) error {
	if i := strings.IndexAny(term, "=:/"); i >= 0 && term[i] == '=' {
		return rec.addModifier(term[:i], term[i+1:])
	}
	d := directive{text: term, result: Pass, bits4: 32, bits6: 128}
	switch term[0] {
	case '-':
		d.result = Fail
	case '~':
		d.result = SoftFail
	case '?':
		d.result = Neutral
	}
	if strings.IndexByte("+-~?", term[0]) >= 0 {
		term = term[1:]
	}
	end := strings.IndexAny(term, ":/")
	if end < 0 {
		end = len(term)
	}
	var known bool
	if d.kind, known = kinds[strings.ToLower(term[:end])]; !known {
		return errors.New("unknown mechanism")
	}
	if err := d.argument(term[end:]); err != nil {
		return err
	}
	rec.directives = append(rec.directives, d)
	return nil
}

var errArgument = errors.New("malformed argument")

// argument reads what follows the name of a mechanism, with its ":" or "/".
func (d *directive) argument(arg string) (err error) {
	value, colon := strings.CutPrefix(arg, ":")
	switch d.kind {
	case all:
		if arg != "" {
			return errArgument
		}
		return nil
	case ip4, ip6:
		if !colon {
			return errArgument
		}
		d.prefix, err = parseNetwork(value, d.kind == ip4)
		return err
	case addr, mx:
		if value, err = d.cutBits(value); err != nil {
			return err
		}
	}
	switch {
	case colon:
		d.spec = value
		return checkDomainSpec(value)
	case value != "" || d.kind == include || d.kind == exists:
		return errArgument
	}
	return nil
}

// cutBits reads the lengths of prefixes at the end of "a" and "mx" and returns what is before: "/24",
// "//64", "/24//64". Other slashes belong to the domain.
func (d *directive) cutBits(s string) (rest string, err error) {
	rest = s
	if i := strings.LastIndexByte(rest, '/'); i > 0 && rest[i-1] == '/' && isDigits(rest[i+1:]) {
		if d.bits6, err = parseBits(rest[i+1:], 128); err != nil {
			return "", err
		}
		rest = rest[:i-1]
	}
	if i := strings.LastIndexByte(rest, '/'); i >= 0 && isDigits(rest[i+1:]) {
		if d.bits4, err = parseBits(rest[i+1:], 32); err != nil {
			return "", err
		}
		rest = rest[:i]
	}
	return rest, nil
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// parseBits reads a number without a zero in front.
func parseBits(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || !isDigits(s) || n > most || len(s) > 1 && s[0] == '0' {
		return 0, fmt.Errorf("prefix length %.20q, want 0 to %d", s, most)
	}
	return n, nil
}

// parseNetwork reads an address and perhaps the length of its prefix.
func parseNetwork(s string, v4 bool) (netip.Prefix, error) {
	host, length, cut := strings.Cut(s, "/")
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Is4() != v4 || ip.Zone() != "" {
		return netip.Prefix{}, errArgument
	}
	bits := ip.BitLen()
	if cut {
		if bits, err = parseBits(length, bits); err != nil {
			return netip.Prefix{}, err
		}
	}
	return netip.PrefixFrom(ip, bits), nil
}

// addModifier reads "redirect", "exp", or one that is not known (section 6).
func (rec *record) addModifier(name, value string) error {
	for i, c := range []byte(name) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '-' && c != '_' && c != '.') {
			return errors.New("malformed name of a modifier")
		}
	}
	var into *string
	switch strings.ToLower(name) {
	case "":
		return errors.New("modifier without a name")
	case "redirect":
		into = &rec.redirect
	case "exp":
		into = &rec.exp
	default:
		return checkMacros(value, false)
	}
	if *into != "" {
		return errors.New("modifier that was there before")
	}
	*into = value
	return checkDomainSpec(value)
}
