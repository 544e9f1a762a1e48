package smtp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
)

// Sizes of what a connection holds while octets move. Larger reads did not make messages of 100 KiB
// cheaper; the longest line that must fit is AUTH with 12,288 octets (RFC 4954, section 4).
const (
	inSize  = 32 << 10
	outSize = 4 << 10
)

// buffers is the memory of a connection that is not idle.
type buffers struct {
	in  [inSize]byte
	out [outSize]byte
}

// bufferPool has no state that a reader of it could notice, so the nodes of a process may share it.
var bufferPool = sync.Pool{New: func() any { return new(buffers) }}

// Errors of a wire beside those of its connection.
var (
	errStopped = errors.New("stopped")
	errTooSlow = errors.New("less than the minimum rate")
	errLine    = errors.New("line too long")
)

// aLongTimeAgo is a deadline that wakes whoever reads.
var aLongTimeAgo = time.Unix(1, 0)

// wire is one end of a connection: it reads through one pooled buffer, collects what is to be
// written and writes it when it must wait for the peer. It is owned by the goroutine that serves
// the connection; only wake may be called from another.
//
//	octets -> sock -> [socket -> tls] -> bufs.in[r:w] -> lines, message
//	                                        bufs.out  -> [tls -> socket] -> sock
//
// The lowest read of both ways is where one waits: there pending replies are flushed, the deadline
// is set and, if nothing is left to interpret, the buffer goes back to the pool. So an idle
// plaintext connection has no buffer, and a group of pipelined commands is answered with one write.
type wire struct {
	sock net.Conn
	tls  *tls.Conn       // nil for plaintext
	raw  syscall.RawConn // of sock, where it is a socket of the kernel; else nil
	clk  clock.Clock

	bufs *buffers // nil while idle
	r, w int      // bufs.in[r:w] is read but not consumed
	out  []byte   // to be written; its array is bufs.out or, if that was too small, its own

	bulk bool // a message is being read: do not give the buffer back in between

	patience time.Duration // how long a read or write may wait
	readBy   time.Time     // deadline set on sock, with some slack over patience
	writeBy  time.Time
	deaf     error // why a write failed: there will be no other
	rate     rate

	lineBegun bool // the deadline of the line that is being read is set

	stop     *atomic.Bool // stop at the next command; set before wake
	stopping bool         // a wait begun now is at such a boundary
	brusque  bool         // stop ends writes too

	peek   bool                  // fillFD does not wait
	readFD func(fd uintptr) bool // fillFD, made once
	gotN   int                   // what readFD found
	gotErr error

	leaf  *tls.Certificate // that this end showed, if it is a server and told
	early [64]byte         // first octets of a TLS record after an idle time
}

// rate is the least a peer must send in each window of time (RFC 5321, section 4.5.3.2, sets times
// for blocks; a peer that sends one octet a minute would keep to them for ever).
type rate struct {
	perSecond int64         // octets; 0: no window is open
	window    time.Duration // length
	until     time.Time     // end of the current window
	got       int64         // octets in it so far
}

// kept reports whether the peer sent enough in the window.
func (r *rate) kept() bool {
	return r.got >= int64(float64(r.perSecond)*r.window.Seconds())
}

func (x *wire) init(sock net.Conn, clk clock.Clock, stop *atomic.Bool) {
	x.sock, x.clk, x.stop = sock, clk, stop
	under := sock
	if t, ok := sock.(*tls.Conn); ok {
		under = t.NetConn()
	}
	switch s := under.(type) { // exactly these: a type around them may want to see each Read
	case *net.TCPConn:
		x.raw, _ = s.SyscallConn()
	case *net.UnixConn:
		x.raw, _ = s.SyscallConn()
	}
	if x.raw != nil {
		x.clk = clock.Real{} // the kernel's deadlines know no other
	}
	if !canReadFD || under != sock {
		x.raw = nil
	}
	x.readFD = x.fillFD
}

// hold makes sure that there is a buffer.
func (x *wire) hold() {
	if x.bufs == nil {
		x.bufs = bufferPool.Get().(*buffers)
		x.r, x.w = 0, 0
		x.out = x.bufs.out[:0]
	}
}

// release gives the buffer back if nothing is in it.
func (x *wire) release() {
	if x.bufs == nil || x.r < x.w || len(x.out) > 0 || x.bulk {
		return
	}
	bufferPool.Put(x.bufs)
	x.bufs, x.out, x.r, x.w = nil, nil, 0, 0
}

// buffered returns what has been read and not consumed.
func (x *wire) buffered() []byte {
	if x.bufs == nil {
		return nil
	}
	return x.bufs.in[x.r:x.w]
}

// readLine returns the next line with its line end, valid until the next read. A line longer than
// limit, or than the limit that longer returns for its beginning, gives errLine.
func (x *wire) readLine(limit int, longer func(line []byte) int) ([]byte, error) {
	defer func() { x.lineBegun = false }()
	for seen := 0; ; {
		b := x.buffered()
		if i := bytes.IndexByte(b[seen:], '\n'); i >= 0 {
			n := seen + i + 1
			if n > limit && (longer == nil || n > longer(b)) {
				return nil, errLine
			}
			x.r += n
			return b[:n:n], nil
		}
		seen = len(b)
		if seen >= limit && (longer == nil || seen >= longer(b)) {
			return nil, errLine
		}
		if err := x.fill(); err != nil {
			return nil, err
		}
		x.lineBegun = true // who sends it octet by octet gains no time
	}
}

// skipLine reads over the rest of a line, and reports whether it ends in CRLF; errLine where it does not end
// within limit octets.
func (x *wire) skipLine(limit int) (crlf bool, err error) {
	defer func() { x.lineBegun = false }()
	x.lineBegun = true
	var last byte
	for seen := 0; seen < limit; {
		b := x.buffered()
		n := bytes.IndexByte(b, '\n') + 1
		if n == 1 {
			x.r++
			return last == '\r', nil
		}
		if n > 1 {
			x.r += n
			return b[n-2] == '\r', nil
		}
		if len(b) > 0 {
			last = b[len(b)-1]
		}
		seen += len(b)
		x.r += len(b)
		if err := x.fill(); err != nil {
			return false, err
		}
	}
	return false, errLine
}

// fill reads more octets behind those that are buffered, waiting for at least one. It makes room by
// moving what is buffered to the front, so slices of the buffer are no longer valid.
func (x *wire) fill() error {
	if x.bufs != nil && x.r > 0 {
		x.w = copy(x.bufs.in[:], x.bufs.in[x.r:x.w])
		x.r = 0
	}
	if x.w == inSize {
		return errLine
	}
	switch {
	case x.tls == nil:
		return x.fillPlain()
	case x.bufs == nil || x.r == x.w && !x.bulk:
		// The lowest read will want to give the buffer back; the rest of the record stays in x.tls.
		n, err := x.tls.Read(x.early[:])
		x.hold()
		x.w = copy(x.bufs.in[:], x.early[:n])
		return noBytes(n, err)
	}
	n, err := x.tls.Read(x.bufs.in[x.w:])
	x.w += n
	return noBytes(n, err)
}

func noBytes(n int, err error) error {
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

func (x *wire) fillPlain() error {
	if x.raw == nil {
		if err := x.beforeWait(); err != nil {
			return err
		}
		x.hold()
		n, err := x.readSock(x.bufs.in[x.w:])
		x.w += n
		return noBytes(n, err)
	}
	for {
		if err := x.beforeWait(); err != nil {
			return err
		}
		err := x.raw.Read(x.readFD)
		if err == nil {
			err = x.gotErr
		}
		if err != nil {
			if err = x.verdict(err); err == nil {
				continue
			}
			return err
		}
		if x.gotN <= 0 {
			return io.EOF
		}
		x.w += x.gotN
		x.rate.got += int64(x.gotN)
		return nil
	}
}

// fillFD reads from a socket that may have nothing yet: only with octets in it does it keep a
// buffer.
func (x *wire) fillFD(fd uintptr) (done bool) {
	x.hold()
	x.gotN, x.gotErr = readFD(fd, x.bufs.in[x.w:])
	if x.gotErr == errWouldBlock {
		x.release()
		return x.peek
	}
	return true
}

// readable reports whether octets have come in that nobody waited for, and whether the peer has
// closed its side, as far as one can see without waiting.
func (x *wire) readable() (some, closed bool) {
	if x.raw != nil && x.tls == nil && len(x.buffered()) == 0 {
		x.peek = true
		err := x.raw.Read(x.readFD)
		if errors.Is(err, os.ErrDeadlineExceeded) && (x.stop == nil || !x.stop.Load()) {
			x.readBy = time.Time{} // it ran out while nobody waited
			x.sock.SetReadDeadline(x.readBy)
			err = x.raw.Read(x.readFD)
		}
		x.peek = false
		switch {
		case err != nil || x.gotErr == errWouldBlock:
		case x.gotErr != nil || x.gotN == 0:
			closed = true
		default:
			x.w += x.gotN
		}
		x.release()
	}
	return len(x.buffered()) > 0, closed
}

// readSock reads from the socket once, waiting as long as the peer may take.
func (x *wire) readSock(p []byte) (int, error) {
	for {
		n, err := x.sock.Read(p)
		x.rate.got += int64(n)
		if n > 0 || err == nil {
			return n, nil
		}
		if err = x.verdict(err); err == nil {
			err = x.beforeWait()
		}
		if err != nil {
			return 0, err
		}
	}
}

// verdict decides what a failed read means. It returns nil where it is to be tried again: its
// deadline only ended a window in which the peer sent enough, or was our own wake for somebody who
// does not stop here.
func (x *wire) verdict(err error) error {
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case x.stop != nil && x.stop.Load():
		return nil // beforeWait decides, and sets a new deadline
	case x.rate.perSecond == 0:
		return err
	case x.rate.kept() && !x.clk.Now().Before(x.rate.until):
		return nil // beforeWait opens the next window
	}
	return errTooSlow
}

// beforeWait is called where the next thing is to wait for the peer.
func (x *wire) beforeWait() error {
	if len(x.out) > 0 {
		if err := x.flush(); err != nil {
			return err
		}
	}
	if x.raw != nil || x.tls != nil {
		x.release() // else the buffer is what is read into
	}
	now := x.clk.Now()
	if x.rate.perSecond > 0 {
		if !now.Before(x.rate.until) {
			// It ended while nobody read: that is not the peer's fault.
			x.rate.got, x.rate.until = 0, now.Add(x.rate.window)
		}
		if !x.readBy.Equal(x.rate.until) {
			x.readBy = x.rate.until
			x.sock.SetReadDeadline(x.readBy)
		}
	} else if !x.lineBegun && x.stale(x.readBy, now) {
		x.readBy = now.Add(x.patience + x.patience/8)
		x.sock.SetReadDeadline(x.readBy)
	}
	if x.stop != nil && x.stop.Load() {
		// Whoever set stop calls wake after it: either wake's deadline came after ours, or we see
		// stop.
		if x.stopping {
			return errStopped
		}
		x.sock.SetReadDeadline(x.readBy)
	}
	return nil
}

// stale reports whether a deadline is too near or too far for what may be waited now. Deadlines are
// set with some slack, so that a busy session sets one in many reads.
func (x *wire) stale(deadline, now time.Time) bool {
	left := deadline.Sub(now)
	return left < x.patience || left > x.patience+x.patience/4
}

// wake ends a wait at a command boundary; stop has been set before. It may be called from any
// goroutine.
func (x *wire) wake() { x.sock.SetReadDeadline(aLongTimeAgo) }

// demand opens a window in which the peer must send at least perSecond octets a second, and each
// after it. If the deadline that is set lies about there, the window ends with it: that saves
// setting another one.
func (x *wire) demand(perSecond int64, window time.Duration) {
	now := x.clk.Now()
	x.rate = rate{perSecond: perSecond, window: window, until: now.Add(window)}
	if left := x.readBy.Sub(now); left >= window && left <= 2*window {
		x.rate.window, x.rate.until = left, x.readBy
	}
}

// noDemand ends what demand began.
func (x *wire) noDemand() { x.rate = rate{} }

// write appends to what is to be written.
func (x *wire) write(s string) {
	x.hold()
	x.out = append(x.out, s...)
}

// flush writes what is pending.
func (x *wire) flush() error {
	if len(x.out) == 0 {
		return nil
	}
	out := x.out
	x.out = x.bufs.out[:0]
	return x.send(out)
}

// send writes p at once, before what is pending.
func (x *wire) send(p []byte) (err error) {
	switch {
	case x.deaf != nil:
		return x.deaf
	case x.tls != nil:
		_, err = x.tls.Write(p)
	default:
		_, err = x.writeSock(p)
	}
	x.deaf = err
	return err
}

func (x *wire) writeSock(p []byte) (int, error) {
	now := x.clk.Now()
	if x.stale(x.writeBy, now) {
		x.writeBy = now.Add(x.patience + x.patience/8)
		x.sock.SetWriteDeadline(x.writeBy)
	}
	if x.brusque && x.stop.Load() {
		return 0, errStopped
	}
	return x.sock.Write(p)
}

// socket is what the TLS of a wire stands on.
type socket struct {
	net.Conn // addresses, deadlines, Close
	x        *wire
}

func (s socket) Read(p []byte) (int, error) {
	if b := s.x.buffered(); len(b) > 0 && s.x.tls == nil {
		// A proxy's header and the client's first words came together.
		n := copy(p, b)
		s.x.r += n
		return n, nil
	}
	if err := s.x.beforeWait(); err != nil {
		return 0, err
	}
	return s.x.readSock(p)
}

func (s socket) Write(p []byte) (int, error) { return s.x.writeSock(p) }

// handshake puts TLS over the connection. Nothing may be pending; what is buffered belongs to TLS,
// so who began in the clear must have made sure that there is nothing.
func (x *wire) handshake(ctx context.Context, layer func(net.Conn) *tls.Conn) error {
	x.release()
	t := layer(socket{Conn: x.sock, x: x})
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	x.tls = t
	return nil
}

// Times of a lingering close.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 10
)

// close closes the connection. With linger it first tells the peer that nothing more will come and
// throws away what still arrives, for a short while: else the kernel would answer unread octets
// with a reset that may destroy our last reply on its way.
func (x *wire) close(linger bool) {
	x.bulk, x.r, x.w = false, 0, 0
	if x.tls != nil && x.deaf == nil {
		x.tls.CloseWrite()
	}
	half, ok := x.sock.(interface{ CloseWrite() error })
	if ok && linger && half.CloseWrite() == nil {
		x.hold()
		x.sock.SetReadDeadline(x.clk.Now().Add(lingerTime))
		for left := lingerBytes; left > 0; {
			n, err := x.sock.Read(x.bufs.in[:])
			if err != nil {
				break
			}
			left -= n
		}
	}
	x.sock.Close()
	x.out = x.out[:0]
	x.release()
}
