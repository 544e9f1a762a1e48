package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	miekg "github.com/miekg/dns"
)

// exchange asks one server once: over UDP, over TCP where the answer did not fit, without EDNS0
// where the server does not know it. An answer is NOERROR or NXDOMAIN; everything else is an
// error.
func (s server) exchange(ctx context.Context, name string, qtype uint16,
	timeout time.Duration) (*miekg.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	msg, err := s.roundTrip(ctx, s.query(name, qtype, true))
	if err == nil && noEDNS(msg.Rcode) {
		msg, err = s.roundTrip(ctx, s.query(name, qtype, false)) // RFC 6891, section 7
	}
	if err != nil {
		return nil, err
	}
	if msg.Rcode != miekg.RcodeSuccess && msg.Rcode != miekg.RcodeNameError {
		return nil, fmt.Errorf("answers %s", miekg.RcodeToString[msg.Rcode])
	}
	return msg, nil
}

func noEDNS(rcode int) bool {
	return rcode == miekg.RcodeFormatError || rcode == miekg.RcodeNotImplemented
}

// query makes a question. The AD bit asks a modern resolver for its verdict (RFC 6840, section
// 5.7), the DO bit an old one; from one whose verdict does not count the signatures would be a
// waste.
func (s server) query(name string, qtype uint16, edns bool) *miekg.Msg {
	m := new(miekg.Msg)
	m.SetQuestion(name, qtype) // the id is from crypto/rand, the source port from the system
	m.AuthenticatedData = s.trusted
	if edns {
		m.SetEdns0(udpSize, s.trusted)
	}
	return m
}

func (s server) roundTrip(ctx context.Context, m *miekg.Msg) (*miekg.Msg, error) {
	reply, err := s.over(ctx, "udp", m)
	if err == nil && reply.Truncated {
		reply, err = s.over(ctx, "tcp", m)
	}
	return reply, err
}

func (s server) over(ctx context.Context, network string, m *miekg.Msg) (*miekg.Msg, error) {
	b, err := m.Pack()
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, s.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if network == "tcp" {
		return streamed(conn, b, m)
	}
	return datagrams(conn, b, m)
}

// datagrams reads until the answer comes: one with another id or question is late or forged, and
// must not end the wait for the right one.
func datagrams(conn net.Conn, query []byte, m *miekg.Msg) (*miekg.Msg, error) {
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, maxUDP)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if reply := parseReply(buf[:n], m); reply != nil {
			return reply, nil
		}
	}
}

func streamed(conn net.Conn, query []byte, m *miekg.Msg) (*miekg.Msg, error) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, len(query)+2), uint16(len(query)))
	if _, err := conn.Write(append(framed, query...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	reply := parseReply(buf, m)
	if reply == nil || reply.Truncated {
		return nil, errors.New("answer over TCP is malformed or not to our question")
	}
	return reply, nil
}

// parseReply returns nil for what is no answer to m. An answer that is cut short in the middle of
// a record is an answer if it says so.
func parseReply(b []byte, m *miekg.Msg) *miekg.Msg {
	reply := new(miekg.Msg)
	err := reply.Unpack(b)
	if err != nil && !reply.Truncated || !reply.Response || reply.Id != m.Id {
		return nil
	}
	if len(reply.Question) == 0 && reply.Rcode != miekg.RcodeSuccess {
		return reply // some servers send an error without repeating the question
	}
	if len(reply.Question) != 1 {
		return nil
	}
	got, want := reply.Question[0], m.Question[0]
	if got.Qtype != want.Qtype || got.Qclass != want.Qclass ||
		miekg.CanonicalName(got.Name) != want.Name {
		return nil
	}
	return reply
}
