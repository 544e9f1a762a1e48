package reputation

import (
	netmail "net/mail"
	"net/netip"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// AuthorAddress returns the address of the From field, for a Sender whose domain is verified; empty where
// there is not exactly one.
func AuthorAddress(h mail.Header) string {
	list, err := netmail.ParseAddressList(h.Get("From"))
	if err != nil || len(list) != 1 {
		return ""
	}
	return list[0].Address
}

// NetworkOf returns the network of an address that counts as one sender: /24 or /64.
func NetworkOf(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 24
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// SenderOf reads from a delivered message who had sent it, as its Authentication-Results say that bear our
// name: servID. The id names the message. ok is false where the message has no such field, as mail from here.
func SenderOf(h mail.Header, servID string) (s Sender, id string, ok bool) {
	for _, f := range h.Fields {
		if !f.Is("Authentication-Results") || !f.BearsAuthServID(servID) {
			continue
		}
		results, err := mail.ParseAuthResults(f.Value())
		if err != nil {
			return s, "", false
		}
		for _, r := range results.Results {
			s.add(r, h)
		}
		// Our own Received is the first: it has the queue id, and a copy that was moved has it too.
		return s, h.Get("Received"), h.Get("Received") != ""
	}
	return s, "", false
}

// add takes what one result says of the sender.
func (s *Sender) add(r mail.AuthResult, h mail.Header) {
	prop := func(kind, name string) string {
		for _, p := range r.Props {
			if p.Type == kind && p.Name == name {
				return strings.ToLower(p.Value)
			}
		}
		return ""
	}
	switch {
	case r.Method == "iprev":
		if ip, err := netip.ParseAddr(prop("policy", "iprev")); err == nil {
			s.Network = NetworkOf(ip)
		}
	case r.Result != "pass":
	case r.Method == "dkim":
		s.vouch(prop("header", "d"))
	case r.Method == "spf":
		s.vouch(prop("smtp", "mailfrom"))
	case r.Method == "dmarc":
		s.Author = AuthorAddress(h)
	}
}

func (s *Sender) vouch(domain string) {
	if _, after, ok := strings.Cut(domain, "@"); ok {
		domain = after
	}
	if domain != "" && !slices.Contains(s.Domains, domain) {
		s.Domains = append(s.Domains, domain)
	}
}
