package reputation

import (
	"net/netip"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// SenderField is the field that intake puts in front of every message from outside, so that what becomes of
// the message can be counted for its sender later. One that comes in from outside is removed.
const SenderField = "X-Tallypost-Sender"

// Field returns the field for a message, with its CRLF.
func (s Sender) Field(id mail.ID) []byte {
	b := []byte(SenderField + ": id=" + id.String())
	for _, kv := range [][2]string{{"network", ""}, {"author", s.Author}, {"domains", strings.Join(s.Domains, ",")}} {
		if kv[0] == "network" && s.Network.IsValid() {
			kv[1] = s.Network.String()
		}
		if kv[1] != "" && !strings.ContainsAny(kv[1], " ;\r\n\t") {
			b = append(b, ";\r\n\t"+kv[0]+"="+kv[1]...)
		}
	}
	return append(b, "\r\n"...)
}

// parseField reads what Field wrote, unfolded.
func parseField(value string) (id string, s Sender, ok bool) {
	for _, item := range strings.Split(value, ";") {
		k, v, _ := strings.Cut(strings.TrimSpace(item), "=")
		switch k {
		case "id":
			id = v
		case "author":
			s.Author = v
		case "domains":
			s.Domains = strings.Split(v, ",")
		case "network":
			if p, err := netip.ParsePrefix(v); err == nil {
				s.Network = p
			}
		}
	}
	return id, s, id != ""
}
