// Package miltertest is a filter for tests: it speaks the other side of the milter protocol, says what
// a test wants and remembers what it was shown. It is for tests only.
package miltertest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Packet is a command or an answer.
type Packet struct {
	Code byte
	Data string
}

// Filter is a filter. Set its fields before it is asked.
type Filter struct {
	Version, Actions, Protocol uint32 // what it answers to the greeting; Version 0 is 6
	// Answer returns what it says to a command; nothing leaves the other side waiting. nil: it says to go
	// on.
	Answer func(cmd byte, data string) []Packet

	Network, Addr string

	mu    sync.Mutex
	seen  []string // guarded by mu
	conns []net.Conn
	wg    sync.WaitGroup
}

// Continue is the answer to go on.
var Continue = []Packet{{'c', ""}}

// Start lets the filter listen on loopback until the test ends.
func Start(t testing.TB, f *Filter) *Filter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.Network, f.Addr = "tcp", l.Addr().String()
	f.wg.Go(func() { f.serve(l) })
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		for _, c := range f.conns {
			c.Close()
		}
		f.mu.Unlock()
		f.wg.Wait()
	})
	return f
}

// Seen returns the commands that came so far, one a string: the code, and the strings of its data
// separated by "|". Bodies are shortened.
func (f *Filter) Seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}

func (f *Filter) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns = append(f.conns, c)
		f.mu.Unlock()
		f.wg.Go(func() {
			defer c.Close()
			f.talk(c)
		})
	}
}

func (f *Filter) talk(c net.Conn) {
	for {
		var head [5]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		data := make([]byte, binary.BigEndian.Uint32(head[:])-1)
		if _, err := io.ReadFull(c, data); err != nil {
			return
		}
		cmd := head[4]
		f.note(cmd, data)
		switch cmd {
		case 'O':
			f.greet(c)
			continue
		case 'D', 'A':
			continue
		case 'Q':
			return
		}
		if f.mute(cmd) {
			continue
		}
		answers := Continue
		if f.Answer != nil {
			answers = f.Answer(cmd, string(data))
		}
		for _, a := range answers {
			c.Write(a.Bytes())
		}
	}
}

// mute reports whether the filter said that it does not answer a command.
func (f *Filter) mute(cmd byte) bool {
	bit := map[byte]uint32{'L': 1 << 7, 'C': 1 << 12, 'H': 1 << 13, 'M': 1 << 14, 'R': 1 << 15,
		'T': 1 << 16, 'N': 1 << 18, 'B': 1 << 19}[cmd]
	return f.Protocol&bit != 0
}

func (f *Filter) greet(c net.Conn) {
	version := f.Version
	if version == 0 {
		version = 6
	}
	b := binary.BigEndian.AppendUint32(nil, version)
	b = binary.BigEndian.AppendUint32(b, f.Actions)
	b = binary.BigEndian.AppendUint32(b, f.Protocol)
	c.Write(Packet{'O', string(b)}.Bytes())
}

func (f *Filter) note(cmd byte, data []byte) {
	text := string(data)
	switch {
	case cmd == 'O':
		text = ""
	case cmd == 'C' && strings.IndexByte(text, 0) >= 0:
		i := strings.IndexByte(text, 0)
		text = text[:i+2] + "\x00" + text[min(i+4, len(text)):] // the port is by chance
	case cmd == 'B' && len(text) > 40:
		text = fmt.Sprintf("%.20s... %d", text, len(text))
	}
	text = strings.ReplaceAll(strings.TrimSuffix(text, "\x00"), "\x00", "|")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, strings.TrimRight(string(cmd)+" "+text, " "))
}

// Bytes returns the packet as it is sent.
func (p Packet) Bytes() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(p.Data)+1))
	return append(append(b, p.Code), p.Data...)
}

// AddHeader, InsertHeader and ChangeHeader ask for changes of the header.
func AddHeader(name, value string) Packet { return Packet{'h', name + "\x00" + value + "\x00"} }

// InsertHeader asks for a field at a place of the header.
func InsertHeader(index uint32, name, value string) Packet {
	return Packet{'i', string(binary.BigEndian.AppendUint32(nil, index)) + name + "\x00" + value + "\x00"}
}

// ChangeHeader asks for another value of a field; none for it to go.
func ChangeHeader(index uint32, name, value string) Packet {
	return Packet{'m', string(binary.BigEndian.AppendUint32(nil, index)) + name + "\x00" + value + "\x00"}
}
