package blockstore

import (
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/tallypost/tallypost/bitcoin"
)

// The coins that were built on a snapshot have a directory of their own beside those that were built on
// blocks alone, until these have come to the snapshot's block too and agree. The names are Core's
// (node/utxo_snapshot.h).
const (
	coinsName   = "chainstate"
	assumedName = coinsName + "_snapshot"
	invalidName = assumedName + "_INVALID"
	// oldName is what the coins built on blocks alone are renamed to when they are not needed any more.
	oldName = coinsName + "_todelete"
	// baseName is the file with the hash of the snapshot's block. Coins without it are those of a load
	// that did not come to its end.
	baseName = "base_blockhash"
)

// Assumed returns the coins that were built on a snapshot, and the block that this was of; nil where there
// are none.
func (s *Store) Assumed() (coins *Coins, base bitcoin.Hash) { return s.assumed, s.base }

func (s *Store) inDir(names ...string) string {
	return s.fs.PathJoin(append([]string{s.cfg.Dir}, names...)...)
}

func (s *Store) exists(path string) bool {
	_, err := s.fs.Stat(path)
	return err == nil
}

// openAllCoins opens the coins that there are. What a crash has left of a Promote is brought to its end
// first, and what is to be wiped goes before anything else does: coins of a snapshot must not outlive the
// index that knows its block.
func (s *Store) openAllCoins() error {
	if err := s.finishPromotion(); err != nil {
		return err
	}
	base, found, err := s.readBase()
	if err != nil {
		return err
	}
	if s.coins, err = s.openCoins(coinsName, s.cfg.WipeIndex || s.cfg.WipeCoins); err != nil || !found {
		return err
	}
	s.cfg.Log.Info(fmt.Sprintf("[snapshot] detected active snapshot chainstate (%s) - loading",
		s.inDir(assumedName)))
	if s.assumed, err = s.openCoins(assumedName, false); err != nil {
		return err
	}
	s.base = base
	return nil
}

// wipeAssumed deletes the coins of a snapshot where all others are to be made anew too.
func (s *Store) wipeAssumed() error {
	if _, found, err := s.readBase(); err != nil || !found {
		return err
	}
	s.cfg.Log.Info("[snapshot] deleting snapshot chainstate due to reindexing")
	if err := s.remove(assumedName); err != nil {
		return fmt.Errorf("Couldn't remove snapshot chainstate: %w", err)
	}
	return nil
}

// readBase returns the block of the snapshot that coins were built on, if there are such coins (Bitcoin
// Core node/utxo_snapshot.cpp, ReadSnapshotBaseBlockhash).
func (s *Store) readBase() (base bitcoin.Hash, found bool, err error) {
	dir := s.inDir(assumedName)
	if !s.exists(dir) {
		return base, false, nil
	}
	path := s.fs.PathJoin(dir, baseName)
	if !s.exists(path) {
		s.cfg.Log.Warn(fmt.Sprintf("[snapshot] snapshot chainstate dir is malformed! no base blockhash file "+
			"exists at path %s. Try deleting %s and calling loadtxoutset again?", dir, path))
		return base, false, nil
	}
	file, err := s.fs.Open(path)
	if err != nil {
		return base, false, fmt.Errorf("open %s: %w", path, err)
	}
	defer file.Close()
	if _, err := io.ReadFull(file, base[:]); err != nil {
		return base, false, fmt.Errorf("%w: %s has no block hash: delete the directory and load the "+
			"snapshot again", ErrCorrupt, path)
	}
	if n, _ := file.Read(make([]byte, 1)); n > 0 {
		s.cfg.Log.Warn(fmt.Sprintf("[snapshot] unexpected trailing data in %s", path))
	}
	return base, true, nil
}

// BeginAssumed returns empty coins for a snapshot to be loaded into. Until KeepAssumed they are nobody's,
// and the next Open passes over them; DropAssumed removes them.
func (s *Store) BeginAssumed() (*Coins, error) {
	if s.assumed != nil {
		return nil, fmt.Errorf("there are coins of a snapshot in %s", s.inDir(assumedName))
	}
	return s.openCoins(assumedName, true)
}

// KeepAssumed makes coins those of the store that BeginAssumed has returned, and which are as of the block
// of the snapshot by now and flushed.
func (s *Store) KeepAssumed(coins *Coins, base bitcoin.Hash) error {
	if err := s.writeBase(base); err != nil {
		return s.fault.set(fmt.Errorf("could not write base blockhash: %w", err))
	}
	s.assumed, s.base = coins, base
	return nil
}

// writeBase makes the file whose presence says that the coins beside it are whole: durable under another
// name before it gets its own.
func (s *Store) writeBase(base bitcoin.Hash) error {
	path := s.inDir(assumedName, baseName)
	file, err := s.fs.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = file.Write(base[:])
	if err := firstOf(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := s.fs.Rename(path+".new", path); err != nil {
		return err
	}
	return firstOf(s.syncDir(s.inDir(assumedName)), s.syncDir(s.cfg.Dir))
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// DropAssumed removes coins that BeginAssumed has returned.
func (s *Store) DropAssumed(coins *Coins) error {
	if err := coins.close(); err != nil {
		return err
	}
	return s.remove(assumedName)
}

// remove deletes a directory of coins, the mark first that says that they are whole.
func (s *Store) remove(name string) error {
	dir := s.inDir(name)
	s.cfg.Log.Info(fmt.Sprintf("Removing leveldb dir at %s", dir))
	if mark := s.fs.PathJoin(dir, baseName); s.exists(mark) {
		if err := firstOf(s.fs.Remove(mark), s.syncDir(dir)); err != nil {
			return fmt.Errorf("remove %s: %w", mark, err)
		}
	}
	if err := firstOf(s.fs.RemoveAll(dir), s.syncDir(s.cfg.Dir)); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// RejectAssumed puts the coins of a snapshot aside that turned out to be wrong, for whoever wants to find
// out why; nothing reads them any more (Bitcoin Core validation.cpp, InvalidateCoinsDBOnDisk).
func (s *Store) RejectAssumed() error {
	err := s.assumed.close()
	s.assumed, s.base = nil, bitcoin.Hash{}
	from, to := s.inDir(assumedName), s.inDir(invalidName)
	s.cfg.Log.Info(fmt.Sprintf("[snapshot] renaming snapshot datadir %s to %s", from, to))
	if err == nil {
		err = firstOf(s.fs.RemoveAll(to), s.fs.Rename(from, to), s.syncDir(s.cfg.Dir))
	}
	if err != nil {
		return fmt.Errorf("Rename of '%s' -> '%s' failed. You should resolve this by manually moving or "+
			"deleting the invalid snapshot directory %s, otherwise you will encounter the same error again "+
			"on the next startup. (%w)", from, to, from, err)
	}
	return nil
}

// Promote puts the coins of a snapshot in the place of those built on blocks alone, once both are known to
// agree. Nobody may use either meanwhile; Coins returns other ones afterwards. A crash in the middle is
// made good by the next Open (Bitcoin Core validation.cpp, ValidatedSnapshotCleanup).
func (s *Store) Promote() error {
	assumed, coins := s.assumed, s.coins
	s.assumed, s.coins, s.base = nil, nil, bitcoin.Hash{}
	err := assumed.close()
	if coins != assumed { // not retired yet
		err = firstOf(err, coins.close())
	}
	if err != nil {
		return err
	}
	was, old := s.inDir(coinsName), s.inDir(oldName)
	s.cfg.Log.Info(fmt.Sprintf("[snapshot] deleting background chainstate directory (now unnecessary) (%s)",
		was))
	if err := firstOf(s.fs.Rename(was, old), s.syncDir(s.cfg.Dir)); err != nil {
		return fmt.Errorf("Rename of '%s' -> '%s' failed. Cannot clean up the background chainstate leveldb "+
			"directory. (%w)", was, old, err)
	}
	if err := s.finishPromotion(); err != nil {
		return err
	}
	s.cfg.Log.Info(fmt.Sprintf("[snapshot] deleted background chainstate directory (%s)", was))
	if s.coins, err = s.openCoins(coinsName, false); err != nil {
		return err
	}
	return s.SplitFiles(0)
}

// finishPromotion does what is left to do of a Promote: that it was decided shows in the directory that is
// to be deleted.
func (s *Store) finishPromotion() error {
	if !s.exists(s.inDir(oldName)) {
		return nil
	}
	from, to := s.inDir(assumedName), s.inDir(coinsName)
	if !s.exists(to) && s.exists(from) {
		s.cfg.Log.Info(fmt.Sprintf("[snapshot] moving snapshot chainstate (%s) to default chainstate "+
			"directory (%s)", from, to))
		if err := firstOf(s.fs.Rename(from, to), s.syncDir(s.cfg.Dir)); err != nil {
			return fmt.Errorf("Rename of '%s' -> '%s' failed. Cannot clean up the background chainstate "+
				"leveldb directory. (%w)", from, to, err)
		}
	}
	if mark := s.fs.PathJoin(to, baseName); s.exists(mark) {
		if err := firstOf(s.fs.Remove(mark), s.syncDir(to)); err != nil {
			return fmt.Errorf("remove %s: %w", mark, err)
		}
	}
	return s.remove(oldName)
}

// Retire closes the coins built on blocks alone, once those of a snapshot are known to agree: they are of
// no use any more, and the next start removes them. Nobody may use them after that.
func (s *Store) Retire() error {
	err := s.coins.close()
	s.coins = s.assumed
	return err
}
