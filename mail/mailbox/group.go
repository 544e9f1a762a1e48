package mailbox

import (
	"errors"
	"os"
	"sync"
)

// group lets deliveries that arrive together share their barriers. A round is: sync the files, rename
// them, sync the names. The first to come leads a round for all who wait; who comes meanwhile waits for
// the next round, which one of them leads. Where a next round is due anyhow, its sync of files, being
// one of the whole file system, makes the names of the round before durable too: under load each letter
// costs a share of one barrier, not of two.
type group struct {
	mu      sync.Mutex
	waiting []*pending // guarded by mu
	leading bool       // guarded by mu

	// renamed are the letters of the round before, whose names wait for the next barrier. It belongs to
	// whoever leads.
	renamed []*pending
}

type pending struct {
	file            *os.File
	tmp, dir, final string
	err             error
	turn            chan bool // true: lead the next round; closed: settled
}

// syncfsFrom is the size of a round from which one syncfs is cheaper than a sync of each file (see
// BenchmarkDeliver).
const syncfsFrom = 4

// commit makes the file and its new name durable. The file is closed in any case.
func (g *group) commit(p *pending) error {
	p.turn = make(chan bool, 1)
	g.mu.Lock()
	g.waiting = append(g.waiting, p)
	if g.leading {
		g.mu.Unlock()
		if lead := <-p.turn; !lead {
			return p.err
		}
		g.mu.Lock()
	}
	g.leading = true
	round := g.waiting
	g.waiting = nil
	g.mu.Unlock()

	g.syncFiles(round)
	rename(round)

	g.mu.Lock()
	if len(g.waiting) > 0 {
		g.renamed = round
		g.waiting[0].turn <- true
		g.mu.Unlock()
		<-p.turn
		return p.err
	}
	g.mu.Unlock()
	syncNames(round)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leading = len(g.waiting) > 0
	if g.leading {
		g.waiting[0].turn <- true
	}
	return p.err
}

// syncFiles puts the content of a round's files on stable storage, and with it the names of the round
// before, whose letters are then settled.
func (g *group) syncFiles(round []*pending) {
	before := g.renamed
	g.renamed = nil
	if !hasSyncfs || len(before) == 0 && len(round) < syncfsFrom {
		for _, p := range round {
			p.err = p.file.Sync()
		}
		syncNames(before)
		return
	}
	if err := syncfs(round[0].file); err != nil {
		fail(before, err)
		fail(round, err)
	}
	settle(before)
}

func rename(round []*pending) {
	for _, p := range round {
		p.err = errors.Join(p.err, p.file.Close())
		if p.err == nil {
			p.err = os.Rename(p.tmp, p.final)
		}
	}
}

// syncNames syncs the folders that a round's letters are now in, and settles them.
func syncNames(round []*pending) {
	dirs := make(map[string][]*pending)
	for _, p := range round {
		if p.err == nil {
			dirs[p.dir] = append(dirs[p.dir], p)
		}
	}
	for dir, ps := range dirs {
		if err := syncDir(dir); err != nil {
			fail(ps, err)
		}
	}
	settle(round)
}

func settle(round []*pending) {
	for _, p := range round {
		close(p.turn)
	}
}

func fail(ps []*pending, err error) {
	for _, p := range ps {
		p.err = errors.Join(p.err, err)
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
