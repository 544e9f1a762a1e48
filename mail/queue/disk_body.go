package queue

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"

	"github.com/tallypost/tallypost/internal/durable"
	"github.com/tallypost/tallypost/mail"
)

// pieceBytes is the most octets of a body in one record of the log. A reader holds one piece in
// memory.
const pieceBytes = 64 << 10

// diskBody is a body on its way into a Disk. Each of its extents pins its segment until Commit or
// Abort.
type diskBody struct {
	store   *Disk
	id      mail.ID
	extents []durable.Extent
	over    bool // committed or aborted
}

// NewBody is as Store has it.
func (s *Disk) NewBody(id mail.ID) (Body, error) {
	if err := s.failed(); err != nil {
		return nil, err
	}
	if !s.hasRoom() {
		return nil, fmt.Errorf("%w: less than %d octets are free", ErrFull, s.cfg.MinFree)
	}
	return &diskBody{store: s, id: id}, nil
}

func (b *diskBody) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		piece := p[:min(len(p), b.store.pieceBytes())]
		e, err := b.store.appendPiece(piece)
		if err != nil {
			return n, err
		}
		b.extents = append(b.extents, e)
		n += len(piece)
		p = p[len(piece):]
	}
	return n, nil
}

func (s *Disk) pieceBytes() int { return min(pieceBytes, s.log.MaxRecord()) }

func (s *Disk) appendPiece(piece []byte) (durable.Extent, error) {
	e, err := s.log.Append(piece)
	if errors.Is(err, durable.ErrFull) && !errors.Is(err, durable.ErrBroken) {
		s.setRoom(false)
		return e, fmt.Errorf("%w: %w", ErrFull, err)
	}
	if err != nil {
		return e, s.fail(err)
	}
	return e, nil
}

func (b *diskBody) Seal(prefix []byte) error {
	written := b.extents
	b.extents = nil
	_, err := b.Write(prefix)
	b.extents = append(b.extents, written...)
	return err
}

func (b *diskBody) Abort() {
	if b.over {
		return
	}
	b.over = true
	for _, e := range b.extents {
		b.store.log.Unpin(e.Pos.Segment())
	}
}

// committed turns pins into what is live.
func (b *diskBody) committed() {
	b.store.account(b.extents, +1)
	b.Abort()
}

// diskReader reads a committed body. Each of its extents pins its segment until Close.
type diskReader struct {
	store   *Disk
	extents []durable.Extent
	ends    []int64 // offset in the body behind each extent

	mu    sync.Mutex
	piece int    // guarded by mu; the extent that buf holds; -1 for none
	data  []byte // guarded by mu
	buf   []byte // guarded by mu; where data lies
}

// OpenBody is as Store has it.
func (s *Disk) OpenBody(id mail.ID) (BodyReader, error) {
	for {
		extents, err := s.extents(id)
		if err != nil {
			return nil, err
		}
		if !s.pinAll(extents) {
			// The body was moved, or dropped, since we looked.
			again, err := s.extents(id)
			if err != nil {
				return nil, err
			}
			if slices.Equal(again, extents) {
				return nil, fmt.Errorf("body of %v: %w: segment is missing", id, durable.ErrCorrupt)
			}
			continue
		}
		r := &diskReader{store: s, extents: extents, piece: -1}
		end := int64(0)
		for _, e := range extents {
			end += int64(e.Len)
			r.ends = append(r.ends, end)
		}
		return r, nil
	}
}

func (s *Disk) pinAll(extents []durable.Extent) bool {
	for i, e := range extents {
		if !s.log.Pin(e.Pos.Segment()) {
			for _, e := range extents[:i] {
				s.log.Unpin(e.Pos.Segment())
			}
			return false
		}
	}
	return true
}

// Size is the length of the body.
func (r *diskReader) Size() int64 {
	if len(r.ends) == 0 {
		return 0
	}
	return r.ends[len(r.ends)-1]
}

// ReadAt reads, and checks the sum of each piece that it comes to.
func (r *diskReader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for n < len(p) {
		i := sort.Search(len(r.ends), func(i int) bool { return r.ends[i] > off })
		if i == len(r.ends) {
			return n, io.EOF
		}
		if r.piece != i {
			r.piece = -1
			if r.data, err = r.store.log.Read(r.extents[i], r.buf); err != nil {
				return n, err
			}
			r.piece, r.buf = i, r.data[:0:cap(r.data)]
		}
		start := r.ends[i] - int64(r.extents[i].Len)
		c := copy(p[n:], r.data[off-start:])
		n += c
		off += int64(c)
	}
	return n, nil
}

// Close ends the pins.
func (r *diskReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.extents {
		r.store.log.Unpin(e.Pos.Segment())
	}
	r.extents, r.ends, r.data, r.buf = nil, nil, nil, nil
	return nil
}
