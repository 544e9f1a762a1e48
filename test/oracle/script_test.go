// Package oracle compares Tallypost with other implementations of the same rules.
package oracle

import (
	"bytes"
	"testing"

	"github.com/btcsuite/btcd/wire/v2"
)

// toWire reads a transaction with btcd.
func toWire(t testing.TB, raw []byte) *wire.MsgTx {
	t.Helper()
	msg := new(wire.MsgTx)
	if err := msg.Deserialize(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	return msg
}
