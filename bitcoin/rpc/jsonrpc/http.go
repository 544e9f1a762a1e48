package jsonrpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	maxHeaderBytes = 8192       // Core's MAX_HEADERS_SIZE
	maxBodyBytes   = 0x02000000 // Core's MAX_SIZE
)

// Response is an answer by HTTP.
type Response struct {
	Status  int
	Type    string // of the content; empty for none
	Headers []string
	Body    []byte
}

// Handler answers requests to paths that are not JSON-RPC's; ok is false where it has none of the path.
// The body has been read.
type Handler func(ctx context.Context, r *http.Request, body []byte) (resp Response, ok bool)

// Serve takes connections until the context ends or the listener fails, and returns when all of them have
// ended. Requests of one connection are answered one by one, in their order. (net/http's server refuses
// requests without a Host, which Core's clients may send; its parser is used.)
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wait sync.WaitGroup
	defer wait.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept on %v: %w", l.Addr(), err)
		}
		if !s.allowed(c.RemoteAddr()) {
			wait.Go(func() { s.refuse(c) })
			continue
		}
		wait.Go(func() { s.serveConn(ctx, c) })
	}
}

func (s *Server) allowed(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return false
	}
	ip := ap.Addr().Unmap()
	if ip.IsLoopback() {
		return true
	}
	for _, p := range s.cfg.AllowIPs {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func (s *Server) refuse(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	s.cfg.Log.Debug("HTTP request refused: client network is not allowed RPC access",
		"peer", c.RemoteAddr())
	writeResponse(c, Response{Status: http.StatusForbidden}, true)
	// Who is still writing his request would not see the answer if the connection broke under him.
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		io.CopyN(io.Discard, c, refusedBytes)
	}
}

// refusedBytes is what is read at most of a request that is refused anyway.
const refusedBytes = 64 << 10

// serveConn answers what comes on one connection.
func (s *Server) serveConn(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("panic in an RPC connection", "peer", c.RemoteAddr(), "panic", p)
		}
	}()
	// When the server ends, whoever waits for a request is woken; whoever is at work answers first.
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Now()) })
	defer stop()
	limit := &io.LimitedReader{R: c}
	r := bufio.NewReader(limit)
	for {
		c.SetReadDeadline(time.Now().Add(s.timeout()))
		if ctx.Err() != nil { // looked at afterwards: the deadline of the end must not be put off
			return
		}
		limit.N = maxHeaderBytes
		req, err := http.ReadRequest(r)
		if err != nil {
			var bad *url.Error
			if errors.As(err, &bad) {
				writeResponse(c, Response{Status: http.StatusBadRequest, Type: "text/plain",
					Body: []byte("URI parsing failed, it likely contained RFC 3986 invalid characters\r\n")}, true)
				return
			}
			if limit.N <= 0 || isSyntax(err) {
				writeResponse(c, Response{Status: http.StatusBadRequest}, true)
			}
			return
		}
		limit.N = maxBodyBytes + maxHeaderBytes
		body, err := io.ReadAll(http.MaxBytesReader(nil, req.Body, maxBodyBytes))
		if err != nil {
			writeResponse(c, Response{Status: http.StatusBadRequest}, true)
			return
		}
		req.RemoteAddr = c.RemoteAddr().String()
		last := req.Close || ctx.Err() != nil
		if err := writeResponse(c, s.answer(ctx, req, body), last); err != nil || last {
			return
		}
	}
}

func (s *Server) timeout() time.Duration {
	if s.cfg.Timeout > 0 {
		return s.cfg.Timeout
	}
	return 30 * time.Second // Core's DEFAULT_HTTP_SERVER_TIMEOUT
}

// isSyntax tells a request that is no HTTP from a connection that ended or fell silent.
func isSyntax(err error) bool {
	var ne net.Error
	return !errors.As(err, &ne) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) &&
		!errors.Is(err, net.ErrClosed)
}

func writeResponse(c net.Conn, r Response, last bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", r.Status, http.StatusText(r.Status))
	if r.Type != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", r.Type)
	}
	for _, h := range r.Headers {
		b.WriteString(h + "\r\n")
	}
	fmt.Fprintf(&b, "Date: %s\r\n", time.Now().UTC().Format(http.TimeFormat))
	if r.Status != http.StatusNoContent {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.Body))
	}
	if last {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	c.SetWriteDeadline(time.Now().Add(time.Minute))
	buffers := net.Buffers{[]byte(b.String()), r.Body}
	_, err := buffers.WriteTo(c)
	return err
}
