package milter

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// protocolVersion is the one of libmilter 1.0 (Sendmail 8.14 and later).
const protocolVersion = 6

// Actions that a filter can ask for (SMFIF_*). Changes of the envelope and of the body are not offered.
const (
	actAddHeaders    = 1 << 0
	actChangeHeaders = 1 << 4
	actQuarantine    = 1 << 5

	offeredActions = actAddHeaders | actChangeHeaders | actQuarantine
)

// What a filter does not want to see, or does not answer (SMFIP_*).
const (
	noConnect        = 1 << 0
	noHelo           = 1 << 1
	noMail           = 1 << 2
	noRcpt           = 1 << 3
	noBody           = 1 << 4
	noHeaders        = 1 << 5
	noEndHeader      = 1 << 6
	noReplyHeader    = 1 << 7
	noUnknown        = 1 << 8
	noData           = 1 << 9
	maySkip          = 1 << 10
	noReplyConnect   = 1 << 12
	noReplyHelo      = 1 << 13
	noReplyMail      = 1 << 14
	noReplyRcpt      = 1 << 15
	noReplyData      = 1 << 16
	noReplyUnknown   = 1 << 17
	noReplyEndHeader = 1 << 18
	noReplyBody      = 1 << 19
	leadingSpace     = 1 << 20 // values come and go with the white space after the colon

	offeredProtocol = noConnect | noHelo | noMail | noRcpt | noBody | noHeaders | noEndHeader |
		noReplyHeader | noUnknown | noData | maySkip | noReplyConnect | noReplyHelo | noReplyMail |
		noReplyRcpt | noReplyData | noReplyUnknown | noReplyEndHeader | noReplyBody | leadingSpace
)

// maxPacket bounds what a filter may send at once; the largest that has sense is a field.
const maxPacket = 1 << 20

// send puts a packet into the buffer: its length, a command, data.
func (s *Session) send(cmd byte, data []byte) error {
	s.conn.SetWriteDeadline(time.Now().Add(s.cfg.Timeout))
	var head [5]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(data)+1))
	head[4] = cmd
	s.w.Write(head[:]) // its error comes back from the next call
	if _, err := s.w.Write(data); err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	return nil
}

func (s *Session) flush() error {
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	return nil
}

// read sends what is in the buffer and returns the next packet that is not a sign of life.
func (s *Session) read(timeout time.Duration) (code byte, data []byte, err error) {
	if err := s.flush(); err != nil {
		return 0, nil, err
	}
	for {
		s.conn.SetReadDeadline(time.Now().Add(timeout))
		code, data, err = readPacket(s.r)
		if err != nil || code != 'p' {
			return code, data, err
		}
	}
}

func readPacket(r io.Reader) (code byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("filter: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxPacket {
		return 0, nil, fmt.Errorf("filter: packet of %d octets", n)
	}
	data = make([]byte, n-1)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, fmt.Errorf("filter: %w", err)
	}
	return head[4], data, nil
}
