package chain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// ImportProgress is how far an import or a reindex has come.
type ImportProgress struct {
	Name   string // the file at hand
	Done   int64  // octets
	Total  int64
	Blocks int // taken in
}

// importer reads files of blocks twice: first the headers alone, hopping from block to block, so
// that the whole chain is known when the first block is connected and scripts below the assumed
// valid block need not be run; then the blocks, parsed and added several at a time.
type importer struct {
	c       *Chain
	sources []*blockstore.Source
	orphans map[bitcoin.Hash][]bitcoin.Header // headers whose parent is not known yet, by parent

	adds    sync.WaitGroup
	slots   chan struct{} // bounds blocks that are being added
	mu      sync.Mutex
	failure error // guarded by mu; of this node
	blocks  atomic.Int64
	done    int64
}

// importSlots bounds the blocks that are being added at once: enough to fill the pipe where they are
// small, and little enough for memory where they are large. A block takes one, and one more for each
// slotBytes, but no more than mostSlots: the scripts of one block run while the next is connected and
// one more is stored.
const (
	importSlots = 24
	slotBytes   = 128 << 10
	mostSlots   = importSlots / 3
)

// Import takes in the blocks of a file, or of all blk files of a directory (Core's -loadblock), and
// connects them. Blocks that are not valid, or whose parents are unknown, are left out.
func (c *Chain) Import(ctx context.Context, path string) error {
	sources, err := c.store.Sources(path)
	if err != nil {
		return err
	}
	c.cfg.Log.Info(fmt.Sprintf("Importing blocks file %s...", path), "files", len(sources))
	return c.importFrom(ctx, sources)
}

// Reindex makes the index anew from the block files of the store, if it was opened with WipeIndex
// or an earlier Reindex did not come to its end; else it does nothing.
func (c *Chain) Reindex(ctx context.Context) error {
	reindexing, err := c.store.Reindexing()
	if err != nil || !reindexing {
		return err
	}
	sources, err := c.store.OwnSources()
	if err != nil {
		return err
	}
	c.cfg.Log.Info("Reindexing block files", "files", len(sources))
	if err := c.importFrom(ctx, sources); err != nil {
		return err
	}
	if err := c.genesisAgain(); err != nil {
		return err
	}
	if err := c.Flush(ctx); err != nil {
		return err
	}
	if err := c.store.Reindexed(); err != nil {
		return err
	}
	c.cfg.Log.Info("Reindexing finished")
	return nil
}

// Reindexing reports whether Reindex has something to do.
func (c *Chain) Reindexing() (bool, error) { return c.store.Reindexing() }

// BeginLoading says that blocks will be taken in from files until end is called: meanwhile the node
// counts as being in its initial download, and peers' blocks are not wanted.
func (c *Chain) BeginLoading() (end func()) {
	c.beginImport(1)
	return func() { c.beginImport(-1) }
}

// Loading reports whether blocks are being taken in from files.
func (c *Chain) Loading() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.importing > 0
}

// genesisAgain writes the first block where the files did not have it.
func (c *Chain) genesisAgain() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, own := c.tree.at(0), c.tree.ownBody(0)
	if h.status&blockstore.HaveData != 0 {
		return nil
	}
	pos, err := c.store.WriteBlock(c.cfg.Network.Genesis, 0)
	if err != nil {
		return c.stop(err)
	}
	own.file, own.data = pos.File, pos.Offset
	h.status |= blockstore.HaveData
	c.touch(0)
	return nil
}

func (c *Chain) importFrom(ctx context.Context, sources []*blockstore.Source) error {
	i := &importer{
		c:       c,
		sources: sources,
		orphans: make(map[bitcoin.Hash][]bitcoin.Header),
		slots:   make(chan struct{}, importSlots),
	}
	c.beginImport(1)
	defer c.beginImport(-1)
	defer i.close()
	if err := i.headers(ctx); err != nil {
		return err
	}
	err := i.bodies(ctx)
	i.adds.Wait()
	return errors.Join(err, i.failed())
}

// beginImport counts imports under way.
func (c *Chain) beginImport(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.importing += n
	if c.importing == 0 {
		c.progress = nil
	}
}

// Importing returns how far an import has come, or nil where none is under way.
func (c *Chain) Importing() *ImportProgress {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.progress == nil {
		return nil
	}
	p := *c.progress
	return &p
}

func (i *importer) close() {
	for _, s := range i.sources {
		s.Close()
	}
}

// headers takes in the headers of all files.
func (i *importer) headers(ctx context.Context) error {
	for _, s := range i.sources {
		for offset := int64(0); ctx.Err() == nil; {
			at, size, ok, err := s.Next(offset)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			raw, err := s.Header(at)
			if err != nil {
				return err
			}
			h, err := bitcoin.ParseHeader(raw)
			if err != nil {
				return err
			}
			if !i.takeHeader(h) {
				offset = s.Again(at)
			} else if offset, err = s.After(at, size); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// takeHeader adds a header and those that waited for it. It is false for what is none.
func (i *importer) takeHeader(h bitcoin.Header) bool {
	if !bitcoin.MeetsTarget(h.Hash(), h.Bits, i.c.cfg.Network.PowLimit) {
		return false
	}
	queue := []bitcoin.Header{h}
	for len(queue) > 0 {
		h, queue = queue[0], queue[1:]
		hash := h.Hash()
		var e *consensus.Error
		if _, err := i.c.AddHeaders([]bitcoin.Header{h}, true); errors.As(err, &e) {
			if e.Kind == consensus.KindMissingPrev {
				i.orphans[h.PrevBlock] = append(i.orphans[h.PrevBlock], h)
				i.c.cfg.Log.Debug(fmt.Sprintf("LoadExternalBlockFile: Out of order block %v, parent %v "+
					"not known", hash, h.PrevBlock), "cat", "reindex")
			}
			continue
		}
		for _, child := range i.orphans[hash] {
			i.c.cfg.Log.Debug(fmt.Sprintf("LoadExternalBlockFile: Processing out of order child %v of %v",
				child.Hash(), hash), "cat", "reindex")
			queue = append(queue, child)
		}
		delete(i.orphans, hash)
	}
	return true
}

// parsed is a block on its way from the file.
type parsed struct {
	source    *blockstore.Source
	at        int64
	size      int
	done      chan struct{}
	candidate *consensus.Candidate // nil where there is no block
	invalid   error                // why a block cannot be valid
}

// bodies takes in the blocks of all files.
func (i *importer) bodies(ctx context.Context) error {
	total := int64(0)
	for _, s := range i.sources {
		total += s.Size
	}
	for _, s := range i.sources {
		i.report(s, 0, total)
		before := i.blocks.Load()
		if s.Number >= 0 {
			i.c.cfg.Log.Info(fmt.Sprintf("Reindexing block file %s...", s.Name))
		}
		start := time.Now()
		if err := i.file(ctx, s, total); err != nil {
			return err
		}
		i.done += s.Size
		i.c.cfg.Log.Info(fmt.Sprintf("Loaded %d blocks from external file in %dms", i.blocks.Load()-before,
			time.Since(start).Milliseconds()), "file", s.Name)
	}
	return ctx.Err()
}

// file takes in the blocks of a file. They are parsed ahead of the one that is added; where one of
// them proves to be none, what was read after it is read again, one octet further.
func (i *importer) file(ctx context.Context, s *blockstore.Source, total int64) error {
	var ahead []*parsed
	defer func() {
		for _, p := range ahead {
			<-p.done
		}
	}()
	offset, more := int64(0), true
	for ctx.Err() == nil && i.failed() == nil {
		for more && len(ahead) < loadAhead {
			p, next, err := i.next(s, offset)
			if err != nil {
				return err
			}
			if more = p != nil; more {
				ahead, offset = append(ahead, p), next
			}
		}
		if len(ahead) == 0 {
			break
		}
		p := ahead[0]
		ahead = ahead[1:]
		<-p.done
		if p.candidate == nil && p.invalid == nil {
			for _, later := range ahead {
				<-later.done
			}
			ahead, offset, more = nil, s.Again(p.at), true
			continue
		}
		i.report(s, p.at, total)
		i.add(ctx, p)
	}
	return errors.Join(ctx.Err(), i.failed())
}

// next begins to parse the next block that is wanted, and returns where to look on; nil where there
// is none.
func (i *importer) next(s *blockstore.Source, offset int64) (*parsed, int64, error) {
	for {
		at, size, ok, err := s.Next(offset)
		if err != nil || !ok {
			return nil, offset, err
		}
		known, wanted, err := i.wants(s, at)
		if err != nil {
			return nil, offset, err
		}
		if !known { // most likely there is no block
			offset = s.Again(at)
			continue
		}
		if wanted {
			p := &parsed{source: s, at: at, size: size, done: make(chan struct{})}
			go p.parse(i.c.cfg.Network)
			return p, at + int64(size), nil
		}
		if offset, err = s.After(at, size); err != nil {
			return nil, offset, err
		}
	}
}

// wants reports whether the header at a place is known, and whether it belongs to a block that is
// missing here.
func (i *importer) wants(s *blockstore.Source, at int64) (known, wanted bool, err error) {
	raw, err := s.Header(at)
	if err != nil {
		return false, false, err
	}
	e, known := i.c.Lookup(bitcoin.DoubleHash(raw))
	return known, known && e.Status&(blockstore.HaveData|blockstore.Invalid) == 0, nil
}

func (p *parsed) parse(net *bitcoin.Network) {
	defer close(p.done)
	raw, err := p.source.Read(p.at, p.size)
	if err != nil {
		return
	}
	b, _, err := bitcoin.ParseBlockPrefix(raw)
	if err != nil {
		return
	}
	p.candidate, err = consensus.NewCandidate(net, b, 0)
	var e *consensus.Error
	if errors.As(err, &e) && e.Kind != consensus.KindMutated {
		p.invalid = err
	}
}

// add hands a block to the chain, as soon as there is a place among those that are being added.
func (i *importer) add(ctx context.Context, p *parsed) {
	weight := min(1+p.size/slotBytes, mostSlots)
	for range weight { // nobody else takes any, so this ends
		i.slots <- struct{}{}
	}
	i.adds.Go(func() {
		defer func() {
			for range weight {
				<-i.slots
			}
		}()
		var pos *blockstore.Pos
		if p.source.Number >= 0 {
			pos = &blockstore.Pos{File: p.source.Number, Offset: uint32(p.at)}
		}
		if err := i.addBlock(ctx, p, pos); err != nil {
			var invalid *consensus.Error
			if !errors.As(err, &invalid) {
				i.fail(err)
				return
			}
			i.c.cfg.Log.Warn("block not imported", "file", p.source.Name, "at", p.at,
				"err", err)
		}
	})
}

func (i *importer) addBlock(ctx context.Context, p *parsed, pos *blockstore.Pos) error {
	if p.invalid != nil {
		return p.invalid
	}
	hash := p.candidate.Hash()
	if hash == i.c.cfg.Network.Genesis.Hash() {
		return i.c.adoptGenesis(pos)
	}
	_, fresh, err := i.c.accept(p.candidate, Source{Requested: true, WorkChecked: true}, pos)
	if err != nil {
		return err
	}
	if fresh {
		i.blocks.Add(1)
	}
	_, err = i.c.Activate(ctx, hash)
	return err
}

// adoptGenesis notes where the first block stands.
func (c *Chain) adoptGenesis(pos *blockstore.Pos) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, own := c.tree.at(0), c.tree.ownBody(0)
	if pos == nil || h.status&blockstore.HaveData != 0 {
		return nil
	}
	genesis := c.cfg.Network.Genesis
	c.store.Adopt(*pos, genesis.Size(), 0, genesis.Header.Time)
	own.file, own.data = pos.File, pos.Offset
	h.status |= blockstore.HaveData
	c.touch(0)
	return nil
}

func (i *importer) fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.failure == nil {
		i.failure = fmt.Errorf("import blocks: %w", err)
	}
}

func (i *importer) failed() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.failure
}

func (i *importer) report(s *blockstore.Source, at, total int64) {
	i.c.mu.Lock()
	defer i.c.mu.Unlock()
	i.c.progress = &ImportProgress{s.Name, i.done + at, total, int(i.blocks.Load())}
}
