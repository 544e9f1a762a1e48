package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/secp/ellswift"
)

var testMagic = bitcoin.Mainnet().Magic

func TestV1FrameOctets(t *testing.T) {
	got, err := AppendV1([]byte{0xaa}, testMagic, &VerAck{})
	want := unhex(t, "aa f9beb4d9 76657261636b000000000000 00000000 5df6e0e2")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v", got, err)
	}
	if _, err := AppendV1(nil, testMagic, &Raw{Name: "thirteenchars"}); err == nil {
		t.Error("a command of 13 octets")
	}
	if _, err := AppendV1(nil, testMagic, &Raw{"block", make([]byte, MaxPayload+1)}); err == nil {
		t.Error("a payload of 4,000,001 octets")
	}
	if _, err := AppendV1(nil, testMagic, &Raw{"block", make([]byte, MaxPayload)}); err != nil {
		t.Errorf("a payload of 4,000,000 octets: %v", err)
	}
}

// fakeConn reads from one side and writes to the other.
type fakeConn struct {
	net.Conn
	io.Reader
	io.Writer
}

func (c fakeConn) Read(b []byte) (int, error)  { return c.Reader.Read(b) }
func (c fakeConn) Write(b []byte) (int, error) { return c.Writer.Write(b) }
func (c fakeConn) Close() error                { return nil }

func v1Reader(stream []byte) *Conn {
	return NewConn(fakeConn{Reader: bytes.NewReader(stream)}, false, Config{Magic: testMagic})
}

// Each row breaks one thing of a v1 frame. What Core drops is dropped, and the next message read;
// what makes Core disconnect ends the connection.
func TestV1FrameErrors(t *testing.T) {
	ping, err := AppendV1(nil, testMagic, &Ping{Nonce: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		change func(b []byte)
		text   string
		fatal  bool
	}{
		{"nothing", func(b []byte) {}, "", false},
		{"magic", func(b []byte) { b[0] ^= 1 },
			"Header error: Wrong MessageStart f8beb4d9 received", true},
		{"4,000,001 octets", func(b []byte) { copy(b[16:], "\x01\x09\x3d\x00") },
			"Header error: Size too large (ping, 4000001 bytes)", true},
		{"2^32-1 octets", func(b []byte) { copy(b[16:], "\xff\xff\xff\xff") },
			"Header error: Size too large (ping, 4294967295 bytes)", true},
		{"checksum", func(b []byte) { b[20] ^= 1 },
			"Header error: Wrong checksum (ping, 8 bytes), expected ", false},
		{"payload", func(b []byte) { b[24] ^= 1 },
			"Header error: Wrong checksum (ping, 8 bytes), expected ", false},
		{"control character", func(b []byte) { b[4] = 7 },
			"Header error: Invalid message type (ing, 8 bytes)", false},
		{"character 127", func(b []byte) { b[7] = 127 },
			"Header error: Invalid message type (pin, 8 bytes)", false},
		{"octet after the end", func(b []byte) { b[15] = 'x' },
			"Header error: Invalid message type (ping, 8 bytes)", false},
		{"no command", func(b []byte) { copy(b[4:8], "\x00\x00\x00\x00") }, "", false},
	} {
		first := bytes.Clone(ping)
		row.change(first)
		c := v1Reader(append(first, ping...))
		_, err := c.ReadFrame()
		var reject *RejectError
		isReject := errors.As(err, &reject)
		switch {
		case row.text == "":
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
		case err == nil || !strings.HasPrefix(err.Error(), row.text) || isReject == row.fatal:
			t.Errorf("%s: %v, want %s", row.name, err, row.text)
		}
		if row.fatal {
			continue
		}
		if isReject && reject.Size != len(ping) {
			t.Errorf("%s: size %d, want %d", row.name, reject.Size, len(ping))
		}
		if f, err := c.ReadFrame(); err != nil || f.Command != "ping" || f.Size != len(ping) {
			t.Errorf("after %s: %+v, %v", row.name, f, err)
		}
		if _, err := c.ReadFrame(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
	for n := 1; n < len(ping); n++ {
		if _, err := v1Reader(ping[:n]).ReadFrame(); err != io.ErrUnexpectedEOF {
			t.Errorf("cut to %d octets: %v", n, err)
		}
	}
}

// Memory is asked for before it is taken, and a refusal ends the connection.
func TestReserve(t *testing.T) {
	frame, err := AppendV1(nil, testMagic, &Raw{"block", make([]byte, 1000)})
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("no more")
	var asked int
	c := v1Reader(frame)
	c.cfg.Reserve = func(n int) error { asked = n; return refused }
	if _, err := c.ReadFrame(); !errors.Is(err, refused) || asked != 1000 {
		t.Errorf("%v after %d octets were asked for", err, asked)
	}
}

// What was reserved for what nobody gets is given back: else dropped messages would take all memory away.
func TestReservedIsReleased(t *testing.T) {
	frame, err := AppendV1(nil, testMagic, &Raw{"block", make([]byte, 1000)})
	if err != nil {
		t.Fatal(err)
	}
	broken := slices.Clone(frame)
	broken[v1HeaderSize] ^= 1 // a wrong checksum
	held := 0
	watch := func(cfg *Config) {
		cfg.Reserve = func(n int) error { held += n; return nil }
		cfg.Release = func(n int) { held -= n }
	}
	c := v1Reader(slices.Concat(broken, frame, frame[:500]))
	watch(&c.cfg)
	for i, want := range []int{0, 1000, 1000} {
		f, err := c.ReadFrame()
		if held != want || (err == nil) != (i == 1) || err == nil && f.Reserved != 1000 {
			t.Errorf("frame %d: %d octets held, want %d; %v", i, held, want, err)
		}
	}
	held = 0
	left, right := net.Pipe()
	a := NewConn(left, true, Config{Magic: testMagic, V2: true})
	cfg := Config{Magic: testMagic, V2: true}
	watch(&cfg)
	b := NewConn(right, false, cfg)
	go func() {
		if a.run(newHandshake(testMagic, true, testKey(t, 1), nil, []int{100_000})) == nil {
			a.WriteDecoy(5000)
			a.WriteMessage(&Ping{Nonce: 1})
			left.Close()
		}
	}()
	if err := b.Handshake(); err != nil {
		t.Fatal(err)
	}
	f, err := b.ReadFrame()
	if err != nil || held != f.Reserved {
		t.Errorf("%d octets held for a message of %d, %v", held, f.Reserved, err)
	}
	if _, err := b.ReadFrame(); err == nil || held != f.Reserved {
		t.Errorf("%d octets held after the end, %v", held, err)
	}
}

// Nor does a large decoy in the handshake get by unasked.
func TestReserveInHandshake(t *testing.T) {
	left, right := net.Pipe()
	refused := errors.New("no more")
	a := NewConn(left, true, Config{Magic: testMagic, V2: true})
	b := NewConn(right, false, Config{Magic: testMagic, V2: true,
		Reserve: func(n int) error { return refused }})
	done := make(chan error, 1)
	go func() { done <- b.Handshake() }()
	err := a.run(newHandshake(testMagic, true, testKey(t, 1), nil, []int{100_000}))
	if bErr := <-done; !errors.Is(bErr, refused) || err == nil {
		t.Errorf("responder: %v; initiator: %v", bErr, err)
	}
}

// A header that promises 4 MB and brings nothing costs 256 KiB.
func TestReadGrows(t *testing.T) {
	c := v1Reader(make([]byte, 10))
	b, err := c.read(MaxPayload)
	if err == nil || cap(b) > readAhead {
		t.Errorf("%d octets allocated, %v", cap(b), err)
	}
	c = v1Reader(make([]byte, readAhead+5))
	if b, err = c.read(readAhead + 5); err != nil || len(b) != readAhead+5 || cap(b) != len(b) {
		t.Errorf("%d of %d octets, %v", len(b), cap(b), err)
	}
}

func TestPacketVectors(t *testing.T) {
	for _, v := range packetVectors {
		secret, ours := [32]byte(unhex(t, v.secret)), ellswift.Encoding(unhex(t, v.ours))
		theirs := ellswift.Encoding(unhex(t, v.theirs))
		key, err := ellswift.NewKey(&secret, &ours)
		if err != nil {
			t.Fatal(err)
		}
		s, err := newSession(key.Secret(&theirs, v.initiator), testMagic, v.initiator)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(s.id[:]) != v.session ||
			hex.EncodeToString(s.sendTerminator[:]) != v.sendTerminator ||
			hex.EncodeToString(s.recvTerminator[:]) != v.recvTerminator {
			t.Errorf("packet %d: session %x, terminators %x and %x",
				v.index, s.id, s.sendTerminator, s.recvTerminator)
		}
		// What is sent is also read, with the keys of the other direction.
		other, err := newSession(key.Secret(&theirs, v.initiator), testMagic, v.initiator)
		if err != nil {
			t.Fatal(err)
		}
		s.recvLength, s.recvPacket = other.sendLength, other.sendPacket
		for range v.index {
			readPacket(t, s, s.appendPacket(nil, nil, nil, true), nil)
		}
		contents := bytes.Repeat(unhex(t, v.contents), v.times)
		packet := s.appendPacket(nil, contents, unhex(t, v.aad), v.ignore)
		if v.packet != "" && hex.EncodeToString(packet) != v.packet ||
			!bytes.HasSuffix(packet, unhex(t, v.packetEnd)) {
			t.Errorf("packet %d differs", v.index)
		}
		got, ignore := readPacket(t, s, packet, unhex(t, v.aad))
		if !bytes.Equal(got, contents) || ignore != v.ignore {
			t.Errorf("packet %d opens differently", v.index)
		}
	}
}

func readPacket(t *testing.T, s *session, packet, aad []byte) (contents []byte, ignore bool) {
	t.Helper()
	packet = bytes.Clone(packet)
	n, err := s.length([v2LengthSize]byte(packet))
	if err != nil || n+v2Overhead != len(packet) {
		t.Fatalf("length %d of a packet of %d octets, %v", n, len(packet), err)
	}
	contents, ignore, err = s.open(packet[v2LengthSize:], aad)
	if err != nil {
		t.Fatal(err)
	}
	return contents, ignore
}

// seeded returns randomness that is the same each time.
func seeded(n byte) io.Reader { return rand.NewChaCha8([32]byte{n}) }

func testKey(t testing.TB, seed byte) *ellswift.Key {
	t.Helper()
	k, err := ellswift.GenerateKey(seeded(seed))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// shake runs two handshakes against each other, with change applied to what the initiator sends.
func shake(a, b *Handshake, change func(sent int, octets []byte) []byte) error {
	var toA, toB []byte
	sent := 0
	fromA := func(octets []byte) {
		if change != nil {
			octets = change(sent, bytes.Clone(octets))
		}
		sent++
		toB = append(toB, octets...)
	}
	fromA(a.Start())
	toA = append(toA, b.Start()...)
	step := func(h *Handshake, in *[]byte, out func([]byte)) (bool, error) {
		if h.Want() == 0 || len(*in) < h.Want() {
			return false, nil
		}
		octets := (*in)[:h.Want()]
		*in = (*in)[h.Want():]
		reply, err := h.Step(octets)
		if reply != nil {
			out(reply)
		}
		return true, err
	}
	for {
		movedA, err := step(a, &toA, fromA)
		if err != nil {
			return err
		}
		movedB, err := step(b, &toB, func(o []byte) { toA = append(toA, o...) })
		if err != nil {
			return err
		}
		if !movedA && !movedB {
			break
		}
	}
	if a.Want() != 0 || b.Want() != 0 {
		return errors.New("the handshake hangs")
	}
	return nil
}

// Garbage and decoys in all amounts lead to the same session on both sides.
func TestHandshake(t *testing.T) {
	for _, garbage := range []int{0, 1, 15, 16, 17, 1000, 4095} {
		for _, decoys := range [][]int{nil, {0}, {5, 100_000, 0}} {
			a := newHandshake(testMagic, true, testKey(t, 1), make([]byte, garbage), decoys)
			b := newHandshake(testMagic, false, testKey(t, 2), make([]byte, 4095-garbage), decoys)
			if err := shake(a, b, nil); err != nil {
				t.Fatalf("%d octets of garbage, decoys %v: %v", garbage, decoys, err)
			}
			if a.keys.id != b.keys.id || a.V1() || b.V1() {
				t.Errorf("%d octets of garbage: sessions differ", garbage)
			}
			packet := a.keys.appendPacket(nil, []byte("hello"), nil, false)
			if got, _ := readPacket(t, b.keys, packet, nil); string(got) != "hello" {
				t.Errorf("%q", got)
			}
		}
	}
}

// Each row changes one thing of what the initiator sends.
func TestHandshakeErrors(t *testing.T) {
	flip := func(which, octet int) func(int, []byte) []byte {
		return func(sent int, b []byte) []byte {
			if sent == which {
				b[octet] ^= 1
			}
			return b
		}
	}
	for _, row := range []struct {
		name   string
		change func(sent int, b []byte) []byte
		text   string
	}{
		{"key", flip(0, 5), "V2 transport error: missing garbage terminator"},
		{"garbage", flip(0, 70), "V2 transport error: packet decryption failure (0 bytes)"},
		{"terminator", flip(1, 0), "V2 transport error: missing garbage terminator"},
		{"version packet", flip(1, 20), "V2 transport error: packet decryption failure (0 bytes)"},
		{"4,096 octets of garbage", func(sent int, b []byte) []byte {
			if sent == 0 {
				b = append(b, make([]byte, 4096-10)...)
			}
			return b
		}, "V2 transport error: missing garbage terminator"},
		{"length of the version packet", flip(1, 16+2), "V2 transport error: packet decryption failure"},
	} {
		a := newHandshake(testMagic, true, testKey(t, 1), make([]byte, 10), nil)
		b := newHandshake(testMagic, false, testKey(t, 2), nil, nil)
		err := shake(a, b, func(sent int, octets []byte) []byte {
			octets = row.change(sent, octets)
			if sent == 1 { // enough to be read as garbage, or as a packet
				octets = append(octets, make([]byte, 1<<17)...)
			}
			return octets
		})
		if err == nil || !strings.HasPrefix(err.Error(), row.text) {
			t.Errorf("%s: %v, want %s", row.name, err, row.text)
		}
	}
}

// A peer of another network derives other keys.
func TestHandshakeOtherNetwork(t *testing.T) {
	a := newHandshake(testMagic, true, testKey(t, 1), nil, nil)
	b := newHandshake([4]byte{1, 2, 3, 4}, false, testKey(t, 2), nil, nil)
	err := shake(a, b, func(_ int, octets []byte) []byte {
		return append(octets, make([]byte, 5000)...)
	})
	if err == nil || err.Error() != "V2 transport error: missing garbage terminator" {
		t.Errorf("%v", err)
	}
}

func TestResponderTellsV1(t *testing.T) {
	version := append(testMagic[:], v1Prefix...)
	h := newHandshake(testMagic, false, testKey(t, 1), nil, nil)
	if send, err := h.Step(version); err != nil || send != nil || !h.V1() || h.Want() != 0 ||
		!bytes.Equal(h.Replay(), version) {
		t.Errorf("v1 peer: %x, %v", send, err)
	}
	h = newHandshake(testMagic, false, testKey(t, 1), nil, nil)
	if _, err := h.Step(append([]byte{1, 2, 3, 4}, v1Prefix...)); err == nil ||
		err.Error() != "V2 transport error: V1 peer with wrong MessageStart 01020304" {
		t.Errorf("v1 peer of another network: %v", err)
	}
	h = newHandshake(testMagic, false, testKey(t, 1), nil, nil)
	almost := bytes.Clone(version)
	almost[15] = 1
	if send, err := h.Step(almost); err != nil || len(send) != 64 || h.V1() || h.Want() != 48 {
		t.Errorf("a key that begins like v1: %x, %v", send, err)
	}
	if _, err := h.Step(nil); err == nil {
		t.Error("a step without its octets")
	}
}

// Keys are replaced after 224 packets, again and again, in both directions.
func TestRekeying(t *testing.T) {
	a := newHandshake(testMagic, true, testKey(t, 1), nil, nil)
	b := newHandshake(testMagic, false, testKey(t, 2), nil, nil)
	if err := shake(a, b, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		for _, pair := range [][2]*session{{a.keys, b.keys}, {b.keys, a.keys}} {
			packet := pair[0].appendPacket(nil, []byte{byte(i)}, nil, i%3 == 0)
			got, ignore := readPacket(t, pair[1], packet, nil)
			if len(got) != 1 || got[0] != byte(i) || ignore != (i%3 == 0) {
				t.Fatalf("packet %d: %x, ignore %v", i, got, ignore)
			}
		}
	}
}

// connect returns both ends of a connection that buffers nothing, after their handshakes.
func connect(t testing.TB, initiator, responder Config) (a, b *Conn) {
	t.Helper()
	left, right := net.Pipe()
	deadline := time.Now().Add(10 * time.Second)
	left.SetDeadline(deadline)
	right.SetDeadline(deadline)
	a, b = NewConn(left, true, initiator), NewConn(right, false, responder)
	t.Cleanup(func() { a.Close(); b.Close() })
	done := make(chan error, 1)
	go func() { done <- b.Handshake() }()
	errA := a.Handshake()
	if initiator.V2 { // else the responder learns at the first message
		if err := <-done; errA != nil || err != nil {
			t.Fatal(errA, err)
		}
		return a, b
	}
	go func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	return a, b
}

// Every message crosses every pairing of transports, both ways.
func TestConnections(t *testing.T) {
	v1, v2 := Config{Magic: testMagic}, Config{Magic: testMagic, V2: true}
	for _, row := range []struct {
		name                 string
		initiator, responder Config
	}{
		{"v1 to v1", v1, v1},
		{"v2 to v2", v2, v2},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, b := connect(t, row.initiator, row.responder)
			if a.V2() != row.initiator.V2 || b.V2() != row.initiator.V2 ||
				a.SessionID() != b.SessionID() {
				t.Fatal("the sides disagree")
			}
			sendAll(t, a, b)
			sendAll(t, b, a)
		})
	}
}

func sendAll(t *testing.T, from, to *Conn) {
	t.Helper()
	messages := everyMessage(t)
	messages = append(messages, &Raw{"block", make([]byte, MaxPayload)}, &Raw{"twelve_chars", nil})
	sizes := make(chan int, len(messages)+2)
	go func() {
		defer close(sizes)
		for i, m := range messages {
			if i == 3 && from.V2() {
				if err := from.WriteDecoy(100); err != nil {
					t.Error(err)
				}
			}
			n, err := from.WriteMessage(m)
			if err != nil {
				t.Error(err)
				return
			}
			sizes <- n
		}
	}()
	for i, want := range messages {
		f, err := to.ReadFrame()
		if err != nil {
			t.Fatalf("%s: %v", want.Command(), err)
		}
		n := <-sizes
		if i == 3 && from.V2() {
			n += 100 + v2Overhead
		}
		if f.Command != want.Command() || !bytes.Equal(f.Payload, want.Append(nil)) || f.Size != n {
			t.Fatalf("%s: %s of %d octets on the wire, %d written", want.Command(), f.Command, f.Size, n)
		}
	}
}

// A responder that speaks v2 understands a v1 peer.
func TestConnV1PeerOfV2Responder(t *testing.T) {
	left, right := net.Pipe()
	a := NewConn(left, true, Config{Magic: testMagic})
	b := NewConn(right, false, Config{Magic: testMagic, V2: true})
	defer a.Close()
	defer b.Close()
	want := &Version{Protocol: 70016, UserAgent: "/v1/"}
	want.You, want.Me = ipPort("1.2.3.4:5"), ipPort("1.2.3.4:6")
	written := make(chan error, 1)
	go func() {
		_, err := a.WriteMessage(want)
		if err == nil {
			_, err = a.WriteMessage(&VerAck{})
		}
		written <- err
	}()
	if err := b.Handshake(); err != nil {
		t.Fatal(err)
	}
	f, err := b.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(f.Command, f.Payload)
	if err != nil || !reflect.DeepEqual(m, want) || b.V2() {
		t.Errorf("%+v, %v", m, err)
	}
	if f, err := b.ReadFrame(); err != nil || f.Command != "verack" {
		t.Errorf("%+v, %v", f, err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	if err := b.WriteDecoy(5); err != nil {
		t.Error(err)
	}
}

// A peer that speaks only v1 closes when it sees a key: the initiator is told to try v1.
func TestConnV2InitiatorOfV1Peer(t *testing.T) {
	left, right := net.Pipe()
	a := NewConn(left, true, Config{Magic: testMagic, V2: true})
	b := NewConn(right, false, Config{Magic: testMagic})
	done := make(chan error, 1)
	go func() {
		_, err := b.ReadFrame()
		b.Close()
		done <- err
	}()
	if err := a.Handshake(); !errors.Is(err, ErrNotV2) {
		t.Errorf("initiator: %v", err)
	}
	if err := <-done; err == nil ||
		!strings.HasPrefix(err.Error(), "Header error: Wrong MessageStart") {
		t.Errorf("v1 peer: %v", err)
	}
}

// A handshake that ends in the midst ends with an error, and leaves no goroutine behind.
func TestConnHandshakeCutShort(t *testing.T) {
	for _, octets := range []int{1, 63, 64, 80, 100} {
		left, right := net.Pipe()
		a := NewConn(left, true, Config{Magic: testMagic, V2: true})
		go func() {
			go io.Copy(io.Discard, right)
			right.Write(make([]byte, octets))
			right.Close()
		}()
		if err := a.Handshake(); err == nil || errors.Is(err, ErrNotV2) {
			t.Errorf("after %d octets: %v", octets, err)
		}
	}
}

// The contents of a v2 packet that name no message are dropped, and the next is read.
func TestV2ContentsErrors(t *testing.T) {
	a, b := connect(t, Config{Magic: testMagic, V2: true}, Config{Magic: testMagic, V2: true})
	long := func(name string) []byte {
		return append(append([]byte{0}, name...), make([]byte, 12)...)[:13]
	}
	for _, row := range []struct {
		name     string
		contents []byte
		command  string // empty where the packet is dropped
	}{
		{"nothing", nil, ""},
		{"short id 28", []byte{28}, "addrv2"},
		{"short id 29, which is nobody's", []byte{29}, ""},
		{"short id 255", []byte{255}, ""},
		{"long name", long("verack"), "verack"},
		{"long name of 12", long("twelve_chars"), "twelve_chars"},
		{"long name cut short", long("verack")[:12], ""},
		{"control character", long("ver\x07ck"), ""},
		{"octet after the end", long("ver\x00ck"), ""},
	} {
		go a.Conn.Write(a.session.appendPacket(nil, row.contents, nil, false))
		f, err := b.ReadFrame()
		var reject *RejectError
		if row.command == "" && !errors.As(err, &reject) || row.command != "" && err != nil ||
			f.Command != row.command {
			t.Errorf("%s: %+v, %v", row.name, f, err)
		}
	}
}

// A length beyond what a message may have ends the connection before anything is allocated.
func TestV2PacketTooLarge(t *testing.T) {
	a, b := connect(t, Config{Magic: testMagic, V2: true}, Config{Magic: testMagic, V2: true})
	length := [3]byte{0x0e, 0x09, 0x3d} // 4,000,014
	a.session.sendLength.crypt(length[:])
	go a.Conn.Write(length[:])
	if _, err := b.ReadFrame(); err == nil ||
		err.Error() != "V2 transport error: packet too large (4000014 bytes)" {
		t.Errorf("%v", err)
	}
}

// FuzzHandshake gives a responder whatever comes: it ends with an error, as v1, or wants more.
func FuzzHandshake(f *testing.F) {
	f.Add(append(testMagic[:], v1Prefix...))
	f.Add(make([]byte, 300))
	key := testKey(f, 1)
	f.Fuzz(func(t *testing.T, b []byte) {
		h := newHandshake(testMagic, false, key, nil, nil)
		for h.Want() > 0 && len(b) >= h.Want() {
			n := h.Want()
			if _, err := h.Step(b[:n:n]); err != nil {
				return
			}
			b = b[n:]
		}
		if h.Want() == 0 && !h.V1() {
			t.Fatal("a handshake without the key")
		}
	})
}

// FuzzV1Stream reads a stream to its end.
func FuzzV1Stream(f *testing.F) {
	ping, err := AppendV1(nil, testMagic, &Ping{Nonce: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ping)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := v1Reader(b)
		for {
			frame, err := c.ReadFrame()
			var reject *RejectError
			if err != nil && !errors.As(err, &reject) {
				return
			}
			if err == nil && len(frame.Command) > commandSize {
				t.Errorf("command %q", frame.Command)
			}
		}
	})
}

// FuzzV2Contents splits whatever a packet may hold.
func FuzzV2Contents(f *testing.F) {
	f.Add([]byte{14, 0})
	f.Add([]byte("\x00verack\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		command, payload, err := cutContents(b)
		if err == nil && len(payload) >= len(b) {
			t.Errorf("%x is %q with %x", b, command, payload)
		}
	})
}

func benchmarkConn(b *testing.B, cfg Config) {
	message := &Raw{"block", make([]byte, 1_000_000)}
	c := NewConn(fakeConn{Writer: io.Discard}, true, cfg)
	if cfg.V2 {
		var err error
		if c.session, err = newSession([32]byte{1}, testMagic, true); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(1_000_000)
	for b.Loop() {
		if _, err := c.WriteMessage(message); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteV1(b *testing.B) { benchmarkConn(b, Config{Magic: testMagic}) }
func BenchmarkWriteV2(b *testing.B) { benchmarkConn(b, Config{Magic: testMagic, V2: true}) }

func BenchmarkHandshake(b *testing.B) {
	for b.Loop() {
		x, errX := NewHandshake(testMagic, true, seeded(1))
		y, errY := NewHandshake(testMagic, false, seeded(2))
		if err := errors.Join(errX, errY, shake(x, y, nil)); err != nil {
			b.Fatal(err)
		}
	}
}
