package bitcoind

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// bindError says that a place to listen at cannot be had (Bitcoin Core net.cpp, BindListenPort and Start).
func bindError(b Bind, err error) error {
	why := fmt.Sprintf(" (bind returned error %s)", systemError(err))
	if errors.Is(err, syscall.EADDRINUSE) {
		why = ". Bitcoin Core is probably already running."
	}
	return fmt.Errorf("Unable to bind to %s on this computer%s\nError: Failed to listen on any port. Use -listen=0 if "+
		"you want this.", wire.AddrPortFrom(b.Addr), why)
}

// systemError is what the system says of a failure, with its number, as C programs write it.
func systemError(err error) string {
	var number syscall.Errno
	if !errors.As(err, &number) {
		return err.Error()
	}
	text := number.Error()
	return fmt.Sprintf("%s%s (%d)", strings.ToUpper(text[:1]), text[1:], int(number))
}
