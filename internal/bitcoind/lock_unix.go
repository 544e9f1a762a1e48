//go:build unix

package bitcoind

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockDir keeps a second node out of a directory for as long as the file is open.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("Cannot write to directory '%s'; check permissions.", dir)
	}
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock); err != nil {
		f.Close()
		return nil, fmt.Errorf("Cannot obtain a lock on directory %s. Bitcoin Core is probably already "+
			"running.", dir)
	}
	return f, nil
}
