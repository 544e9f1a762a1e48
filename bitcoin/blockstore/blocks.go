package blockstore

import (
	"encoding/binary"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// WriteBlock appends a block to the files and returns where it stands. It is durable after the next
// Flush.
func (s *Store) WriteBlock(b *bitcoin.Block, height bitcoin.Height) (Pos, error) {
	if err := s.fault.err(); err != nil {
		return Pos{}, err
	}
	f := s.files
	f.mu.Lock()
	defer f.mu.Unlock()
	frame := b.Append(f.frame(b.Size()))
	pos := f.claim(uint32(len(frame)), height, b.Header.Time)
	if err := f.write(fileID{false, pos.File}, pos.Offset, frame); err != nil {
		return Pos{}, err
	}
	pos.Offset += frameSize
	return pos, nil
}

// Adopt counts a block that stands in the files already, at a place that Scan told.
func (s *Store) Adopt(pos Pos, size int, height bitcoin.Height, time uint32) {
	f := s.files
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grow(pos.File)
	f.current = max(f.current, cursor(pos.File))
	info := &f.infos[pos.File]
	info.add(height, time)
	info.Size = max(info.Size, pos.Offset+uint32(size))
	f.dirty[pos.File] = true
}

// WriteUndo appends the undo data of a block that follows another with the hash prev and stands in
// the blk file of this number, and returns where they stand. They are durable after the next Flush.
func (s *Store) WriteUndo(number int32, b *bitcoin.Block, undo consensus.Spent) (Pos, error) {
	if err := s.fault.err(); err != nil {
		return Pos{}, err
	}
	const typical = 36 // octets of a coin
	data := appendUndo(make([]byte, 0, typical*undo.Len()+16), b, undo)
	sum := undoChecksum(b.Header.PrevBlock, data)
	f := s.files
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grow(number)
	offset := f.infos[number].UndoSize
	f.infos[number].UndoSize += uint32(len(data) + frameSize + checksumSize)
	f.dirty[number] = true
	frame := append(append(f.frame(len(data)), data...), sum[:]...)
	if err := f.write(fileID{true, number}, offset, frame); err != nil {
		return Pos{}, err
	}
	return Pos{number, offset + frameSize}, nil
}

// ReadBlock returns the octets of the block at a place, which must have this hash.
func (s *Store) ReadBlock(pos Pos, hash bitcoin.Hash) ([]byte, error) {
	raw, err := s.files.read(fileID{false, pos.File}, pos.Offset, 0)
	if err != nil {
		return nil, fmt.Errorf("read block %v: %w", hash, err)
	}
	if len(raw) < bitcoin.HeaderSize || bitcoin.DoubleHash(raw[:bitcoin.HeaderSize]) != hash {
		return nil, fmt.Errorf("read block %v: %w: another block is at octet %d of %s", hash,
			ErrCorrupt, pos.Offset, s.files.path(fileID{false, pos.File}))
	}
	return raw, nil
}

// ReadUndo returns the undo data at a place, of a block that follows another with the hash prev.
func (s *Store) ReadUndo(pos Pos, prev bitcoin.Hash) (consensus.Spent, error) {
	id := fileID{true, pos.File}
	raw, err := s.files.read(id, pos.Offset, checksumSize)
	if err != nil {
		return consensus.Spent{}, fmt.Errorf("read undo data: %w", err)
	}
	data := raw[:len(raw)-checksumSize]
	if undoChecksum(prev, data) != bitcoin.Hash(raw[len(data):]) {
		return consensus.Spent{}, fmt.Errorf("read undo data: %w: checksum at octet %d of %s",
			ErrCorrupt, pos.Offset, s.files.path(id))
	}
	undo, err := parseUndo(data)
	if err != nil {
		return consensus.Spent{}, fmt.Errorf("undo data at octet %d of %s: %w: %w",
			pos.Offset, s.files.path(id), ErrCorrupt, err)
	}
	return undo, nil
}

// read returns the data of the frame that ends at an offset, with what follows it.
func (f *files) read(id fileID, offset uint32, after int) ([]byte, error) {
	h, err := f.use(id)
	if err != nil {
		return nil, err
	}
	defer f.done(h)
	var frame [frameSize]byte
	if offset < frameSize {
		return nil, fmt.Errorf("%w: no data begin at octet %d of %s", ErrCorrupt, offset, f.path(id))
	}
	at := int64(offset) - frameSize
	if _, err := h.ReadAt(frame[:], at); err != nil {
		return nil, fmt.Errorf("%s at octet %d: %w", f.path(id), at, err)
	}
	f.xor.apply(frame[:], at)
	size := binary.LittleEndian.Uint32(frame[4:])
	if [4]byte(frame[:4]) != f.store.cfg.Network.Magic || size > bitcoin.MaxCompactSize {
		return nil, fmt.Errorf("%w: no data begin at octet %d of %s", ErrCorrupt, at, f.path(id))
	}
	b := make([]byte, int(size)+after)
	if _, err := h.ReadAt(b, int64(offset)); err != nil {
		return nil, fmt.Errorf("%s at octet %d: %w", f.path(id), offset, err)
	}
	f.xor.apply(b, int64(offset))
	return b, nil
}
