package dkim

import (
	"fmt"

	"github.com/tallypost/tallypost/mail"
)

// Replace makes h the header that is signed, in place of the one that Begin took: a filter has changed it
// since. What was written of the body stands.
func (g *Signing) Replace(h mail.Header) error {
	source := newHeaderSource(h)
	if n := source.count("From"); n != 1 {
		return fmt.Errorf("dkim: %d From fields, a message has one", n)
	}
	g.names = signedNames(source)
	g.header.Reset()
	source.write(g.header, g.names, relaxed)
	return nil
}
