package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	miekg "github.com/miekg/dns"
)

// Server shows a Zone to other programs over UDP and TCP, on a loopback address only: it answers
// anybody, for any name, and sets the AD bit as the Zone says.
type Server struct {
	zone *Zone
	udp  net.PacketConn
	tcp  net.Listener
}

// Listen opens the sockets of a Server for z. Port 0 picks one that is free for UDP and TCP.
func Listen(addr string, z *Zone) (*Server, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address of the DNS server: %w", err)
	}
	if !ap.Addr().Unmap().IsLoopback() {
		return nil, fmt.Errorf("DNS server on %s: it answers every name, so only on loopback", ap)
	}
	// The port that TCP got may be taken for UDP; another try gets another.
	for range 20 {
		var tcp net.Listener
		if tcp, err = net.Listen("tcp", ap.String()); err != nil {
			return nil, err
		}
		var udp net.PacketConn
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			return &Server{zone: z, udp: udp, tcp: tcp}, nil
		}
		tcp.Close()
		if ap.Port() != 0 {
			break
		}
	}
	return nil, err
}

// Addr is where the Server listens.
func (s *Server) Addr() netip.AddrPort {
	return s.tcp.Addr().(*net.TCPAddr).AddrPort()
}

// Run answers until ctx ends, then closes the sockets and returns nil; or the error that ended it
// early.
func (s *Server) Run(ctx context.Context) error {
	handler := miekg.HandlerFunc(s.serve)
	servers := []*miekg.Server{
		{PacketConn: s.udp, Handler: handler},
		{Listener: s.tcp, Handler: handler},
	}
	var wg sync.WaitGroup
	failed := make(chan error, len(servers))
	for _, srv := range servers {
		started := make(chan struct{})
		srv.NotifyStartedFunc = sync.OnceFunc(func() { close(started) })
		wg.Go(func() {
			failed <- srv.ActivateAndServe()
			srv.NotifyStartedFunc() // it may have failed before
		})
		<-started
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	for _, srv := range servers {
		// An error here says that it has ended already.
		_ = srv.Shutdown()
	}
	wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// Close closes the sockets of a Server that was not run; Run does it by itself.
func (s *Server) Close() error {
	return errors.Join(s.udp.Close(), s.tcp.Close())
}

func (s *Server) serve(w miekg.ResponseWriter, req *miekg.Msg) {
	m := new(miekg.Msg)
	m.SetReply(req)
	m.Authoritative, m.RecursionAvailable = true, true
	size := miekg.MinMsgSize
	opt := req.IsEdns0()
	if opt != nil {
		size = max(size, int(opt.UDPSize()))
		m.SetEdns0(udpSize, opt.Do())
	}
	if w.LocalAddr().Network() == "tcp" {
		size = miekg.MaxMsgSize
	}
	q := req.Question
	switch {
	case req.Opcode != miekg.OpcodeQuery || len(q) != 1 || q[0].Qclass != miekg.ClassINET:
		m.Rcode = miekg.RcodeNotImplemented
	default:
		r := s.zone.respond(miekg.CanonicalName(q[0].Name), q[0].Qtype)
		if r.failure == Timeout {
			return
		}
		r.fill(m)
		// RFC 6840, section 5.8: only for who shows to understand it.
		m.AuthenticatedData = r.auth && (req.AuthenticatedData || opt != nil && opt.Do())
	}
	m.Truncate(size)
	// The client that does not take the answer asks again; there is nobody to tell.
	_ = w.WriteMsg(m)
}

// fill writes what the Zone said into a message.
func (r response) fill(m *miekg.Msg) {
	if r.failure == ServFail {
		m.Rcode = miekg.RcodeServerFailure
		return
	}
	m.Answer = append(m.Answer, r.aliases...)
	m.Answer = append(m.Answer, r.records...)
	if r.missing {
		m.Rcode = miekg.RcodeNameError
	}
	if len(r.records) == 0 && r.soa != nil {
		m.Ns = append(m.Ns, r.soa)
	}
}
