package rpc

import (
	"encoding/hex"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/descriptor"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

func (a *API) descriptorMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "util", Name: "getdescriptorinfo", Params: "descriptor:s",
			Run: run(a.getDescriptorInfo), Doc: "Analyses a descriptor."},
		{Category: "util", Name: "deriveaddresses", Params: "descriptor:s range:v?",
			Run: run(a.deriveAddresses),
			Doc: "Derives one or more addresses corresponding to an output descriptor."},
		{Category: "util", Name: "createmultisig", Params: "nrequired:I keys:a address_type:s?",
			Usage: `nrequired ["key",...] ( "address_type" )`,
			Run:   run(a.createMultisig),
			Doc: "Creates a multi-signature address with n signatures of m keys required. It returns a json " +
				"object with the address and redeemScript."},
	}
}

// parseDescriptor reads a descriptor, or returns an error for the caller.
func (a *API) parseDescriptor(s string, needSum bool) ([]*descriptor.Descriptor, error) {
	list, err := descriptor.Parse(a.net, s, needSum)
	if err != nil {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "%v", err)
	}
	return list, nil
}

// descriptorScript returns the one script of a descriptor to which coins are to go (Core's
// getScriptFromDescriptor). One that cannot be read is an error of package descriptor, one that does not do
// an error for the caller.
func descriptorScript(net *bitcoin.Network, s string, needSum bool) ([]byte, error) {
	list, err := descriptor.Parse(net, s, needSum)
	if err != nil {
		return nil, err
	}
	switch {
	case len(list) > 1:
		return nil, fail(jsonrpc.InvalidParameter, "Multipath descriptor not accepted")
	case list[0].IsRange():
		return nil, fail(jsonrpc.InvalidParameter,
			"Ranged descriptor not accepted. Maybe pass through deriveaddresses first?")
	}
	outs, err := list[0].Expand(0)
	if err != nil {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Cannot derive script without private keys")
	}
	// Of what combo offers: the witness program, or the hash of a key that cannot have one.
	return outs[len(outs)/2].Script, nil
}

func (a *API) getDescriptorInfo(c call) (any, error) {
	text := c.String(0, "")
	list, err := a.parseDescriptor(text, false)
	if err != nil {
		return nil, err
	}
	o := object{{"descriptor", list[0].String()}}
	if len(list) > 1 {
		var all []string
		for _, d := range list {
			all = append(all, d.String())
		}
		o.Set("multipath_expansion", all)
	}
	body, err := descriptor.CutChecksum(text, false)
	if err != nil {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "%v", err)
	}
	sum, _ := descriptor.Checksum(body)
	o.Set("checksum", sum).Set("isrange", list[0].IsRange()).Set("issolvable", list[0].IsSolvable())
	return *o.Set("hasprivatekeys", list[0].HasSecrets()), nil
}

// maxRange is how many positions a range may have.
const maxRange = 1_000_000

// descriptorRange reads the end of a range, or both ends in an array (Core's ParseDescriptorRange).
func descriptorRange(v any) (from, to int64, err error) {
	refuse := func(text string) (int64, int64, error) { return 0, 0, fail(jsonrpc.InvalidParameter, "%s", text) }
	if list, ok := v.([]any); ok {
		if len(list) != 2 || jsonrpc.TypeName(list[0]) != "number" || jsonrpc.TypeName(list[1]) != "number" {
			return refuse("Range must be specified as end or as [begin,end]")
		}
		var ok1, ok2 bool
		from, ok1 = jsonInt(list[0])
		if to, ok2 = jsonInt(list[1]); !ok1 || !ok2 {
			return 0, 0, fail(jsonrpc.MiscError, "JSON integer out of range")
		}
		if from > to {
			return refuse("Range specified as [begin,end] must not have begin after end")
		}
	} else if jsonrpc.TypeName(v) != "number" {
		return refuse("Range must be specified as end or as [begin,end]")
	} else if to, ok = jsonInt(v); !ok {
		return 0, 0, fail(jsonrpc.MiscError, "JSON integer out of range")
	}
	switch {
	case from < 0:
		return refuse("Range should be greater or equal than 0")
	case to>>31 != 0:
		return refuse("End of range is too high")
	case to >= from+maxRange:
		return refuse("Range is too large")
	}
	return from, to, nil
}

func (a *API) deriveAddresses(c call) (any, error) {
	var from, to int64
	if c.Has(1) {
		var err error
		if from, to, err = descriptorRange(c.Any(1)); err != nil {
			return nil, err
		}
	}
	list, err := a.parseDescriptor(c.String(0, ""), true)
	if err != nil {
		return nil, err
	}
	switch isRange := list[0].IsRange(); {
	case !isRange && c.Len() > 1:
		return nil, fail(jsonrpc.InvalidParameter, "Range should not be specified for an un-ranged descriptor")
	case isRange && c.Len() == 1:
		return nil, fail(jsonrpc.InvalidParameter, "Range must be specified for a ranged descriptor")
	}
	var all []any
	for _, d := range list {
		addresses, err := a.addressesOf(d, from, to)
		if err != nil {
			return nil, err
		}
		all = append(all, addresses)
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

func (a *API) addressesOf(d *descriptor.Descriptor, from, to int64) ([]string, error) {
	addresses := []string{}
	for pos := from; pos <= to; pos++ {
		outs, err := d.Expand(uint32(pos))
		if err != nil {
			return nil, fail(jsonrpc.InvalidAddressOrKey, "Cannot derive script without private keys")
		}
		for _, out := range outs {
			kind, _ := script.Solve(out.Script)
			addr, ok := a.net.Address(out.Script)
			if ok && kind != script.PubKey {
				addresses = append(addresses, addr)
			} else if len(outs) == 1 || kind != script.PubKey { // of combo the key alone is passed over
				return nil, fail(jsonrpc.InvalidAddressOrKey, "Descriptor does not have a corresponding address")
			}
		}
	}
	return addresses, nil
}

// scanObjects returns the scripts that scan objects stand for, each with its descriptor (Core's
// EvalDescriptorStringOrObject).
func (a *API) scanObjects(list []any) (map[string]string, error) {
	wanted := map[string]string{}
	for _, v := range list {
		from, to := int64(0), int64(1000)
		text, ok := v.(string)
		if o, isObject := v.(object); isObject {
			if text, ok = o.Get("desc").(string); !ok {
				return nil, fail(jsonrpc.InvalidParameter, "Descriptor needs to be provided in scan object")
			}
			if r := o.Get("range"); r != nil {
				var err error
				if from, to, err = descriptorRange(r); err != nil {
					return nil, err
				}
			}
		} else if !ok {
			return nil, fail(jsonrpc.InvalidParameter, "Scan object needs to be either a string or an object")
		}
		descs, err := a.parseDescriptor(text, false)
		if err != nil {
			return nil, err
		}
		if !descs[0].IsRange() {
			from, to = 0, 0
		}
		for pos := from; pos <= to; pos++ {
			for _, d := range descs {
				outs, err := d.Expand(uint32(pos))
				if err != nil {
					return nil, fail(jsonrpc.InvalidAddressOrKey,
						"Cannot derive script without private keys: '%s'", text)
				}
				for _, out := range outs {
					wanted[string(out.Script)] = out.Desc
				}
			}
		}
	}
	return wanted, nil
}

// publicKey reads a public key in hexadecimal (Core's HexToPubKey).
func publicKey(s string) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil || s == "" {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Pubkey \"%s\" must be a hex string", s)
	}
	if len(s) != 66 && len(s) != 130 {
		return nil, fail(jsonrpc.InvalidAddressOrKey,
			"Pubkey \"%s\" must have a length of either 33 or 65 bytes", s)
	}
	if _, err := secp.ParsePublicKey(b); err != nil {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Pubkey \"%s\" must be cryptographically valid.", s)
	}
	return b, nil
}

func (a *API) createMultisig(c call) (any, error) {
	required := c.Int(0, 0)
	var keys [][]byte
	for _, v := range c.Array(1) {
		s, ok := v.(string)
		if !ok {
			return nil, fail(jsonrpc.TypeError, "JSON value of type %s is not of expected type string",
				jsonrpc.TypeName(v))
		}
		b, err := publicKey(s)
		if err != nil {
			return nil, err
		}
		keys = append(keys, b)
	}
	asked := c.String(2, "legacy")
	wrap, ok := map[string]string{"legacy": "sh(", "p2sh-segwit": "sh(wsh(", "bech32": "wsh("}[asked]
	switch {
	case asked == "bech32m":
		return nil, fail(jsonrpc.InvalidAddressOrKey, "createmultisig cannot create bech32m multisig addresses")
	case !ok:
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Unknown address type '%s'", asked)
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
	kind := asked
	for _, k := range keys {
		if len(k) == 65 { // no witness may have such a key
			kind, wrap = "legacy", "sh("
		}
	}
	redeem := script.Multisig(int(required), keys)
	if kind == "legacy" && len(redeem) > 520 {
		return nil, fail(jsonrpc.InvalidParameter, "redeemScript exceeds size limit: %d > 520", len(redeem))
	}
	h := sha256Sum(redeem)
	witness := script.PayToWitness(0, h[:])
	out := witness
	switch kind {
	case "legacy":
		out = script.PayToScriptHash(script.Hash160(redeem))
	case "p2sh-segwit":
		out = script.PayToScriptHash(script.Hash160(witness))
	}
	addr, _ := a.net.Address(out)
	text := wrap + "multi(" + multiText(required, keys) + ")"
	text += strings.Repeat(")", strings.Count(wrap, "("))
	o := object{{"address", addr}, {"redeemScript", jsonrpc.Hex(redeem)},
		{"descriptor", descriptor.WithChecksum(text)}}
	if kind != asked {
		o.Set("warnings", []string{"Unable to make chosen address type, please ensure no uncompressed " +
			"public keys are present."})
	}
	return o, nil
}

func multiText(required int64, keys [][]byte) string {
	text := string(jsonrpc.AppendValue(nil, required))
	for _, k := range keys {
		text += "," + hex.EncodeToString(k)
	}
	return text
}
