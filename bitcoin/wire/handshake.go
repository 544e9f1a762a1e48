package wire

import (
	"bytes"
	"fmt"
	"io"

	"github.com/tallypost/tallypost/bitcoin/secp/ellswift"
)

// maxGarbage is the most octets of garbage, between key and terminator, that a side may send.
const maxGarbage = 4095

// v1Prefix is how a v1 connection begins, behind the magic.
const v1Prefix = "version\x00\x00\x00\x00\x00"

// Handshake is one side of the opening of a v2 connection (BIP 324, "Overall handshake"), as a
// machine that neither waits nor knows a socket: send what Start returns; then, until Want is 0,
// read as many octets as it says, give them to Step, and send what comes back. The last step leaves
// a session, or finds that the peer speaks v1.
//
//	initiator                         responder
//	key, garbage              ->      16 octets tell v1 from v2
//	                          <-      key, garbage
//	terminator, version       ->
//	                          <-      terminator, version
type Handshake struct {
	magic     [4]byte
	initiator bool
	key       *ellswift.Key
	garbage   []byte // that is sent
	decoys    []int  // sizes of packets to be ignored, before the version

	step func([]byte) ([]byte, error)
	want int
	recv []byte // octets of the current step so far
	v1   bool
	keys *session
}

// NewHandshake begins a handshake with a fresh key and random garbage. The initiator is whoever
// opened the connection.
func NewHandshake(magic [4]byte, initiator bool, random io.Reader) (*Handshake, error) {
	key, err := ellswift.GenerateKey(random)
	if err != nil {
		return nil, fmt.Errorf("v2 handshake: %w", err)
	}
	var size [2]byte
	if _, err := io.ReadFull(random, size[:]); err != nil {
		return nil, fmt.Errorf("v2 handshake: %w", err)
	}
	garbage := make([]byte, (int(size[0])<<8|int(size[1]))%(maxGarbage+1))
	if _, err := io.ReadFull(random, garbage); err != nil {
		return nil, fmt.Errorf("v2 handshake: %w", err)
	}
	return newHandshake(magic, initiator, key, garbage, nil), nil
}

func newHandshake(magic [4]byte, initiator bool, key *ellswift.Key, garbage []byte,
	decoys []int) *Handshake {
	h := &Handshake{
		magic:     magic,
		initiator: initiator,
		key:       key,
		garbage:   garbage,
		decoys:    decoys,
	}
	if initiator {
		h.next(h.recvKey, len(ellswift.Encoding{}))
	} else {
		h.next(h.recvPrefix, len(magic)+len(v1Prefix))
	}
	return h
}

// next sets the step that takes the next so many octets.
func (h *Handshake) next(step func([]byte) ([]byte, error), want int) {
	h.step, h.want = step, want
}

// Start returns what to send first: nothing for a responder.
func (h *Handshake) Start() []byte {
	if !h.initiator {
		return nil
	}
	return h.hello()
}

func (h *Handshake) hello() []byte {
	public := h.key.Public()
	return append(public[:], h.garbage...)
}

// Want returns the number of octets that Step takes next, 0 after the end.
func (h *Handshake) Want() int { return h.want }

// V1 reports whether the peer turned out to speak v1. What was read of it is Replay.
func (h *Handshake) V1() bool { return h.v1 }

// Replay returns the octets that belong to the v1 connection.
func (h *Handshake) Replay() []byte { return h.recv }

// Step takes exactly as many octets as Want says and returns what to send. After an error the
// connection is of no use.
func (h *Handshake) Step(b []byte) (send []byte, err error) {
	if len(b) != h.want || h.want == 0 {
		return nil, fmt.Errorf("v2 handshake: %d octets given, %d wanted", len(b), h.want)
	}
	return h.step(b)
}

// recvPrefix tells v1 from v2: only a v2 key begins with anything else than magic and "version".
func (h *Handshake) recvPrefix(b []byte) ([]byte, error) {
	h.recv = append(h.recv, b...)
	if bytes.HasSuffix(b, []byte(v1Prefix)) {
		if !bytes.HasPrefix(b, h.magic[:]) {
			// A key would look so once in 2^96 times.
			return nil, coreError("V2 transport error: V1 peer with wrong MessageStart %x", b[:4])
		}
		h.v1 = true
		h.next(nil, 0)
		return nil, nil
	}
	h.next(h.recvKey, len(ellswift.Encoding{})-len(b))
	return h.hello(), nil
}

// recvKey takes the rest of the peer's key, derives the session and ends our garbage.
func (h *Handshake) recvKey(b []byte) (send []byte, err error) {
	h.recv = append(h.recv, b...)
	theirs := ellswift.Encoding(h.recv)
	h.keys, err = newSession(h.key.Secret(&theirs, h.initiator), h.magic, h.initiator)
	if err != nil {
		return nil, err
	}
	h.key = nil
	h.recv = h.recv[:0]
	h.next(h.recvGarbage, len(h.keys.recvTerminator))

	// The first packet, decoy or not, vouches for the garbage. The version packet is empty today.
	send = append(send, h.keys.sendTerminator[:]...)
	aad := h.garbage
	for _, size := range h.decoys {
		send = h.keys.appendPacket(send, make([]byte, size), aad, true)
		aad = nil
	}
	return h.keys.appendPacket(send, nil, aad, false), nil
}

// recvGarbage looks for the peer's terminator, octet by octet once there are enough.
func (h *Handshake) recvGarbage(b []byte) ([]byte, error) {
	h.recv = append(h.recv, b...)
	garbage, found := bytes.CutSuffix(h.recv, h.keys.recvTerminator[:])
	switch {
	case found:
		h.recv = garbage
		h.next(h.recvLength, v2LengthSize)
	case len(h.recv) == maxGarbage+len(h.keys.recvTerminator):
		return nil, coreError("V2 transport error: missing garbage terminator")
	default:
		h.want = 1
	}
	return nil, nil
}

func (h *Handshake) recvLength(b []byte) ([]byte, error) {
	n, err := h.keys.length([v2LengthSize]byte(b))
	h.next(h.recvVersion, n+v2HeaderSize+v2TagSize)
	return nil, err
}

// recvVersion takes packets up to the first that is no decoy; what it says is for versions to come.
func (h *Handshake) recvVersion(b []byte) ([]byte, error) {
	_, ignore, err := h.keys.open(b, h.recv)
	if err != nil {
		return nil, err
	}
	h.recv = nil
	if ignore {
		h.next(h.recvLength, v2LengthSize)
		return nil, nil
	}
	h.next(nil, 0)
	return nil, nil
}
