package rpc

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/script"
)

func sha256Sum(b []byte) [32]byte { return sha256.Sum256(b) }

func sortKeys(keys [][]byte) { slices.SortFunc(keys, bytes.Compare) }

func (a *API) utilMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "util", Name: "validateaddress", Params: "address:s", Run: run(a.validateAddress),
			Doc: "Return information about the given bitcoin address."},
		{Category: "util", Name: "getdescriptorinfo", Params: "descriptor:s",
			Run: run(a.getDescriptorInfo), Doc: "Analyses a descriptor."},
		{Category: "util", Name: "deriveaddresses", Params: "descriptor:s range:v?",
			Run: run(a.deriveAddresses),
			Doc: "Derives one or more addresses corresponding to an output descriptor."},
		{Category: "util", Name: "createmultisig", Params: "nrequired:i keys:a address_type:s?",
			Run: run(a.createMultisig),
			Doc: "Creates a multi-signature address with n signatures of m keys required."},
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

func (a *API) getDescriptorInfo(c call) (any, error) {
	body, err := cutSum(c.String(0, ""), false)
	if err != nil {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "%v", err)
	}
	s, err := parseDescriptor(a.net, body, topLevel)
	if err != nil {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "%v", err)
	}
	sum, _ := descriptorSum(body)
	public, secret := a.publicForm(body)
	return object{{"descriptor", withSum(public)}, {"checksum", sum}, {"isrange", false},
		{"issolvable", body[:3] != "raw" && body[:4] != "addr" && len(s) > 0},
		{"hasprivatekeys", secret}}, nil
}

// publicForm replaces secret keys by public ones.
func (a *API) publicForm(body string) (string, bool) {
	found := false
	out := ""
	for len(body) > 0 {
		i := bytes.IndexAny([]byte(body), "(),")
		if i < 0 {
			i = len(body)
		}
		word := body[:i]
		if _, _, ok := a.net.ParseSecret(word); ok {
			if key, err := parseKey(a.net, word, true); err == nil {
				word, found = hexString(key), true
			}
		}
		out += word
		if i < len(body) {
			out += body[i : i+1]
			i++
		}
		body = body[i:]
	}
	return out, found
}

func hexString(b []byte) string {
	return string(jsonrpc.AppendValue(nil, jsonrpc.Hex(b))[1 : 1+2*len(b)])
}

func (a *API) deriveAddresses(c call) (any, error) {
	s, err := descriptorScript(a.net, c.String(0, ""), true)
	if err != nil {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "%v", err)
	}
	if c.Has(1) {
		return nil, fail(jsonrpc.InvalidParameter,
			"Range should not be specified for an un-ranged descriptor")
	}
	addr, ok := a.net.Address(s)
	if !ok {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Descriptor does not have a corresponding address")
	}
	return []string{addr}, nil
}

func (a *API) createMultisig(c call) (any, error) {
	required := c.Int(0, 0)
	var keys [][]byte
	for _, v := range c.Array(1) {
		s, _ := v.(string)
		b, err := parseKey(a.net, s, true)
		if err != nil || len(s) != 66 && len(s) != 130 {
			return nil, fail(jsonrpc.InvalidAddressOrKey,
				"Pubkey \"%s\" must have a length of either 33 or 65 bytes", s)
		}
		keys = append(keys, b)
	}
	switch {
	case required < 1:
		return nil, fail(jsonrpc.InvalidParameter,
			"a multisignature address must require at least one key to redeem")
	case int64(len(keys)) < required:
		return nil, fail(jsonrpc.InvalidParameter, "not enough keys supplied (got %d keys, but need at "+
			"least %d to redeem)", len(keys), required)
	case len(keys) > 20:
		return nil, fail(jsonrpc.InvalidParameter,
			"Number of keys involved in the multisignature address creation > 20\nReduce the number")
	}
	redeem := script.Multisig(int(required), keys)
	h := sha256.Sum256(redeem)
	witness := script.PayToWitness(0, h[:])
	var out []byte
	kind := c.String(2, "legacy")
	wrapped := "multi(" + multiText(required, keys) + ")"
	for _, k := range keys {
		if len(k) == 65 {
			kind = "legacy" // no witness may have such a key
		}
	}
	switch kind {
	case "legacy":
		if len(redeem) > 520 {
			return nil, fail(jsonrpc.InvalidParameter, "redeemScript exceeds size limit: %d > 520", len(redeem))
		}
		out, wrapped = script.PayToScriptHash(script.Hash160(redeem)), "sh("+wrapped+")"
	case "p2sh-segwit":
		out, wrapped = script.PayToScriptHash(script.Hash160(witness)), "sh(wsh("+wrapped+"))"
	case "bech32":
		out, wrapped = witness, "wsh("+wrapped+")"
	default:
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Unknown address type '%s'", kind)
	}
	addr, _ := a.net.Address(out)
	o := object{{"address", addr}, {"redeemScript", jsonrpc.Hex(redeem)}, {"descriptor", withSum(wrapped)}}
	if c.Has(2) && kind != c.String(2, "") {
		o.Set("warnings", []string{"Unable to make chosen address type, please ensure no uncompressed " +
			"public keys are present."})
	}
	return o, nil
}

func multiText(required int64, keys [][]byte) string {
	text := string(jsonrpc.AppendValue(nil, required))
	for _, k := range keys {
		text += "," + hexString(k)
	}
	return text
}
