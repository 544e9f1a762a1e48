package script

import "github.com/tallypost/tallypost/bitcoin/secp"

// IsStrictDER reports whether a signature with its hash type at the end is in the one encoding that
// BIP 66 allows: 30 length 02 length R 02 length S type, where R and S are positive and have no
// needless zeros.
func IsStrictDER(sig []byte) bool {
	if len(sig) < 9 || len(sig) > 73 || sig[0] != 0x30 || int(sig[1]) != len(sig)-3 {
		return false
	}
	r := int(sig[3])
	if r+5 >= len(sig) {
		return false
	}
	s := int(sig[r+5])
	return r+s+7 == len(sig) && isStrictInteger(sig[2:4+r]) && isStrictInteger(sig[4+r:6+r+s])
}

// isStrictInteger checks tag, length and content of a positive integer.
func isStrictInteger(b []byte) bool {
	content := b[2:]
	if b[0] != 0x02 || len(content) == 0 || content[0]&0x80 != 0 {
		return false
	}
	return content[0] != 0 || len(content) == 1 || content[1]&0x80 != 0
}

// checkSignatureEncoding holds a signature to the encodings that the flags allow. An empty one is
// no DER, but the short way to give an invalid signature.
func checkSignatureEncoding(sig []byte, flags Flags) Code {
	const der = VerifyDERSig | VerifyLowS | VerifyStrictEnc
	if len(sig) == 0 || flags&der == 0 {
		return OK
	}
	if !IsStrictDER(sig) {
		return ErrSigDER
	}
	if flags&VerifyLowS != 0 {
		if rs, ok := secp.ParseDER(sig[:len(sig)-1]); !ok || !secp.LowS(&rs) {
			return ErrSigHighS
		}
	}
	if flags&VerifyStrictEnc != 0 && !isDefinedSigHash(sig[len(sig)-1]) {
		return ErrSigHashType
	}
	return OK
}

func isDefinedSigHash(hashType byte) bool {
	t := SigHash(hashType) &^ SigHashAnyoneCanPay
	return t >= SigHashAll && t <= SigHashSingle
}

// checkKeyEncoding holds a public key to the forms that the flags allow.
func checkKeyEncoding(key []byte, flags Flags, r rules) Code {
	if flags&VerifyStrictEnc != 0 && !isCompressed(key) && !(len(key) == 65 && key[0] == 4) {
		return ErrPubKeyType
	}
	if flags&VerifyWitnessPubKeyType != 0 && r == witnessV0 && !isCompressed(key) {
		return ErrWitnessPubKeyType
	}
	return OK
}

func isCompressed(key []byte) bool { return len(key) == 33 && (key[0] == 2 || key[0] == 3) }

// hasKeySize reports whether the length of a key fits its first octet. Hybrid keys, 06 and 07, are
// valid by consensus (Bitcoin Core pubkey.h, CPubKey::ValidSize).
func hasKeySize(key []byte) bool {
	if len(key) == 65 {
		return key[0] == 4 || key[0] == 6 || key[0] == 7
	}
	return isCompressed(key)
}
