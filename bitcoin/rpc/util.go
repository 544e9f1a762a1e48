package rpc

import (
	"crypto/sha256"
	"errors"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/script"
)

func sha256Sum(b []byte) [32]byte { return sha256.Sum256(b) }

func (a *API) utilMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "util", Name: "validateaddress", Params: "address:s", Run: run(a.validateAddress),
			Doc: "Return information about the given bitcoin address."},
	}
}

func (a *API) validateAddress(c call) (any, error) {
	s, err := a.net.ParseAddress(c.String(0, ""))
	if err != nil {
		var ae *bitcoin.AddressError
		locations := []any{}
		if errors.As(err, &ae) {
			for _, l := range ae.Locations {
				locations = append(locations, l)
			}
		}
		return object{{"isvalid", false}, {"error_locations", locations}, {"error", err.Error()}}, nil
	}
	addr, _ := a.net.Address(s)
	kind, _ := script.Solve(s)
	o := object{{"isvalid", true}, {"address", addr}, {"scriptPubKey", jsonrpc.Hex(s)},
		{"isscript", kind == script.ScriptHash || kind == script.WitnessV0ScriptHash ||
			kind == script.WitnessV1Taproot}}
	version, program, witness := script.WitnessProgram(s)
	if kind == script.WitnessUnknown || kind == script.Anchor {
		o = o[:len(o)-1]
		if kind == script.Anchor {
			o.Set("isscript", true)
		}
	}
	o.Set("iswitness", witness)
	if witness {
		o.Set("witness_version", version).Set("witness_program", jsonrpc.Hex(program))
	}
	return o, nil
}
