package intake

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"sync/atomic"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// witness is shown a message while it comes in: its header as soon as that is whole, then its body in
// pieces. An error of either refuses the message.
type witness interface {
	begin(h mail.Header) error
	io.Writer
}

// receiver takes the octets of a message, once and in order: the header section is kept until it is
// whole, put in order and shown to the witnesses, the body passes through. What is kept goes into
// the queue.
//
// What is kept is what came in, but for three things. Fields that somebody forged in our name are left
// out: Authentication-Results with our name on them (RFC 8601, section 5) and our verdict. So is what
// a submission hides from its recipients (see isPrivate). And where a line that is no field ends the
// header, as every other server has it, the empty line that was missing is put in front of it, so that
// nobody behind us reads the rest as header and sees another author.
//
// Size and digest are those of what is kept, for the event of acceptance must be provable from
// the copy in the mailbox. Of a message with forged fields that is not all that was sent; what was left
// out claimed to be ours and not the sender's.
type receiver struct {
	msg       *queue.Incoming
	hash      hash.Hash
	size      int64
	forged    func(mail.Field) bool // nil: nothing is left out
	private   func(mail.Field) bool // likewise: what a submission does not show to its recipients
	witnesses []witness
	sample    *sample // one of witnesses; nil where nobody wants to see the text
	// hold keeps the header out of msg: a filter may still change it, and accept puts it in front.
	hold   bool
	budget *headerBudget

	raw     []byte // header section; of header once that is set
	header  mail.Header
	inBody  bool
	removed int // forged fields
	charged int // octets of raw that were charged to budget
}

// headerBudget bounds what all messages together may take for header sections larger than freeHeader: each
// may have one MiB, but not all at a time.
type headerBudget struct{ used atomic.Int64 }

const (
	freeHeader      = 64 << 10
	maxLargeHeaders = 64 << 20
)

// errHeaders is temporary: the others will be done soon.
var errHeaders = refuse(452, "4.3.1", "too many messages with large headers at a time, try again later")

// newReceiver returns a receiver that writes to msg.
func newReceiver(msg *queue.Incoming, budget *headerBudget) *receiver {
	return &receiver{msg: msg, hash: sha256.New(), budget: budget}
}

// release gives back what the receiver holds of the budget.
func (r *receiver) release() {
	r.budget.used.Add(-int64(r.charged))
	r.charged = 0
}

// sum is the hex digest of what was kept.
func (r *receiver) sum() string { return hex.EncodeToString(r.hash.Sum(nil)) }

// Write takes a piece of the message.
func (r *receiver) Write(p []byte) (int, error) {
	n := len(p)
	if !r.inBody {
		rest, err := r.collect(p)
		if err != nil || !r.inBody {
			return n, err
		}
		p = rest
	}
	return n, r.body(p)
}

// close is called when the message has ended: one without a body may have ended in its header.
func (r *receiver) close() error {
	if r.inBody {
		return nil
	}
	return r.begin()
}

// collect adds p to the header section and begins the message if that is whole now; what of p belongs to
// the body is returned.
func (r *receiver) collect(p []byte) (rest []byte, err error) {
	n, whole := headerEnd(r.raw, p)
	if max := mail.MaxHeaderBytes + len("\r\n") - len(r.raw); n > max {
		n, whole = max, true // ParseHeader will say so, if all of it is header
	}
	if err := r.charge(len(r.raw) + n); err != nil {
		return nil, err
	}
	r.raw = append(r.raw, p[:n]...)
	if !whole {
		return nil, nil
	}
	return p[n:], r.begin()
}

// charge takes from the budget what a header section of n octets has beyond its free share.
func (r *receiver) charge(n int) error {
	want := n - freeHeader - r.charged
	if want <= 0 {
		return nil
	}
	if r.budget.used.Add(int64(want)) > maxLargeHeaders {
		r.budget.used.Add(-int64(want))
		return errHeaders
	}
	r.charged += want
	return nil
}

var headerEndMark = []byte("\r\n\r\n")

// headerEnd returns how many octets of p belong to the header section that began with before, and whether
// it ends there. An empty line at the very start ends it, too.
func headerEnd(before, p []byte) (n int, whole bool) {
	tail := before[max(len(before)-3, 0):]
	if len(before) < 2 {
		tail = append([]byte("\r\n"), before...)
	}
	var joint [6]byte
	have := copy(joint[:], tail)
	have += copy(joint[have:], p[:min(len(p), 3)])
	if i := bytes.Index(joint[:have], headerEndMark); i >= 0 {
		return i + len(headerEndMark) - len(tail), true
	}
	if i := bytes.Index(p, headerEndMark); i >= 0 {
		return i + len(headerEndMark), true
	}
	return len(p), false
}

// begin is called once the header section is there, or cannot be.
func (r *receiver) begin() error {
	r.inBody = true
	h, err := mail.ParseHeader(r.raw)
	if errors.Is(err, mail.ErrHeaderTooLarge) {
		return refuse(552, "5.3.4", "%v", err)
	}
	body := r.raw[h.Len:]
	r.raw, r.header = r.raw[:h.Len:h.Len], h
	if err := r.mend(err != nil); err != nil {
		return err
	}
	r.take(r.raw)
	if !r.hold {
		if _, err := r.msg.Write(r.raw); err != nil {
			return err
		}
	}
	for _, w := range r.witnesses {
		if err := w.begin(r.header); err != nil {
			return err
		}
	}
	return r.body(body)
}

// mend leaves forged and private fields out, and ends the header with an empty line where a line that
// is no field did.
func (r *receiver) mend(open bool) error {
	var drop []int // indexes
	for i, f := range r.header.Fields {
		forged := r.forged != nil && r.forged(f)
		if forged {
			r.removed++
		}
		if forged || r.private != nil && r.private(f) {
			drop = append(drop, i)
		}
	}
	if drop == nil && !open {
		return nil
	}
	kept := make([]byte, 0, len(r.raw)+2)
	end := 0
	for i, f := range r.header.Fields {
		end += len(f.Raw)
		if len(drop) > 0 && drop[0] == i {
			drop = drop[1:]
			continue
		}
		kept = append(kept, f.Raw...)
	}
	kept = append(kept, r.raw[end:]...)
	if open {
		kept = append(kept, '\r', '\n')
	}
	h, err := mail.ParseHeader(kept)
	if err != nil { // a part of a header is one
		return err
	}
	r.raw, r.header = kept, h
	return nil
}

func (r *receiver) body(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	for _, w := range r.witnesses {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	r.take(p)
	_, err := r.msg.Write(p)
	return err
}

// take counts octets that are kept.
func (r *receiver) take(p []byte) {
	r.size += int64(len(p))
	r.hash.Write(p)
}
