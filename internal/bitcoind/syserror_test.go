package bitcoind

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
)

// TestSystemErrors: the words of the system are those that C programs write.
func TestSystemErrors(t *testing.T) {
	wrapped := fmt.Errorf("open: %w", syscall.ENOENT)
	if got := systemError(wrapped); got != "No such file or directory (2)" {
		t.Errorf("systemError: %q", got)
	}
	if got := systemError(errors.New("x")); got != "x" {
		t.Errorf("systemError: %q", got)
	}
	b := Bind{Addr: netip.MustParseAddrPort("1.2.3.4:5")}
	const end = "\nError: Failed to listen on any port. Use -listen=0 if you want this."
	for err, want := range map[error]string{
		syscall.EADDRINUSE: "Unable to bind to 1.2.3.4:5 on this computer. Bitcoin Core is probably already running." + end,
		syscall.EADDRNOTAVAIL: "Unable to bind to 1.2.3.4:5 on this computer (bind returned error Cannot assign requested " +
			"address (99))" + end,
	} {
		if got := bindError(b, fmt.Errorf("listen: %w", err)).Error(); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
