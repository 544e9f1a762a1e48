package zmq

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Limits of what a subscriber may send.
const (
	maxFrame  = 4096 // octets: a topic, a command
	maxTopics = 1000
	maxTopic  = 256 // octets
	maxPing   = 16  // octets of a ping's context (RFC 37)

	greetingSize = 64
)

// Flags of a frame (RFC 23, "Framing").
const (
	flagMore = 1 << iota
	flagLong
	flagCommand
)

var errProtocol = errors.New("the peer does not speak ZMTP 3")

// greeting returns what each side says first (RFC 23, "Greeting"): version 3.0, so that subscriptions come as
// messages from old and new subscribers, and no security.
func greeting() []byte {
	g := make([]byte, greetingSize)
	g[0], g[9], g[10] = 0xff, 0x7f, 3
	copy(g[12:], "NULL")
	return g
}

// readGreeting reads that of a peer.
func readGreeting(r io.Reader) error {
	var g [greetingSize]byte
	if _, err := io.ReadFull(r, g[:10]); err != nil {
		return err
	}
	if g[0] != 0xff || g[9]&1 != 1 {
		return errProtocol
	}
	if _, err := io.ReadFull(r, g[10:]); err != nil {
		return err
	}
	if mechanism := bytes.TrimRight(g[12:32], "\x00"); g[10] < 3 || string(mechanism) != "NULL" {
		return fmt.Errorf("%w without security: version %d, %q", errProtocol, g[10], mechanism)
	}
	return nil
}

// appendFrame appends a frame.
func appendFrame(dst []byte, flags byte, body []byte) []byte {
	if len(body) > 255 {
		dst = append(dst, flags|flagLong)
		dst = binary.BigEndian.AppendUint64(dst, uint64(len(body)))
	} else {
		dst = append(dst, flags, byte(len(body)))
	}
	return append(dst, body...)
}

// appendMessage appends a message of several parts.
func appendMessage(dst []byte, parts [][]byte) []byte {
	for i, p := range parts {
		flags := byte(flagMore)
		if i+1 == len(parts) {
			flags = 0
		}
		dst = appendFrame(dst, flags, p)
	}
	return dst
}

// readFrame reads a frame of up to maxFrame octets.
func readFrame(r *bufio.Reader) (flags byte, body []byte, err error) {
	if flags, err = r.ReadByte(); err != nil {
		return 0, nil, err
	}
	if flags&^(flagMore|flagLong|flagCommand) != 0 {
		return 0, nil, errProtocol
	}
	var size [8]byte
	part := size[7:]
	if flags&flagLong != 0 {
		part = size[:]
	}
	if _, err := io.ReadFull(r, part); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint64(size[:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("%w: a frame of %d octets", errProtocol, n)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return flags, body, err
}

// command cuts the name off a command.
func command(body []byte) (name string, rest []byte, ok bool) {
	if len(body) == 0 || len(body) < 1+int(body[0]) {
		return "", nil, false
	}
	return string(body[1 : 1+body[0]]), body[1+body[0]:], true
}

func appendCommand(dst []byte, name string, rest []byte) []byte {
	body := append(append([]byte{byte(len(name))}, name...), rest...)
	return appendFrame(dst, flagCommand, body)
}

// ready is the command that ends the handshake of a publisher (RFC 23, "The NULL Security Mechanism").
func ready() []byte {
	const name, value = "Socket-Type", "PUB"
	meta := append([]byte{byte(len(name))}, name...)
	meta = binary.BigEndian.AppendUint32(meta, uint32(len(value)))
	return appendCommand(nil, "READY", append(meta, value...))
}

// socketType returns which kind of socket the metadata of READY name.
func socketType(meta []byte) string {
	for len(meta) > 0 {
		name, rest, ok := command(meta)
		if !ok || len(rest) < 4 {
			return ""
		}
		n := binary.BigEndian.Uint32(rest)
		if rest = rest[4:]; uint64(n) > uint64(len(rest)) {
			return ""
		}
		if bytes.EqualFold([]byte(name), []byte("Socket-Type")) {
			return string(rest[:n])
		}
		meta = rest[n:]
	}
	return ""
}

// topics are what a subscriber wants, each as often as it said so.
type topics map[string]int

// wants reports whether a topic begins with one of them.
func (t topics) wants(topic []byte) bool {
	for prefix := range t {
		if bytes.HasPrefix(topic, []byte(prefix)) {
			return true
		}
	}
	return false
}

// change takes a subscription or the end of one in: "\x01topic", "\x00topic".
func (t topics) change(subscribe bool, topic []byte) error {
	key := string(topic)
	switch {
	case !subscribe && t[key] > 1:
		t[key]--
	case !subscribe:
		delete(t, key)
	case len(topic) > maxTopic || len(t) >= maxTopics && t[key] == 0:
		return fmt.Errorf("%w within the limits: %d topics of %d octets", errProtocol, maxTopics, maxTopic)
	default:
		t[key]++
	}
	return nil
}
