package consensus

import (
	"errors"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

// solve finds a nonce for the header.
func solve(net *bitcoin.Network, h *bitcoin.Header) {
	target, negative, overflow := bitcoin.CompactToTarget(h.Bits)
	if negative || overflow || target.Cmp(net.PowLimit) > 0 {
		return
	}
	for h.Nonce = 0; !bitcoin.MeetsTarget(h.Hash(), h.Bits, net.PowLimit); h.Nonce++ {
	}
}

// expectError wants an *Error of this kind and reason, or none where the reason is empty.
func expectError(t testing.TB, err error, kind Kind, reason string) {
	t.Helper()
	var e *Error
	switch {
	case reason == "" && err == nil:
	case reason == "":
		t.Errorf("refused: %v", err)
	case !errors.As(err, &e):
		t.Errorf("error %v, want %s", err, reason)
	case e.Reason != reason || e.Kind != kind:
		t.Errorf("%v of kind %d, want %s of kind %d", err, e.Kind, reason, kind)
	}
}
