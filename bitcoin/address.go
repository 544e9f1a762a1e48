package bitcoin

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// AddressError says in Core's words why a string is no address, and at which characters where that
// can be told.
type AddressError struct {
	Message   string
	Locations []int // from 0
}

func (e *AddressError) Error() string { return e.Message }

func addressError(format string, args ...any) error {
	return &AddressError{Message: fmt.Sprintf(format, args...)}
}

// Address returns the address of an output script on the network. ok is false for a script that has
// none, as a bare key or bare multisig.
func (n *Network) Address(script []byte) (address string, ok bool) {
	if hash, ok := matchScript(script, p2pkhHead, p2pkhTail); ok {
		return EncodeBase58Check(append([]byte{n.PubKeyHashPrefix}, hash...)), true
	}
	if hash, ok := matchScript(script, p2shHead, p2shTail); ok {
		return EncodeBase58Check(append([]byte{n.ScriptHashPrefix}, hash...)), true
	}
	version, program, ok := WitnessProgram(script)
	if !ok || version == 0 && len(program) != 20 && len(program) != 32 {
		return "", false
	}
	variant := Bech32m
	if version == 0 {
		variant = Bech32
	}
	values, _ := regroup(program, 8, 5, true)
	return EncodeBech32(variant, n.Bech32HRP, append([]byte{byte(version)}, values...)), true
}

// The octets around the hash of the scripts that base58 addresses stand for.
const (
	p2pkhHead = "\x76\xa9\x14" // OP_DUP OP_HASH160, a push of 20
	p2pkhTail = "\x88\xac"     // OP_EQUALVERIFY OP_CHECKSIG
	p2shHead  = "\xa9\x14"     // OP_HASH160, a push of 20
	p2shTail  = "\x87"         // OP_EQUAL
	op1       = 0x51           // OP_1, the first of 16
)

// matchScript returns the hash of 20 octets between head and tail.
func matchScript(script []byte, head, tail string) (hash []byte, ok bool) {
	if len(script) != len(head)+20+len(tail) || !bytes.HasPrefix(script, []byte(head)) ||
		!bytes.HasSuffix(script, []byte(tail)) {
		return nil, false
	}
	return script[len(head) : len(head)+20], true
}

// WitnessProgram returns version and program of an output script that has the form of BIP 141: a
// version of 0 to 16 and one push of 2 to 40 octets.
func WitnessProgram(script []byte) (version int, program []byte, ok bool) {
	if len(script) < 4 || len(script) > 42 || int(script[1]) != len(script)-2 {
		return 0, nil, false
	}
	switch v := script[0]; {
	case v == 0:
		return 0, script[2:], true
	case v >= op1 && v < op1+16:
		return int(v-op1) + 1, script[2:], true
	}
	return 0, nil, false
}

// ParseAddress returns the output script that an address of the network stands for. An error is an
// *AddressError with the text of Core's validateaddress (key_io.cpp, DecodeDestination).
func (n *Network) ParseAddress(s string) (script []byte, err error) {
	hrp := n.Bech32HRP
	if len(s) >= len(hrp) && strings.ToLower(s[:len(hrp)]) == hrp {
		return n.parseBech32Address(s)
	}
	return n.parseBase58Address(s)
}

func (n *Network) parseBase58Address(s string) ([]byte, error) {
	b, ok := DecodeBase58Check(s, 21)
	switch {
	case !ok:
		if _, ok := DecodeBase58(s, 100); !ok {
			return nil, addressError("Invalid or unsupported Segwit (Bech32) or Base58 encoding.")
		}
		return nil, addressError("Invalid checksum or length of Base58 address (P2PKH or P2SH)")
	case len(b) == 0 || b[0] != n.PubKeyHashPrefix && b[0] != n.ScriptHashPrefix:
		return nil, addressError("Invalid or unsupported Base58-encoded address.")
	case len(b) != 21:
		return nil, addressError("Invalid length for Base58 address (P2PKH or P2SH)")
	case b[0] == n.PubKeyHashPrefix:
		return slices.Concat([]byte(p2pkhHead), b[1:], []byte(p2pkhTail)), nil
	}
	return slices.Concat([]byte(p2shHead), b[1:], []byte(p2shTail)), nil
}

func (n *Network) parseBech32Address(s string) ([]byte, error) {
	hrp, values, variant, err := DecodeBech32(s)
	switch {
	case err != nil:
		return nil, err
	case len(values) == 0:
		return nil, addressError("Empty Bech32 data section")
	case hrp != n.Bech32HRP:
		return nil, addressError("Invalid or unsupported prefix for Segwit (Bech32) address "+
			"(expected %s, got %s).", n.Bech32HRP, hrp)
	case values[0] == 0 && variant != Bech32:
		return nil, addressError("Version 0 witness address must use Bech32 checksum")
	case values[0] != 0 && variant != Bech32m:
		return nil, addressError("Version 1+ witness address must use Bech32m checksum")
	}
	version := values[0]
	program, ok := regroup(values[1:], 5, 8, false)
	size := fmt.Sprintf("(%d bytes)", len(program))
	if len(program) == 1 {
		size = "(1 byte)"
	}
	switch {
	case !ok:
		return nil, addressError("Invalid padding in Bech32 data section")
	case version == 0 && len(program) != 20 && len(program) != 32:
		return nil, addressError("Invalid Bech32 v0 address program size %s, per BIP141", size)
	case version > 16:
		return nil, addressError("Invalid Bech32 address witness version")
	case len(program) < 2 || len(program) > 40:
		return nil, addressError("Invalid Bech32 address program size %s", size)
	case version > 0:
		version += op1 - 1
	}
	return append([]byte{version, byte(len(program))}, program...), nil
}

// curveOrder is the order of secp256k1: a secret key is smaller.
const curveOrder = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe" +
	"\xba\xae\xdc\xe6\xaf\x48\xa0\x3b\xbf\xd2\x5e\x8c\xd0\x36\x41\x41"

// EncodeSecret writes a secret key in wallet import format; compressed says in which form its
// public key is meant.
func (n *Network) EncodeSecret(key [32]byte, compressed bool) string {
	b := append([]byte{n.SecretPrefix}, key[:]...)
	if compressed {
		b = append(b, 1)
	}
	return EncodeBase58Check(b)
}

// ParseSecret reads what EncodeSecret wrote for this network; ok is false for anything else, and
// for a key that is zero or not below the order of the curve.
func (n *Network) ParseSecret(s string) (key [32]byte, compressed, ok bool) {
	b, ok := DecodeBase58Check(s, 34)
	if !ok || len(b) < 33 || b[0] != n.SecretPrefix || len(b) == 34 && b[33] != 1 {
		return key, false, false
	}
	key = [32]byte(b[1:33])
	if key == [32]byte{} || string(key[:]) >= curveOrder {
		return [32]byte{}, false, false
	}
	return key, len(b) == 34, true
}
