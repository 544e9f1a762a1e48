package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
)

// decoder reads a payload from front to back. After the first error it reads zeros, so that a
// parser can be written as a list of fields and the error looked at once.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

// take returns the next n octets, which are shared with the payload; nil where there are fewer.
func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail(bitcoin.ErrEndOfData)
		return nil
	}
	taken := d.b[:n:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) uint8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

// bool reads an octet; all but 0 is true, as in Core.
func (d *decoder) bool() bool { return d.uint8() != 0 }

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// port reads the only number that Bitcoin sends with its high octet first.
func (d *decoder) port() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) hash() (h bitcoin.Hash) {
	copy(h[:], d.take(len(h)))
	return h
}

func (d *decoder) header() bitcoin.Header {
	b := d.take(bitcoin.HeaderSize)
	if b == nil {
		return bitcoin.Header{}
	}
	h, err := bitcoin.ParseHeader(b)
	if err != nil {
		d.fail(err)
	}
	return h
}

// number reads a CompactSize of any size.
func (d *decoder) number() uint64 {
	n, size, err := bitcoin.ReadCompactSize(d.b)
	if err != nil {
		d.fail(err)
		return 0
	}
	d.b = d.b[size:]
	return n
}

// size reads a CompactSize that counts something.
func (d *decoder) size() int {
	n := d.number()
	if n > bitcoin.MaxCompactSize {
		d.fail(bitcoin.ErrSizeTooLarge)
		return 0
	}
	return int(n)
}

// count reads the length of a list whose items take at least so many octets each. It fails where
// the payload is too short for them, so that what it returns may be allocated.
func (d *decoder) count(least int) int {
	n := d.size()
	if n > len(d.b)/least {
		d.fail(bitcoin.ErrEndOfData)
		return 0
	}
	return n
}

// countAtMost is count with a limit: more is an *ExcessError in Core's words for it.
func (d *decoder) countAtMost(least, most int, text string) int {
	n := d.size()
	if n > most {
		d.fail(&ExcessError{fmt.Sprintf(text, n)})
		return 0
	}
	if n > len(d.b)/least {
		d.fail(bitcoin.ErrEndOfData)
		return 0
	}
	return n
}

// hashes reads a list of hashes.
func (d *decoder) hashes() []bitcoin.Hash { return d.hashList(d.count(len(bitcoin.Hash{}))) }

// hashList reads n hashes, of which a count has said that they are there.
func (d *decoder) hashList(n int) []bitcoin.Hash {
	if n == 0 {
		return nil
	}
	hashes := make([]bitcoin.Hash, n)
	b := d.take(n * len(bitcoin.Hash{}))
	for i := range hashes {
		hashes[i] = bitcoin.Hash(b[i*len(bitcoin.Hash{}):])
	}
	return hashes
}

// varBytes reads a length and as many octets.
func (d *decoder) varBytes() []byte { return d.take(d.size()) }

// tx reads one transaction with its witnesses.
func (d *decoder) tx() *bitcoin.Tx {
	if d.err != nil {
		return nil
	}
	tx, n, err := bitcoin.ParseTxPrefix(d.b)
	if err != nil {
		d.fail(err)
		return nil
	}
	d.b = d.b[n:]
	return tx
}

// end returns the first error, or one where the payload goes on.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail(fmt.Errorf("%w: %d octets", bitcoin.ErrTrailingData, len(d.b)))
	}
	return d.err
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendHashes(dst []byte, hashes []bitcoin.Hash) []byte {
	dst = bitcoin.AppendCompactSize(dst, uint64(len(hashes)))
	for i := range hashes {
		dst = append(dst, hashes[i][:]...)
	}
	return dst
}

func appendVarBytes(dst, b []byte) []byte {
	return append(bitcoin.AppendCompactSize(dst, uint64(len(b))), b...)
}
