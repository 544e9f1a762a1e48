package intake

import (
	"strings"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
)

// vouched returns the sealer that a message which fails DMARC has passed it for, before it was forwarded
// and changed on the way. Only sealers of Config.TrustedSealers count, and only an unbroken line of them
// from us backwards: what the last one says of the one before is worth as much as the last one, but what
// lies behind a stranger anybody can have written (RFC 8617, section 7.2).
//
// It is no reason to accept a message: it takes DMARC's failure away and nothing else.
func (in *Intake) vouched(id *identity) (mail.Domain, bool) {
	if id.arc.State != dkim.Pass {
		return "", false
	}
	for i := len(id.arc.Sets) - 1; i >= 0; i-- {
		set := id.arc.Sets[i]
		if !in.sealers[set.Sealer] {
			return "", false
		}
		if claimsDMARC(set.Results, id.author.Domain) {
			return set.Sealer, true
		}
	}
	return "", false
}

// claimsDMARC reports whether results say that the message passed DMARC for this author.
func claimsDMARC(a mail.AuthResults, author string) bool {
	for _, r := range a.Results {
		if r.Method != "dmarc" || r.Result != "pass" {
			continue
		}
		for _, p := range r.Props {
			if p.Type == "header" && p.Name == "from" && sameDomain(p.Value, author) {
				return true
			}
		}
	}
	return false
}

func sameDomain(a, b string) bool {
	da, erra := mail.ParseDomain(a)
	db, errb := mail.ParseDomain(b)
	if erra != nil || errb != nil {
		return strings.EqualFold(a, b)
	}
	return da == db
}
