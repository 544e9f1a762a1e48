package relay

import "strings"

// provider is what is known of the servers of one provider. The figures are those their postmasters
// publish or that senders have found to be put up with, as the KumoMTA project collects them
// (policy-extras and community shaping.toml of 2026, Apache-2.0); a figure of 0 is none.
type provider struct {
	name     string
	suffixes []string // of all its MX hosts
	// merged: all hosts share the limits, whatever domain they serve. Where a provider has regions of
	// their own, each set of hosts is a site.
	merged      bool
	connections int  // at a time
	messages    int  // over one connection
	encrypted   bool // it offers TLS without fail
}

var providers = []provider{
	{"google", []string{".google.com", ".googlemail.com"}, true, 5, 50, true},
	{"yahoo", []string{".yahoodns.net"}, true, 0, 20, false},
	{"outlook", []string{".olc.protection.outlook.com"}, true, 5, 50, false},
	{"office365", []string{".mail.protection.outlook.com", ".mx.microsoft"}, true, 5, 50, false},
	{"apple", []string{".icloud.com"}, true, 10, 5, false},
	{"gmx", []string{".gmx.net", ".web.de"}, true, 4, 20, true},
	{"orange", []string{".orange.fr"}, true, 2, 100, true},
	{"comcast", []string{".comcast.net"}, true, 20, 0, true},
	{"yahoo.co.jp", []string{".yahoo.co.jp"}, true, 2, 20, false},
	{"qq", []string{".qq.com"}, true, 4, 8, true},
	{"netease", []string{".netease.com"}, true, 4, 7, true},
	{"kpn", []string{".kpnmail.nl"}, true, 10, 10, true},
	{"netvigator", []string{".netvigator.com"}, true, 5, 10, true},
	{"barracuda", []string{".barracudanetworks.com"}, true, 10, 15, true},
	{"mimecast", []string{".mimecast.com", ".mimecast.co.za", ".mimecast-offshore.com"},
		false, 10, 100, false},
}

// providerOf returns the provider whose hosts all of these are.
func providerOf(hosts []string) *provider {
	if len(hosts) == 0 {
		return nil
	}
next:
	for i := range providers {
		for _, h := range hosts {
			if !providers[i].has(h) {
				continue next
			}
		}
		return &providers[i]
	}
	return nil
}

func (p *provider) has(host string) bool {
	for _, s := range p.suffixes {
		if strings.HasSuffix(host, s) {
			return true
		}
	}
	return false
}
