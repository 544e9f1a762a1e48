package rpc

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// The descriptors that are read here are those of one fixed script without key derivation: raw, addr, pk,
// pkh, wpkh, combo of one form, tr and rawtr of one key, multi and sortedmulti, and sh and wsh around them
// (BIPs 380 to 386). Extended keys and miniscript belong to the package of descriptors.

const (
	descCharset = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyz" +
		"ABCDEFGH`#\"\\ "
	sumCharset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
)

// descriptorSum returns the eight characters behind the # (BIP 380, "Checksum").
func descriptorSum(s string) (string, bool) {
	polymod := func(c uint64, v int) uint64 {
		top := c >> 35
		c = (c&0x7ffffffff)<<5 ^ uint64(v)
		for i, g := range []uint64{0xf5dee51989, 0xa9fdca3312, 0x1bab10e32d, 0x3706b1677a, 0x644d626ffd} {
			if top>>i&1 == 1 {
				c ^= g
			}
		}
		return c
	}
	c, group, count := uint64(1), 0, 0
	for i := range len(s) {
		pos := strings.IndexByte(descCharset, s[i])
		if pos < 0 {
			return "", false
		}
		c = polymod(c, pos&31)
		group = group*3 + pos>>5
		if count++; count == 3 {
			c, group, count = polymod(c, group), 0, 0
		}
	}
	if count > 0 {
		c = polymod(c, group)
	}
	for range 8 {
		c = polymod(c, 0)
	}
	c ^= 1
	out := make([]byte, 8)
	for i := range out {
		out[i] = sumCharset[c>>(5*(7-i))&31]
	}
	return string(out), true
}

func withSum(s string) string {
	sum, _ := descriptorSum(s)
	return s + "#" + sum
}

// cutSum checks the sum of a descriptor and cuts it off.
func cutSum(s string, required bool) (string, error) {
	body, sum, given := strings.Cut(s, "#")
	if strings.Contains(sum, "#") {
		return "", fmt.Errorf("Multiple '#' symbols")
	}
	if !given && required {
		return "", fmt.Errorf("Missing checksum")
	}
	if given && len(sum) != 8 {
		return "", fmt.Errorf("Expected 8 character checksum, not %d characters", len(sum))
	}
	want, ok := descriptorSum(body)
	if !ok {
		return "", fmt.Errorf("Invalid characters in payload")
	}
	if given && sum != want {
		return "", fmt.Errorf("Provided checksum '%s' does not match computed checksum '%s'", sum, want)
	}
	return body, nil
}

// descriptorScript returns the output script of a descriptor.
func descriptorScript(net *bitcoin.Network, s string, needSum bool) ([]byte, error) {
	body, err := cutSum(s, needSum)
	if err != nil {
		return nil, err
	}
	return parseDescriptor(net, body, topLevel)
}

// context is where a descriptor stands.
type descContext int

const (
	topLevel descContext = iota
	insideP2SH
	insideWSH
)

func parseDescriptor(net *bitcoin.Network, s string, in descContext) ([]byte, error) {
	name, rest, ok := strings.Cut(s, "(")
	arg, closed := strings.CutSuffix(rest, ")")
	if !ok || !closed {
		return nil, fmt.Errorf("'%s' is not a valid descriptor function", s)
	}
	switch name {
	case "raw", "addr", "tr", "rawtr", "combo":
		if in != topLevel {
			return nil, fmt.Errorf("Can only have %s() at top level", name)
		}
	}
	switch name {
	case "raw":
		b, err := hex.DecodeString(arg)
		if err != nil {
			return nil, fmt.Errorf("Raw script is not hex")
		}
		return b, nil
	case "addr":
		b, err := net.ParseAddress(arg)
		if err != nil {
			return nil, fmt.Errorf("Address is not valid")
		}
		return b, nil
	case "sh":
		if in != topLevel {
			return nil, fmt.Errorf("Can only have sh() at top level")
		}
		inner, err := parseDescriptor(net, arg, insideP2SH)
		if err != nil {
			return nil, err
		}
		return script.PayToScriptHash(script.Hash160(inner)), nil
	case "wsh":
		if in == insideWSH {
			return nil, fmt.Errorf("Can only have wsh() at top level or inside sh()")
		}
		inner, err := parseDescriptor(net, arg, insideWSH)
		if err != nil {
			return nil, err
		}
		h := sha256.Sum256(inner)
		return script.PayToWitness(0, h[:]), nil
	}
	return parseKeys(net, name, arg, in)
}

// parseKeys reads the descriptors of keys.
func parseKeys(net *bitcoin.Network, name, arg string, in descContext) ([]byte, error) {
	if name == "multi" || name == "sortedmulti" {
		return parseMulti(net, name, arg, in)
	}
	if name == "tr" || name == "rawtr" {
		return parseTaproot(net, name, arg)
	}
	key, err := parseKey(net, arg, in != insideWSH && name != "wpkh")
	if err != nil {
		return nil, fmt.Errorf("%s(): %w", name, err)
	}
	h := script.Hash160(key)
	switch name {
	case "pk":
		return append(script.AppendPush(nil, key), byte(script.OpCheckSig)), nil
	case "pkh":
		return script.PayToPubKeyHash(h), nil
	case "wpkh":
		if in == insideWSH {
			return nil, fmt.Errorf("Can only have wpkh() at top level or inside sh()")
		}
		return script.PayToWitness(0, h[:]), nil
	}
	return nil, fmt.Errorf("'%s(%s)' is not a valid descriptor function", name, arg)
}

// parseKey reads a public key in hexadecimal, or a secret one in wallet import format, behind an origin.
func parseKey(net *bitcoin.Network, s string, uncompressed bool) ([]byte, error) {
	if strings.HasPrefix(s, "[") {
		_, rest, ok := strings.Cut(s, "]")
		if !ok {
			return nil, fmt.Errorf("Key origin start '[ character expected but not found, got '%c' instead", s[0])
		}
		s = rest
	}
	if b, err := hex.DecodeString(s); err == nil {
		if _, err := secp.ParsePublicKey(b); err != nil {
			return nil, fmt.Errorf("Pubkey '%s' is invalid", s)
		}
		if len(b) != 33 && !uncompressed {
			return nil, fmt.Errorf("Uncompressed keys are not allowed")
		}
		return b, nil
	}
	secret, compressed, ok := net.ParseSecret(s)
	if !ok {
		return nil, fmt.Errorf("key '%s' is not valid", s)
	}
	key, err := secp.ParsePrivateKey(&secret)
	if err != nil {
		return nil, fmt.Errorf("key '%s' is not valid", s)
	}
	pub := key.PublicKey()
	if compressed {
		b := pub.Compressed()
		return b[:], nil
	}
	if !uncompressed {
		return nil, fmt.Errorf("Uncompressed keys are not allowed")
	}
	b := pub.Uncompressed()
	return b[:], nil
}

func parseTaproot(net *bitcoin.Network, name, arg string) ([]byte, error) {
	var x [32]byte
	if b, err := hex.DecodeString(arg); err == nil && len(b) == 32 {
		x = [32]byte(b)
		if _, err := secp.LiftX(&x); err != nil {
			return nil, fmt.Errorf("%s(): Pubkey '%s' is invalid", name, arg)
		}
	} else {
		key, err := parseKey(net, arg, false)
		if err != nil {
			return nil, fmt.Errorf("%s(): %w", name, err)
		}
		x = [32]byte(key[1:])
	}
	if name == "tr" {
		out, _, err := secp.TaprootOutput(&x, nil)
		if err != nil {
			return nil, err
		}
		x = out
	}
	return script.PayToWitness(1, x[:]), nil
}

func parseMulti(net *bitcoin.Network, name, arg string, in descContext) ([]byte, error) {
	parts := strings.Split(arg, ",")
	required, err := strconv.Atoi(parts[0])
	if err != nil {
		return nil, fmt.Errorf("Multi threshold '%s' is not valid", parts[0])
	}
	var keys [][]byte
	for _, p := range parts[1:] {
		key, err := parseKey(net, p, in != insideWSH)
		if err != nil {
			return nil, fmt.Errorf("Multi: %w", err)
		}
		keys = append(keys, key)
	}
	switch {
	case len(keys) == 0 || len(keys) > 20:
		return nil, fmt.Errorf("Cannot have %d keys in multisig; must have between 1 and 20 keys, "+
			"inclusive", len(keys))
	case required < 1:
		return nil, fmt.Errorf("Multisig threshold cannot be %d, must be at least 1", required)
	case required > len(keys):
		return nil, fmt.Errorf("Multisig threshold cannot be larger than the number of keys; threshold is "+
			"%d but only %d keys specified", required, len(keys))
	case in == topLevel && len(keys) > 3:
		return nil, fmt.Errorf("Cannot have %d pubkeys in bare multisig; only at most 3 pubkeys", len(keys))
	}
	if name == "sortedmulti" {
		sortKeys(keys)
	}
	return script.Multisig(required, keys), nil
}

// inferDescriptor returns the descriptor of a script, as far as the script alone tells.
func inferDescriptor(net *bitcoin.Network, s []byte) string {
	kind, parts := script.Solve(s)
	switch kind {
	case script.PubKey:
		if _, err := secp.ParsePublicKey(parts[0]); err == nil {
			return withSum("pk(" + hex.EncodeToString(parts[0]) + ")")
		}
	case script.BareMultisig:
		valid := true
		text := strconv.Itoa(int(parts[0][0]))
		for _, key := range parts[1 : len(parts)-1] {
			_, err := secp.ParsePublicKey(key)
			valid = valid && err == nil
			text += "," + hex.EncodeToString(key)
		}
		if valid {
			return withSum("multi(" + text + ")")
		}
	case script.WitnessV1Taproot:
		x := [32]byte(parts[0])
		if _, err := secp.LiftX(&x); err == nil {
			return withSum("rawtr(" + hex.EncodeToString(parts[0]) + ")")
		}
	}
	if addr, ok := net.Address(s); ok && kind != script.PubKey {
		return withSum("addr(" + addr + ")")
	}
	return withSum("raw(" + hex.EncodeToString(s) + ")")
}
