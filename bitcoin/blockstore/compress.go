package blockstore

import (
	"errors"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// errShort says that stored octets end too early.
var errShort = errors.New("data end too early")

// appendVarInt appends a number in Core's VARINT: seven bits an octet, the highest first, each
// length beginning where the shorter ones end (Bitcoin Core serialize.h, WriteVarInt).
func appendVarInt(dst []byte, n uint64) []byte {
	var octets [10]byte
	at := len(octets) - 1
	octets[at] = byte(n & 0x7f)
	for n > 0x7f {
		n = n>>7 - 1
		at--
		octets[at] = byte(n&0x7f) | 0x80
	}
	return append(dst, octets[at:]...)
}

// decoder reads what was stored. After the first error it reads zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) varInt() (n uint64) {
	for i, c := range d.b {
		if n > 1<<57-1 {
			break
		}
		n = n<<7 | uint64(c&0x7f)
		if c&0x80 == 0 {
			d.b = d.b[i+1:]
			return n
		}
		n++
	}
	d.fail()
	return 0
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail()
		return nil
	}
	taken := d.b[:n:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) compactSize() int {
	n, size, err := bitcoin.ReadCompactSize(d.b)
	if err != nil || n > bitcoin.MaxCompactSize {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return int(n)
}

func (d *decoder) fail() {
	d.b = nil
	if d.err == nil {
		d.err = errShort
	}
}

// compressAmount makes amounts short that end in zeros (Bitcoin Core compressor.cpp,
// CompressAmount): the number without its up to nine zeros, their number as its last digit.
func compressAmount(n uint64) uint64 {
	if n == 0 {
		return 0
	}
	zeros := uint64(0)
	for ; n%10 == 0 && zeros < 9; zeros++ {
		n /= 10
	}
	if zeros == 9 {
		return 1 + (n-1)*10 + 9
	}
	return 1 + (n/10*9+n%10-1)*10 + zeros // the last digit is not zero: nine values
}

func decompressAmount(x uint64) (n uint64) {
	if x == 0 {
		return 0
	}
	x--
	zeros := x % 10
	x /= 10
	if zeros == 9 {
		n = x + 1
	} else {
		n = x/9*10 + x%9 + 1
	}
	for ; zeros > 0; zeros-- {
		n *= 10
	}
	return n
}

// The forms of scripts that are stored as an octet and a hash or key (Bitcoin Core compressor.cpp,
// CompressScript). Any other is stored with its length plus specialScripts.
const (
	formKeyHash    = 0
	formScriptHash = 1
	formKey        = 2 // and 3: the first octet of the compressed key
	formLongKey    = 4 // and 5: 4 with the oddness of y; the key was not compressed
	specialScripts = 6
)

func appendScript(dst, s []byte) []byte {
	switch n := len(s); {
	case n == 25 && s[0] == byte(script.OpDup) && s[1] == byte(script.OpHash160) && s[2] == 20 &&
		s[23] == byte(script.OpEqualVerify) && s[24] == byte(script.OpCheckSig):
		return append(append(dst, formKeyHash), s[3:23]...)
	case script.IsPayToScriptHash(s):
		return append(append(dst, formScriptHash), s[2:22]...)
	case n == 35 && s[0] == 33 && s[34] == byte(script.OpCheckSig) && (s[1] == 2 || s[1] == 3):
		return append(append(dst, s[1]), s[2:34]...)
	case n == 67 && s[0] == 65 && s[66] == byte(script.OpCheckSig) && s[1] == 4:
		// A key that is not on the curve could not be restored from its x coordinate.
		if _, err := secp.ParsePublicKey(s[1:66]); err == nil {
			return append(append(dst, formLongKey|s[65]&1), s[2:34]...)
		}
	}
	return append(appendVarInt(dst, uint64(len(s)+specialScripts)), s...)
}

// script returns a script of its own memory.
func (d *decoder) script() []byte {
	form := d.varInt()
	switch form {
	case formKeyHash:
		if hash := d.take(20); hash != nil {
			return script.PayToPubKeyHash([20]byte(hash))
		}
		return nil
	case formScriptHash:
		if hash := d.take(20); hash != nil {
			return script.PayToScriptHash([20]byte(hash))
		}
		return nil
	case formKey, formKey + 1, formLongKey, formLongKey + 1:
		return d.keyScript(byte(form))
	}
	if form > bitcoin.MaxCompactSize {
		d.fail()
		return nil
	}
	s := d.take(int(form) - specialScripts)
	if len(s) > script.MaxScriptSize {
		return []byte{byte(script.OpReturn)} // nobody can spend it anyway
	}
	return append(make([]byte, 0, len(s)), s...)
}

func (d *decoder) keyScript(form byte) []byte {
	x := d.take(32)
	if x == nil {
		return nil
	}
	compressed := append([]byte{2 | form&1}, x...)
	if form < formLongKey {
		return new(script.Builder).Push(compressed).Op(script.OpCheckSig).Script()
	}
	key, err := secp.ParsePublicKey(compressed)
	if err != nil {
		d.fail()
		return nil
	}
	long := key.Uncompressed()
	return new(script.Builder).Push(long[:]).Op(script.OpCheckSig).Script()
}

// appendOut appends an output in Core's compressed form.
func appendOut(dst []byte, out *bitcoin.TxOut) []byte {
	dst = appendVarInt(dst, compressAmount(uint64(out.Value)))
	return appendScript(dst, out.Script)
}

func (d *decoder) out() bitcoin.TxOut {
	value := bitcoin.Amount(decompressAmount(d.varInt()))
	return bitcoin.TxOut{Value: value, Script: d.script()}
}

// appendCoin appends a coin as Core's chainstate has it (Bitcoin Core coins.h, Coin).
func appendCoin(dst []byte, c *consensus.Coin) []byte {
	return appendOut(appendVarInt(dst, originCode(c.Origin)), &c.Out)
}

func (d *decoder) coin() consensus.Coin {
	origin := codeOrigin(d.varInt())
	return consensus.Coin{Out: d.out(), Origin: origin}
}

// originCode is the height times two, plus one for a coinbase.
func originCode(o consensus.Origin) uint64 {
	code := uint64(o.Height) << 1
	if o.Coinbase {
		code |= 1
	}
	return code
}

func codeOrigin(code uint64) consensus.Origin {
	return consensus.Origin{Height: bitcoin.Height(code >> 1), Coinbase: code&1 != 0}
}
