package rpc

import (
	"encoding/base64"
	"errors"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

func (a *API) messageMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "util", Name: "signmessagewithprivkey", Params: "privkey:s message:s",
			Run: run(a.signMessage), Doc: "Sign a message with the private key of an address"},
		{Category: "util", Name: "verifymessage", Params: "address:s signature:s message:s",
			Run: run(a.verifyMessage), Doc: "Verify a signed message."},
	}
}

// messageMagic keeps what is signed as a message from being something else (Core's MESSAGE_MAGIC).
const messageMagic = "Bitcoin Signed Message:\n"

func messageHash(message string) [32]byte {
	var b []byte
	for _, s := range []string{messageMagic, message} {
		b = append(bitcoin.AppendCompactSize(b, uint64(len(s))), s...)
	}
	return bitcoin.DoubleHash(b)
}

func (a *API) signMessage(c call) (any, error) {
	secret, compressed, ok := a.net.ParseSecret(c.String(0, ""))
	if !ok {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Invalid private key")
	}
	key, err := secp.ParsePrivateKey(&secret)
	if err != nil {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Invalid private key")
	}
	hash := messageHash(c.String(1, ""))
	sig := key.SignRecoverable(&hash, compressed)
	return base64.StdEncoding.EncodeToString(sig[:]), nil
}

var errMalformedSignature = errors.New("malformed")

// recoverMessageKey returns the hash of the key that signed a message.
func recoverMessageKey(signature, message string) (hash [20]byte, ok bool, err error) {
	b, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return hash, false, errMalformedSignature
	}
	if len(b) != 65 {
		return hash, false, nil
	}
	digest := messageHash(message)
	key, compressed, err := secp.Recover((*[65]byte)(b), &digest)
	if err != nil {
		return hash, false, nil
	}
	if compressed {
		c := key.Compressed()
		return script.Hash160(c[:]), true, nil
	}
	u := key.Uncompressed()
	return script.Hash160(u[:]), true, nil
}

func (a *API) verifyMessage(c call) (any, error) {
	to, err := a.net.ParseAddress(c.String(0, ""))
	if err != nil {
		return nil, fail(jsonrpc.InvalidAddressOrKey, "Invalid address")
	}
	kind, parts := script.Solve(to)
	if kind != script.PubKeyHash {
		return nil, fail(jsonrpc.TypeError, "Address does not refer to key")
	}
	hash, ok, err := recoverMessageKey(c.String(1, ""), c.String(2, ""))
	if err != nil {
		return nil, fail(jsonrpc.TypeError, "Malformed base64 encoding")
	}
	return ok && hash == [20]byte(parts[0]), nil
}
