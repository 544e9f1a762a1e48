package node

import "github.com/tallypost/tallypost/mail/relay"

// routes are the ways of mail that do not lead to the MX hosts of a domain.
func (r Relay) routes() map[string]relay.Transport {
	if r.Smarthost == "" {
		return nil
	}
	return map[string]relay.Transport{"*": {Address: r.Smarthost}}
}
