//go:build !linux

package mailbox

import (
	"errors"
	"os"
)

// hasSyncfs: each file is synced by itself, and each folder.
const hasSyncfs = false

func syncfs(*os.File) error { return errors.ErrUnsupported }
