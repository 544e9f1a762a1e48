package wire

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
)

// Config says how a connection is framed.
type Config struct {
	Magic [4]byte // of the network

	// V2 asks for the encrypted transport: the side that opened the connection begins with it,
	// the other takes what comes. Without, both speak v1.
	V2 bool

	// Reserve, if not nil, is called before memory is taken for a payload, or a decoy, of so many
	// octets. It may wait; an error ends the connection.
	Reserve func(octets int) error

	// Release, if not nil, is told of octets that were reserved and are not in a Frame: of messages
	// that were dropped, of decoys, and of those that did not come whole.
	Release func(octets int)

	// Random is the source of keys and garbage; nil for the operating system's.
	Random io.Reader
}

// ErrNotV2 says that a peer closed the connection when it saw a v2 key: it speaks only v1, and is
// to be called again so.
var ErrNotV2 = errors.New("no answer to the v2 handshake: the peer may speak only v1")

// Conn frames messages over a connection. One goroutine may read while another writes; everything
// else that is in net.Conn may be used beside them.
type Conn struct {
	net.Conn
	cfg       Config
	initiator bool
	r         *bufio.Reader
	session   *session // nil with v1
	replay    []byte   // octets of a v1 peer that the handshake read
	out       []byte   // the writer's buffer
}

// Frame is a message as it came: Parse reads it.
type Frame struct {
	Command string
	Payload []byte // not used again by Conn
	Size    int    // octets on the wire

	// Reserved is what Reserve was asked for: whoever has the frame gives it back.
	Reserved int
}

// NewConn returns the framing of a connection, on which Handshake is to be called first. The
// initiator is whoever opened it.
func NewConn(c net.Conn, initiator bool, cfg Config) *Conn {
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	return &Conn{Conn: c, cfg: cfg, initiator: initiator, r: bufio.NewReaderSize(c, 4096)}
}

// V2 reports whether the connection is encrypted. It is known after Handshake.
func (c *Conn) V2() bool { return c.session != nil }

// SessionID returns what both sides of an encrypted connection can compare to know that nobody sits
// between them; zero without encryption.
func (c *Conn) SessionID() (id [32]byte) {
	if c.session != nil {
		id = c.session.id
	}
	return id
}

// Handshake agrees on a transport. It waits for the peer; a deadline of the connection bounds that.
// After an error the connection is closed.
func (c *Conn) Handshake() error {
	if !c.cfg.V2 {
		return nil
	}
	h, err := NewHandshake(c.cfg.Magic, c.initiator, c.cfg.Random)
	if err != nil {
		return err
	}
	return c.run(h)
}

// run drives the handshake. It writes beside reading: two sides that both write first, over a
// connection that buffers nothing, would wait for each other for ever.
func (c *Conn) run(h *Handshake) error {
	sends := make(chan []byte, 3) // no side sends more often
	written := make(chan error, 1)
	go func() { written <- c.writeAll(sends) }()
	if hello := h.Start(); hello != nil {
		sends <- hello
	}
	err := c.readHandshake(h, sends)
	close(sends)
	if err != nil {
		c.Conn.Close() // wakes the writer
	}
	if writeErr := <-written; err == nil && writeErr != nil {
		c.Conn.Close()
		err = fmt.Errorf("v2 handshake: %w", writeErr)
	}
	if err == nil && !h.V1() {
		c.session = h.keys
	}
	return err
}

// writeAll writes until the channel is closed. The octets of one channel are few enough that
// nothing is lost by giving up after an error: the sender never waits.
func (c *Conn) writeAll(sends <-chan []byte) error {
	for b := range sends {
		if _, err := c.Conn.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) readHandshake(h *Handshake, sends chan<- []byte) error {
	heard := false
	for h.Want() > 0 {
		send, err := c.readStep(h, &heard)
		if err != nil {
			return err
		}
		if send != nil {
			sends <- send
		}
	}
	c.replay = h.Replay()
	return nil
}

// readStep reads what the handshake wants next. Nearly all of it is small: garbage is read octet by octet.
func (c *Conn) readStep(h *Handshake, heard *bool) (send []byte, err error) {
	var small [64]byte
	want := h.Want()
	b := small[:min(want, len(small))]
	if want > len(small) { // a decoy
		if err := c.reserve(want); err != nil {
			return nil, err
		}
		defer c.release(want)
	}
	n, err := io.ReadFull(c.r, b)
	*heard = *heard || n > 0
	if err != nil && c.initiator && !*heard {
		return nil, fmt.Errorf("%w: %w", ErrNotV2, err)
	}
	if err == nil && len(b) < want {
		var rest []byte
		rest, err = c.read(want - len(b))
		b = append(slices.Clone(b), rest...)
	}
	if err != nil {
		return nil, fmt.Errorf("v2 handshake: %w", err)
	}
	return h.Step(b)
}

// readAhead is the most that is allocated for octets that have not arrived (Core's
// MAX_RESERVE_AHEAD).
const readAhead = 256 << 10

// read reads n octets into memory of their own, which grows as they come: what a peer promises
// costs nothing.
func (c *Conn) read(n int) ([]byte, error) {
	b := make([]byte, 0, min(n, readAhead))
	for len(b) < n {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(n, 2*cap(b))), b...)
		}
		k, err := io.ReadFull(c.r, b[len(b):cap(b)])
		b = b[:len(b)+k]
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

// ReadFrame reads the next message. A *RejectError means that one was dropped and the next can be
// read; after any other error the connection is of no use.
func (c *Conn) ReadFrame() (Frame, error) {
	if c.session != nil {
		return c.readV2()
	}
	return c.readV1()
}

func (c *Conn) reserve(n int) error {
	if c.cfg.Reserve == nil {
		return nil
	}
	return c.cfg.Reserve(n)
}

func (c *Conn) release(n int) {
	if c.cfg.Release != nil {
		c.cfg.Release(n)
	}
}

func (c *Conn) readV1() (f Frame, err error) {
	var b [v1HeaderSize]byte
	n := copy(b[:], c.replay)
	c.replay = nil
	if _, err := io.ReadFull(c.r, b[n:]); err != nil {
		return Frame{}, err
	}
	h, err := parseV1Header(&b, c.cfg.Magic)
	if err != nil {
		return Frame{}, err
	}
	if err := c.reserve(h.size); err != nil {
		return Frame{}, err
	}
	defer func() {
		if err != nil {
			c.release(h.size)
		}
	}()
	payload, err := c.read(h.size)
	if err != nil {
		return Frame{}, noEOF(err)
	}
	if err := h.check(payload); err != nil {
		return Frame{}, err
	}
	command, _ := cutCommand(h.command[:], '~')
	return Frame{command, payload, v1HeaderSize + len(payload), h.size}, nil
}

// readV2 reads packets up to the first that is no decoy.
func (c *Conn) readV2() (Frame, error) {
	for size := 0; ; {
		var length [v2LengthSize]byte
		if _, err := io.ReadFull(c.r, length[:]); err != nil {
			return Frame{}, err
		}
		n, err := c.session.length(length)
		if err != nil {
			return Frame{}, err
		}
		if err := c.reserve(n); err != nil {
			return Frame{}, err
		}
		size += n + v2Overhead
		f, ignore, err := c.readPacket(n)
		if err != nil || ignore {
			c.release(n)
		}
		if !ignore {
			f.Size, f.Reserved = size, n
			return f, err
		}
	}
}

// readPacket reads a packet whose contents have n octets.
func (c *Conn) readPacket(n int) (f Frame, ignore bool, err error) {
	b, err := c.read(n + v2HeaderSize + v2TagSize)
	if err != nil {
		return f, false, noEOF(err)
	}
	contents, ignore, err := c.session.open(b, nil)
	if err != nil || ignore {
		return f, ignore && err == nil, err
	}
	f.Command, f.Payload, err = cutContents(contents)
	return f, false, err
}

// noEOF says of an end in the midst of a message that it is not expected.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// keepBuffer is the largest buffer for writing that is kept for the next message.
const keepBuffer = 64 << 10

// WriteMessage writes a message and returns the octets that it took on the wire.
func (c *Conn) WriteMessage(m Message) (octets int, err error) {
	b := c.out[:0]
	if c.session != nil {
		b, err = c.session.appendMessage(b, m)
	} else {
		b, err = AppendV1(b, c.cfg.Magic, m)
	}
	if cap(b) <= keepBuffer {
		c.out = b
	}
	if err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// WriteDecoy writes a packet of so many octets that the peer ignores: an onlooker cannot tell it
// from a message. A v1 connection has no decoys, and nothing is written.
func (c *Conn) WriteDecoy(octets int) error {
	if c.session == nil {
		return nil
	}
	_, err := c.Conn.Write(c.session.appendPacket(nil, make([]byte, octets), nil, true))
	return err
}
