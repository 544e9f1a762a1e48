package queue

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// Records are made of unsigned varints, single octets, and strings with their length in front. A
// time is microseconds since 1970, zero for none. Every record begins with its version.

// writer appends to a record.
type writer struct{ b []byte }

func (w *writer) byte(c byte)      { w.b = append(w.b, c) }
func (w *writer) uint(n uint64)    { w.b = binary.AppendUvarint(w.b, n) }
func (w *writer) fixed64(n uint64) { w.b = binary.BigEndian.AppendUint64(w.b, n) }
func (w *writer) time(t time.Time) { w.uint(uint64(micros(t))) }

func (w *writer) string(s string) {
	w.uint(uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) bool(v bool) {
	if v {
		w.byte(1)
	} else {
		w.byte(0)
	}
}

func (w *writer) address(a mail.Address) {
	w.string(a.Local)
	w.string(string(a.Domain))
}

func (w *writer) peer(p *mail.Peer) {
	w.bool(p != nil)
	if p == nil {
		return
	}
	w.string(p.Name)
	w.string(p.Addr)
	w.string(p.Account)
	w.string(p.TLSVersion)
	w.string(p.Cipher)
	w.string(p.CertSHA256)
}

// micros is a time as records have it. What lies before 1970 is no time of a message.
func micros(t time.Time) int64 {
	if t.IsZero() || t.UnixMicro() < 0 {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

var errRecord = errors.New("record is damaged")

// reader takes a record apart. After the first fault everything reads as zero, and err says so.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	r.b, r.err = nil, errRecord
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) fixed64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	n := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return n
}

// count reads how many things follow, of which each takes at least min octets.
func (r *reader) count(min int) int {
	n := r.uint()
	if n > uint64(len(r.b)/min) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) string() string {
	n := r.count(1)
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) bool() bool {
	c := r.byte()
	if c > 1 {
		r.fail()
	}
	return c == 1
}

func (r *reader) micros() int64 {
	n := r.uint()
	if n > 1<<62 {
		r.fail()
		return 0
	}
	return int64(n)
}

func (r *reader) time() time.Time { return fromMicros(r.micros()) }

func (r *reader) address() mail.Address {
	return mail.Address{Local: r.string(), Domain: mail.Domain(r.string())}
}

func (r *reader) peer() *mail.Peer {
	if !r.bool() {
		return nil
	}
	return &mail.Peer{
		Name:       r.string(),
		Addr:       r.string(),
		Account:    r.string(),
		TLSVersion: r.string(),
		Cipher:     r.string(),
		CertSHA256: r.string(),
	}
}

// version reads the first octet of a record.
func (r *reader) version(known byte) {
	if v := r.byte(); r.err == nil && v != known {
		r.fail()
	}
}

// end wants nothing to be left, and returns the first fault.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail()
	}
	return r.err
}
