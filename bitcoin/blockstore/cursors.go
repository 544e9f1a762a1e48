package blockstore

import "github.com/tallypost/tallypost/bitcoin"

// cursor is the file that new blocks of a kind go to.
type cursor int32

// noFile: there is none yet.
const noFile cursor = -1

// cursorFor returns where blocks of a height go: with a snapshot those before its block have files of their
// own, or old and new blocks would lie side by side and no file could be pruned (Bitcoin Core
// node/blockstorage.cpp, BlockfileTypeForHeight). The caller holds mu.
func (f *files) cursorFor(height bitcoin.Height) *cursor {
	if f.assumedFrom > 0 && height >= f.assumedFrom {
		return &f.assumed
	}
	return &f.current
}

// growing reports whether new blocks go to a file. The caller holds mu.
func (f *files) growing(number int32) bool {
	return cursor(number) == f.current || cursor(number) == f.assumed
}

// SplitFiles has blocks from a height on, that of a snapshot's block, written to other files than those
// before it.
func (s *Store) SplitFiles(from bitcoin.Height) error {
	reindexing, err := s.Reindexing()
	if err != nil {
		return err
	}
	f := s.files
	f.mu.Lock()
	defer f.mu.Unlock()
	f.assumedFrom, f.assumed = from, noFile
	if reindexing { // what the files hold is not known: new blocks go behind all of them
		return nil
	}
	f.current = noFile
	for number := range f.infos {
		if info := &f.infos[number]; info.Size > 0 {
			*f.cursorFor(info.FirstHeight) = cursor(number)
		}
	}
	return nil
}
