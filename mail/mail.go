// Package mail holds the nouns of the mail half: address, envelope, header, message, event.
//
// It knows the words of RFC 5321, RFC 5322, RFC 3461 and the event names of ETSI EN 319 522-1, and how
// each is written. It does no network, no disk and no policy.
package mail

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// ID names a message in this server's queue: 13 characters of Crockford's base 32 that sort by time of
// arrival. It is unique for ever on one server.
type ID uint64

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// String returns the 13 characters.
func (id ID) String() string {
	var b [13]byte
	for i, v := len(b)-1, uint64(id); i >= 0; i, v = i-1, v>>5 {
		b[i] = crockford[v&31]
	}
	return string(b[:])
}

// ParseID reads what String wrote; lower case is accepted.
func ParseID(s string) (ID, error) {
	if len(s) != 13 {
		return 0, fmt.Errorf("queue id %q: %d characters, want 13", s, len(s))
	}
	var v uint64
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		d := -1
		for j := 0; j < len(crockford); j++ {
			if crockford[j] == c {
				d = j
			}
		}
		if d < 0 || i == 0 && d > 15 {
			return 0, fmt.Errorf("queue id %q: bad character %q", s, s[i])
		}
		v = v<<5 | uint64(d)
	}
	return ID(v), nil
}

// MarshalText makes an ID a JSON string.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}

// IDs hands out IDs: microseconds since 1970 in the upper 52 bits, random below, always growing.
// The zero value is ready for use.
type IDs struct {
	mu   sync.Mutex
	last ID // guarded by mu
}

// Next returns an ID greater than each before it. Random low bits keep IDs unique after the clock was
// set back and the process restarted, and hide the rate of mail from whoever sees two IDs.
func (s *IDs) Next(now time.Time) ID {
	var low [2]byte
	rand.Read(low[:])
	id := ID(uint64(now.UnixMicro())<<12 | uint64(binary.BigEndian.Uint16(low[:]))&0xfff)
	s.mu.Lock()
	defer s.mu.Unlock()
	if id <= s.last {
		id = s.last + 1
	}
	s.last = id
	return id
}
