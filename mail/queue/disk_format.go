package queue

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tallypost/tallypost/internal/durable"
)

// A group record of the log is
//
//	group = version[1]=1 write*
//	write = kind[1] uvarint(len(key)) key                        kind 0: delete
//	      | kind[1] uvarint(len(key)) key uvarint(len(v)) v      kind 1: set
//
// and the record of a body, under its id, the places of its pieces in order:
//
//	extents = version[1]=1 (uvarint(segment) uvarint(offset/8) uvarint(len))*
const (
	groupVersion   = 1
	extentsVersion = 1
	writeDelete    = 0
	writeSet       = 1
)

var errShort = errors.New("record is cut short")

func appendWrite(b, key, value []byte) []byte {
	if value == nil {
		b = append(b, writeDelete)
		b = binary.AppendUvarint(b, uint64(len(key)))
		return append(b, key...)
	}
	b = append(b, writeSet)
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

// decodeWrites calls fn with each write of a group; a nil value deletes. The slices point into b.
func decodeWrites(b []byte, fn func(key, value []byte) error) error {
	if len(b) == 0 || b[0] != groupVersion {
		return fmt.Errorf("group of format %d, this program knows %d", first(b), groupVersion)
	}
	for b = b[1:]; len(b) > 0; {
		kind := b[0]
		key, rest, ok := cutBytes(b[1:])
		var value []byte
		switch {
		case ok && kind == writeSet:
			value, rest, ok = cutBytes(rest)
		case kind != writeDelete:
			return fmt.Errorf("write of kind %d", kind)
		}
		if !ok || len(key) == 0 {
			return errShort
		}
		if err := fn(key, value); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func first(b []byte) int {
	if len(b) == 0 {
		return -1
	}
	return int(b[0])
}

// cutBytes splits off a string that has its length in front. It is never nil if ok.
func cutBytes(b []byte) (s, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	end := size + int(n)
	return b[size:end:end], b[end:], true
}

func appendExtents(b []byte, extents []durable.Extent) []byte {
	b = append(b, extentsVersion)
	for _, e := range extents {
		b = binary.AppendUvarint(b, uint64(e.Pos.Segment()))
		b = binary.AppendUvarint(b, uint64(e.Pos.Offset()/8))
		b = binary.AppendUvarint(b, uint64(e.Len))
	}
	return b
}

func decodeExtents(b []byte) ([]durable.Extent, error) {
	if len(b) == 0 || b[0] != extentsVersion {
		return nil, fmt.Errorf("extents of format %d, this program knows %d", first(b),
			extentsVersion)
	}
	extents := make([]durable.Extent, 0, 1+len(b)/8)
	for b = b[1:]; len(b) > 0; {
		var v [3]uint64
		for i := range v {
			n, size := binary.Uvarint(b)
			if size <= 0 || n >= 1<<32 {
				return nil, errShort
			}
			v[i], b = n, b[size:]
		}
		if v[0] == 0 || v[1] >= 1<<29 {
			return nil, errors.New("extent outside any segment")
		}
		extents = append(extents, durable.Extent{
			Pos: durable.Pos(v[0]<<32 | v[1]*8), Len: uint32(v[2]),
		})
	}
	return extents, nil
}
