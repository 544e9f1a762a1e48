package queue

import (
	"slices"

	"github.com/tallypost/tallypost/internal/durable"
	"github.com/tallypost/tallypost/mail"
)

// The log is kept short by two rules.
//
// A segment is used again when no body in it is wanted and the index on disk contains its groups.
// For the second the index is flushed each time the log has grown by flushSegments, which bounds
// what a start replays as well.
//
// Where segments take more than twice what is live in them, and slackSegments, bodies are moved out
// of the emptiest: one message that waits for days keeps no segment alone.
const (
	flushSegments = 2
	slackSegments = 4
	moveBytes     = 1 << 20 // moved under one sync
)

// tendSoon has a goroutine tend the log if there is reason to. committing is held.
func (s *Disk) tendSoon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tending || s.closed || s.applied.Pos.Segment() < s.flushed.Pos.Segment()+flushSegments {
		return
	}
	s.tending = true
	s.tenders.Go(s.tend)
}

func (s *Disk) tend() {
	s.committing.Lock()
	mark := s.applied
	s.committing.Unlock()
	err := s.flushIndex()
	s.mu.Lock()
	if err == nil {
		s.flushed = mark
	}
	s.mu.Unlock()
	if err != nil {
		s.cfg.Log.Warn("index not flushed", "dir", s.cfg.Dir, "err", err)
	}
	s.reclaim()
	for s.failed() == nil && s.hasRoom() {
		victim := s.sparse()
		if victim == 0 || !s.evacuate(victim) {
			break
		}
		s.reclaim()
	}
	s.mu.Lock()
	s.tending = false
	s.mu.Unlock()
}

// reclaim frees the segments that nobody needs. The pins are looked at before the count: a body on
// its way in pins its segment until it is counted.
func (s *Disk) reclaim() {
	for _, seg := range s.log.Segments() {
		if seg.Pinned || seg.Current {
			continue
		}
		s.mu.Lock()
		if s.live[seg.Number] == 0 {
			delete(s.live, seg.Number)
		}
		wanted := s.live[seg.Number] != 0 || seg.Number >= s.flushed.Pos.Segment()
		s.mu.Unlock()
		if !wanted {
			s.log.Free(seg.Number)
		}
	}
}

// sparse returns the segment with the least in it, if it is time to move that; 0 if it is not.
func (s *Disk) sparse() (victim uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var total, live, least int64
	for _, seg := range s.log.Segments() {
		n := s.live[seg.Number]
		total += seg.Bytes
		live += n
		old := seg.Number < s.flushed.Pos.Segment() && !seg.Current && !seg.Pinned &&
			!s.stuck[seg.Number]
		if old && n > 0 && n < seg.Bytes/2 && (victim == 0 || n < least) {
			victim, least = seg.Number, n
		}
	}
	if s.closed || total <= 2*live+slackSegments*s.segmentBytes() {
		return 0
	}
	return victim
}

func (s *Disk) segmentBytes() int64 { return int64(2 * s.log.MaxRecord()) }

// evacuate moves the bodies out of a segment. It returns false if that did not work.
func (s *Disk) evacuate(segment uint32) bool {
	var ids []mail.ID
	err := s.scan([]byte{spaceBody}, []byte{spaceBody + 1}, func(key, value []byte) bool {
		extents, err := decodeExtents(value)
		for _, e := range extents {
			if err == nil && e.Pos.Segment() == segment {
				ids = append(ids, keyID(key))
				break
			}
		}
		return true
	})
	for len(ids) > 0 && err == nil {
		var moved int
		moved, err = s.move(segment, ids)
		ids = ids[moved:]
	}
	if err == nil {
		return true
	}
	s.cfg.Log.Warn("bodies not moved", "dir", s.cfg.Dir, "segment", segment, "err", err)
	return false
}

// relocation is a body with some of its pieces in a new place.
type relocation struct {
	id       mail.ID
	from, to []durable.Extent
	fresh    []durable.Extent // those of to that are new; they are pinned
	size     int
}

// move copies the first of these bodies out of a segment, about moveBytes of them, and makes the
// new places known with one sync. It returns how many it is done with.
func (s *Disk) move(segment uint32, ids []mail.ID) (done int, err error) {
	var moves []relocation
	defer func() {
		for _, m := range moves {
			for _, e := range m.fresh {
				s.log.Unpin(e.Pos.Segment())
			}
		}
	}()
	for size := 0; done < len(ids) && size < moveBytes; done++ {
		m, err := s.copyOut(segment, ids[done])
		moves = append(moves, m)
		if err != nil {
			return done, err
		}
		size += m.size
	}
	return done, s.commitMoves(moves)
}

// copyOut writes the pieces of a body that lie in a segment anew. A body that has gone is no error,
// nor is one that can not be read: it and its segment stay as they are, for whoever wants to save
// something.
func (s *Disk) copyOut(segment uint32, id mail.ID) (m relocation, err error) {
	m.id = id
	if m.from, err = s.extents(id); err != nil {
		return m, nil
	}
	for _, e := range m.from {
		if e.Pos.Segment() == segment {
			data, err := s.log.Read(e, nil)
			if err != nil {
				s.cfg.Log.Error("body is damaged", "msg", id, "err", err)
				s.mu.Lock()
				s.stuck[segment] = true
				s.mu.Unlock()
				m.to = m.from
				return m, nil
			}
			if e, err = s.appendPiece(data); err != nil {
				return m, err
			}
			m.fresh = append(m.fresh, e)
			m.size += len(data)
		}
		m.to = append(m.to, e)
	}
	return m, nil
}

// commitMoves records the new places of those bodies that are still where they were.
func (s *Disk) commitMoves(moves []relocation) error {
	s.committing.Lock()
	defer s.committing.Unlock()
	if err := s.failed(); err != nil {
		return err
	}
	batch := s.index.NewBatch()
	defer batch.Close()
	w := groupWriter{batch: batch, log: append(s.scratch[:0], groupVersion)}
	var from, to []durable.Extent
	for _, m := range moves {
		now, err := s.extents(m.id)
		if err != nil || slices.Equal(m.from, m.to) || !slices.Equal(now, m.from) {
			continue
		}
		w.write(idKey(spaceBody, m.id), appendExtents(nil, m.to))
		from, to = append(from, m.from...), append(to, m.to...)
	}
	s.scratch = w.log
	if len(to) == 0 {
		return nil
	}
	if err := s.commit(&w); err != nil {
		return err
	}
	s.account(to, +1)
	s.account(from, -1)
	return nil
}
