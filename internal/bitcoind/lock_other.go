//go:build !unix

package bitcoind

import "os"

// lockDir does nothing where there are no locks of this kind.
func lockDir(string) (*os.File, error) { return nil, nil }
