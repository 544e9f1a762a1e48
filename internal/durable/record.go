package durable

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	magic          = "TALLYSEG"
	version        = 1
	segmentHeader  = 40
	recordHeader   = 16
	commitHeader   = 24 // seq, synced, parts, and four octets of zero
	partHeader     = 8  // number, and four octets of zero
	kindData       = 1
	kindCommit     = 2
	kindPart       = 3
	minSegmentSize = 4096
	maxSegmentSize = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// align rounds a length up to where the next record begins.
func align(n int) int { return (n + 7) &^ 7 }

// recordSize is what a payload of n octets takes in a segment.
func recordSize(n int) int { return align(recordHeader + n) }

// header is a decoded segment header.
type header struct {
	number  uint32
	size    uint32
	prevEnd uint32
	salt    uint64
}

func newSalt() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

func (h header) append(b []byte) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, h.number)
	b = binary.LittleEndian.AppendUint32(b, h.size)
	b = binary.LittleEndian.AppendUint32(b, h.prevEnd)
	b = binary.LittleEndian.AppendUint64(b, h.salt)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	return append(b, 0, 0, 0, 0)
}

// parseHeader returns a zero header for anything but one that append wrote, and an error for one
// that a newer version wrote.
func parseHeader(b []byte) (header, error) {
	le := binary.LittleEndian
	if len(b) < segmentHeader || string(b[:8]) != magic ||
		crc32.Checksum(b[:32], castagnoli) != le.Uint32(b[32:]) {
		return header{}, nil
	}
	if v := le.Uint32(b[8:]); v != version {
		return header{}, fmt.Errorf("written by a newer version of this program (format %d, this "+
			"one knows %d)", v, version)
	}
	h := header{
		number:  le.Uint32(b[12:]),
		size:    le.Uint32(b[16:]),
		prevEnd: le.Uint32(b[20:]),
		salt:    le.Uint64(b[24:]),
	}
	if h.size < minSegmentSize || h.size > maxSegmentSize || h.prevEnd > maxSegmentSize {
		return header{}, nil
	}
	return h, nil
}

// putRecordHeader writes the header of a record that lies at pos in a segment of that salt.
func putRecordHeader(b []byte, salt uint64, pos Pos, kind byte, n int, pcrc uint32) {
	le := binary.LittleEndian
	le.PutUint32(b[4:], pcrc)
	le.PutUint32(b[8:], uint32(n))
	b[12], b[13], b[14], b[15] = kind, 0, 0, 0
	le.PutUint32(b, headerCRC(b, salt, pos))
}

// recordInfo is a decoded record header.
type recordInfo struct {
	kind byte
	n    int
	pcrc uint32
}

// parseRecordHeader returns false where no valid record begins at pos. limit is what is left of the
// segment.
func parseRecordHeader(b []byte, salt uint64, pos Pos, limit int) (recordInfo, bool) {
	le := binary.LittleEndian
	n := le.Uint32(b[8:])
	kind := b[12]
	if kind < kindData || kind > kindPart || n > uint32(limit) || recordSize(int(n)) > limit {
		return recordInfo{}, false
	}
	if kind == kindCommit && n < commitHeader || kind == kindPart && n < partHeader {
		return recordInfo{}, false
	}
	if headerCRC(b, salt, pos) != le.Uint32(b) {
		return recordInfo{}, false
	}
	return recordInfo{kind, int(n), le.Uint32(b[4:])}, true
}

func headerCRC(b []byte, salt uint64, pos Pos) uint32 {
	var in [28]byte
	binary.LittleEndian.PutUint64(in[:], salt)
	binary.LittleEndian.PutUint64(in[8:], uint64(pos))
	copy(in[16:], b[4:recordHeader])
	return crc32.Checksum(in[:], castagnoli)
}

func payloadCRC(parts ...[]byte) (crc uint32, n int) {
	for _, p := range parts {
		crc = crc32.Update(crc, castagnoli, p)
		n += len(p)
	}
	return crc, n
}
