package chainfile

import (
	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// signer signs the inputs of a transaction.
type signer struct {
	r        *keyring
	tx       *bitcoin.Tx
	spending script.Spending
}

// input signs the input i, which spends coin n.
func (s *signer) input(i, n int, k kind) (err error) {
	in, r := &s.tx.In[i], s.r
	switch k {
	case p2pkh:
		in.Script = script.AppendPush(script.AppendPush(nil, s.legacy(i, n, r.output(n))), r.pub(n))
	case bareMulti:
		in.Script = script.AppendPush([]byte{byte(script.Op0)}, s.legacy(i, n+1, r.output(n)))
	case p2shWpkh:
		in.Script = script.AppendPush(nil, r.payment(n))
		in.Witness = s.keyHash(i, n)
	case p2wpkh:
		in.Witness = s.keyHash(i, n)
	case p2wshMulti:
		code := r.multisig(n)
		in.Witness = [][]byte{nil, s.witness(i, n, code), s.witness(i, n+2, code), code}
	case p2trKey:
		in.Witness = make([][]byte, 1)
		in.Witness[0], err = s.schnorr(i, r.tweaked[n%len(r.tweaked)], nil)
	case p2trScript:
		t := &r.scripts[n%len(r.scripts)]
		leaf := script.Leaf{Hash: script.TapLeafHash(tapLeafVersion, t.leaf),
			CodeSeparator: script.NoCodeSeparator}
		in.Witness = [][]byte{nil, t.leaf, t.control}
		in.Witness[0], err = s.schnorr(i, r.keys[(n+1)%len(r.keys)], &leaf)
	}
	return err
}

func (s *signer) keyHash(i, n int) [][]byte {
	code := script.PayToPubKeyHash(script.Hash160(s.r.pub(n)))
	return [][]byte{s.witness(i, n, code), s.r.pub(n)}
}

func (s *signer) legacy(i, key int, code []byte) []byte {
	return s.ecdsa(key, script.LegacySigHash(s.tx, i, code, script.SigHashAll))
}

func (s *signer) witness(i, key int, code []byte) []byte {
	return s.ecdsa(key, s.spending.WitnessSigHash(i, code, script.SigHashAll))
}

func (s *signer) ecdsa(key int, digest [32]byte) []byte {
	rs := s.r.keys[key%len(s.r.keys)].SignECDSA(&digest, false)
	return append(secp.AppendDER(nil, &rs), byte(script.SigHashAll))
}

func (s *signer) schnorr(i int, key *secp.PrivateKey, leaf *script.Leaf) ([]byte, error) {
	digest, err := s.spending.TaprootSigHash(i, script.SigHashDefault, nil, leaf)
	if err != nil {
		return nil, err
	}
	sig, err := key.SignSchnorr(digest[:], new([32]byte))
	return sig[:], err
}
