package blockstore

// Files returns what is known of the pairs of files, by number; a pruned one has no blocks.
func (s *Store) Files() []FileInfo {
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	return append([]FileInfo(nil), s.files.infos...)
}

// TakeGrown reports whether some file was given more room on the disk since it was asked last.
func (s *Store) TakeGrown() bool {
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	grown := s.files.grown
	s.files.grown = false
	return grown
}

// Growing reports whether a file is the one that new blocks go to.
func (s *Store) Growing(number int32) bool {
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	return s.files.growing(number)
}

// Usage returns the octets of all blk and rev files.
func (s *Store) Usage() int64 {
	var sum int64
	for _, info := range s.Files() {
		sum += int64(info.Size) + int64(info.UndoSize)
	}
	return sum
}

// Forget notes that a pair of files is pruned. The file is deleted by Delete, after a Flush of the
// records of its blocks.
func (s *Store) Forget(number int32) {
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	s.files.infos[number] = FileInfo{}
	s.files.dirty[number] = true
}

// Delete deletes pairs of files that were pruned.
func (s *Store) Delete(numbers []int32) error {
	f := s.files
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, number := range numbers {
		for _, id := range []fileID{{false, number}, {true, number}} {
			for _, table := range []map[fileID]*handle{f.writers, f.readers} {
				if h := table[id]; h != nil {
					delete(table, id)
					f.discard(h)
				}
			}
		}
		if err := f.remove(number); err != nil {
			return err
		}
	}
	return nil
}
