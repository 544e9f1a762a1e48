package smtp

import "time"

// Hurry shortens how long the client may take for each further command, as a server with few
// connections left does. It never lengthens that. The first wait after it may still be the old one.
func (c *Conn) Hurry(patience time.Duration) { c.x.patience = min(c.x.patience, patience) }
