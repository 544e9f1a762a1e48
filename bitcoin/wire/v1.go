package wire

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
)

// The v1 frame: four octets that name the network, twelve of command, the length of the payload and
// the first four octets of its double hash.
const (
	v1HeaderSize = 24
	commandSize  = 12
)

// AppendV1 appends a message in its v1 frame to dst.
func AppendV1(dst []byte, magic [4]byte, m Message) ([]byte, error) {
	start := len(dst)
	dst = append(dst, magic[:]...)
	dst, err := appendCommand(dst, m.Command())
	if err != nil {
		return dst[:start], err
	}
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = m.Append(dst)
	header, payload := dst[start:start+v1HeaderSize], dst[start+v1HeaderSize:]
	if len(payload) > MaxPayload {
		return dst[:start], fmt.Errorf("%s message: %d octets, more than %d",
			m.Command(), len(payload), MaxPayload)
	}
	sum := bitcoin.DoubleHash(payload)
	binary.LittleEndian.PutUint32(header[16:], uint32(len(payload)))
	copy(header[20:], sum[:4])
	return dst, nil
}

// appendCommand appends a command, filled up with zeros.
func appendCommand(dst []byte, command string) ([]byte, error) {
	if len(command) > commandSize {
		return dst, fmt.Errorf("message %q: name longer than %d octets", command, commandSize)
	}
	var field [commandSize]byte
	copy(field[:], command)
	return append(dst, field[:]...), nil
}

// RejectError says that a message was not let through by the framing. It has been read whole: the
// next one can follow. Core counts it, and goes on.
type RejectError struct {
	Text string // in Core's words
	Size int    // octets on the wire
}

func (e *RejectError) Error() string { return e.Text }

// v1Header is a frame's header, taken apart.
type v1Header struct {
	command [commandSize]byte
	size    int
	sum     [4]byte
}

// parseV1Header reads a header of 24 octets. An error is one after which the stream makes no sense.
func parseV1Header(b *[v1HeaderSize]byte, magic [4]byte) (h v1Header, err error) {
	if [4]byte(b[:4]) != magic {
		return h, coreError("Header error: Wrong MessageStart %x received", b[:4])
	}
	h.command = [commandSize]byte(b[4:16])
	h.sum = [4]byte(b[20:])
	size := binary.LittleEndian.Uint32(b[16:])
	if size > MaxPayload {
		return h, coreError("Header error: Size too large (%s, %d bytes)", h.name(), size)
	}
	h.size = int(size)
	return h, nil
}

// name returns the command up to its first zero, without what harms a log.
func (h *v1Header) name() string { return printable(h.command[:]) }

// check returns what is wrong with the payload, or the command; the order is Core's.
func (h *v1Header) check(payload []byte) error {
	size := v1HeaderSize + len(payload)
	if sum := bitcoin.DoubleHash(payload); [4]byte(sum[:4]) != h.sum {
		return &RejectError{fmt.Sprintf("Header error: Wrong checksum (%s, %d bytes), "+
			"expected %x was %x", h.name(), len(payload), sum[:4], h.sum), size}
	}
	if _, ok := cutCommand(h.command[:], '~'); !ok {
		return &RejectError{fmt.Sprintf("Header error: Invalid message type (%s, %d bytes)",
			h.name(), len(payload)), size}
	}
	return nil
}

// cutCommand returns the command in a field of twelve octets: printable ones up to last, then only
// zeros.
func cutCommand(field []byte, last byte) (command string, ok bool) {
	n := 0
	for n < len(field) && field[n] != 0 {
		if field[n] < ' ' || field[n] > last {
			return "", false
		}
		n++
	}
	for _, c := range field[n:] {
		if c != 0 {
			return "", false
		}
	}
	if name, ok := commandNames[string(field[:n])]; ok {
		return name, true // no allocation for what is known
	}
	return string(field[:n]), true
}

// commandNames has each known command as its own key and value.
var commandNames = func() map[string]string {
	names := make(map[string]string, len(parsers))
	for name := range parsers {
		names[name] = name
	}
	return names
}()

// printable returns octets up to the first zero as text, without what harms a log (Core's SanitizeString).
func printable(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' ||
			strings.ContainsRune(" .,;-_/:?@()", r) {
			return r
		}
		return -1
	}, s)
}
