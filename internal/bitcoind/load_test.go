package bitcoind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
)

// site is the data directory of a node on regtest with some blocks.
type site struct {
	t   *testing.T
	cfg Config
	gen *chaintest.Gen
	tip bitcoin.Hash
}

func newSite(t *testing.T, blocks int) *site {
	t.Helper()
	dir := t.TempDir()
	net := bitcoin.Regtest()
	s := &site{t: t, gen: chaintest.New(t, net), cfg: Config{
		Network: net, BaseDir: dir, DataDir: filepath.Join(dir, "regtest"), MaxTipAge: 24 * time.Hour,
		LogFile: filepath.Join(dir, "debug.log"),
		Storage: Storage{CacheBytes: 8 << 20, CheckBlocks: defaultCheckBlocks, CheckLevel: defaultCheckLevel,
			BlocksDir: filepath.Join(dir, "regtest", "blocks")},
	}}
	made := s.gen.Run("m", blocks)
	err := s.load(func(n *Node) error {
		for _, b := range made {
			src := chain.Source{Requested: true, WorkChecked: true}
			if _, err := n.chain.Add(context.Background(), b, src); err != nil {
				return err
			}
		}
		s.tip = n.chain.Tip().Hash
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// load starts a node as far as that its chain is loaded, calls f and ends it.
func (s *site) load(f func(*Node) error) error {
	n, err := New(s.cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	if err := n.load(context.Background()); err != nil {
		return err
	}
	return errors.Join(f(n), n.closeStore())
}

// expectTip wants the node to start and to be where it was.
func (s *site) expectTip() {
	s.t.Helper()
	err := s.load(func(n *Node) error {
		if tip := n.chain.Tip(); tip.Hash != s.tip {
			return fmt.Errorf("tip is %v at height %d", tip.Hash, tip.Height)
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
}

func (s *site) path(name string) string { return filepath.Join(s.cfg.DataDir, name) }

// change replaces a file, or removes it where the new content is nil, and returns what puts it back.
func (s *site) change(pattern string, with func([]byte) []byte) (restore func()) {
	s.t.Helper()
	names, err := filepath.Glob(s.path(pattern))
	if err != nil || len(names) == 0 {
		s.t.Fatalf("no file %s: %v", pattern, err)
	}
	old := map[string][]byte{}
	for _, name := range names {
		if old[name], err = os.ReadFile(name); err != nil {
			s.t.Fatal(err)
		}
		s.must(os.Remove(name))
		if b := with(old[name]); b != nil {
			s.must(os.WriteFile(name, b, 0o600))
		}
	}
	return func() {
		for name, b := range old {
			s.must(os.WriteFile(name, b, 0o600))
		}
	}
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// changeTables spoils the tables of a database, into which the log goes at the next start.
func (s *site) changeTables(dir string) (restore func()) {
	s.t.Helper()
	s.must(s.load(func(*Node) error { return nil }))
	return s.change(dir+"/*.sst", func(b []byte) []byte {
		b = bytes.Clone(b)
		copy(b[20:], "spoilt spoilt spoilt spoilt")
		return b
	})
}

func gone([]byte) []byte { return nil }

func half(b []byte) []byte { return b[:len(b)/2] }

// spoilt changes a block that is looked at again at the start.
func spoilt(b []byte) []byte {
	b = bytes.Clone(b)
	copy(b[len(b)-150:], "spoilt spoilt spoilt spoilt")
	return b
}

const hint = ".\nPlease restart with -reindex or -reindex-chainstate to recover."

// TestBadStarts changes what is on disk. The node says what is wrong in one sentence and touches nothing: once
// the file is as it was, the node goes on where it stopped. -reindex helps in any case.
func TestBadStarts(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(*site) (restore func())
		want   string // begin and end of what is on standard error
	}{
		{"no block file", func(s *site) func() { return s.change("blocks/blk00000.dat", gone) },
			": Error loading block database: "},
		{"short block file", func(s *site) func() { return s.change("blocks/blk00000.dat", half) },
			": Error loading block database: "},
		{"spoilt block", func(s *site) func() { return s.change("blocks/blk00000.dat", spoilt) },
			": Corrupted block database detected" + hint},
		{"spoilt undo data", func(s *site) func() { return s.change("blocks/rev00000.dat", spoilt) },
			": Corrupted block database detected" + hint},
		{"no index", func(s *site) func() {
			s.must(os.Rename(s.path("blocks/index"), s.path("kept")))
			return func() {
				s.must(os.RemoveAll(s.path("blocks/index")))
				s.must(os.Rename(s.path("kept"), s.path("blocks/index")))
			}
		}, ": Error initializing block database" + hint},
		{"index without its manifest", func(s *site) func() { return s.change("blocks/index/MANIFEST*", gone) },
			": Error opening block database: "},
		{"coins without their manifest", func(s *site) func() { return s.change("chainstate/MANIFEST*", half) },
			": Error opening coins database: "},
		{"spoilt records of the index", func(s *site) func() { return s.changeTables("blocks/index") },
			": Error opening block database: corrupt: database "},
		{"spoilt coins", func(s *site) func() { return s.changeTables("chainstate") },
			": Error opening coins database: coins: corrupt: database "},
		{"a block of tomorrow", func(s *site) func() {
			s.cfg.MockTime = int64(s.gen.Block("m.19").Header.Time) - maxFuture - 1
			return func() { s.cfg.MockTime = 0 }
		}, ": The block database contains a block which appears to be from the future."},
		{"other network", func(s *site) func() {
			s.cfg.Network = bitcoin.Testnet4()
			return func() { s.cfg.Network = bitcoin.Regtest() }
		}, "Error: not our data: database " + "PATH" + " is of another network. Wrong datadir for network testnet4?"},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := newSite(t, 20)
			restore := c.change(s)
			err := s.load(func(*Node) error { return nil })
			if err == nil {
				t.Fatal("the node started")
			}
			got := strings.ReplaceAll(Report(err), s.path("blocks/index"), "PATH")
			got = strings.Replace(got, "block index: ", "", 1)
			if !strings.HasPrefix(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
			if lines := strings.Count(strings.TrimSuffix(got, hint), "\n"); lines > 0 {
				t.Errorf("%q has lines", got)
			}
			restore()
			s.expectTip()
		})
	}
}

// TestReindexAfterDamage makes everything anew from block files one of which has lost its end.
func TestReindexAfterDamage(t *testing.T) {
	s := newSite(t, 20)
	s.change("blocks/index/MANIFEST*", gone)
	s.change("chainstate/MANIFEST*", gone)
	s.change("blocks/blk00000.dat", func(b []byte) []byte { return b[:len(b)-150] }) // half the last block
	s.cfg.Storage.Reindex = true
	err := s.load(func(n *Node) error {
		if err := n.importBlocks(context.Background()); err != nil {
			return err
		}
		if got := s.gen.Name(n.chain.Tip().Hash); got != "m.18" {
			return fmt.Errorf("tip is %s", got)
		}
		s.tip = n.chain.Tip().Hash
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.cfg.Storage.Reindex = false
	s.expectTip()
}

// lockEnv makes the test binary take the lock of a directory, as another process.
const lockEnv = "TALLYPOST_TEST_LOCK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(lockEnv); dir != "" {
		holdLock(dir)
	}
	if args := os.Getenv(nodeEnv); args != "" {
		os.Exit(runNode(strings.Split(args, "\n")))
	}
	os.Exit(m.Run())
}

// holdLock takes a lock, says so and holds it until standard input ends.
func holdLock(dir string) {
	f, err := lockDir(dir)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("locked")
	os.Stdin.Read(make([]byte, 1))
	f.Close()
	os.Exit(0)
}

// TestLocked refuses a directory that another process has.
func TestLocked(t *testing.T) {
	for _, which := range []string{"", "blocks"} {
		s := newSite(t, 1)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), lockEnv+"="+s.path(which))
		in, err := cmd.StdinPipe()
		s.must(err)
		out, err := cmd.StdoutPipe()
		s.must(err)
		s.must(cmd.Start())
		line := make([]byte, 100)
		n, _ := out.Read(line)
		if string(line[:n]) != "locked\n" {
			t.Fatalf("the other process says %q", line[:n])
		}
		err = s.load(func(*Node) error { return nil })
		want := "Error: Cannot obtain a lock on directory " + strings.TrimSuffix(s.path(which), "/") +
			". Bitcoin Core is probably already running."
		if err == nil || Report(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
		in.Close()
		cmd.Wait()
		s.expectTip()
	}
}

// TestNoDirectory cannot be made where there is a file.
func TestNoDirectory(t *testing.T) {
	s := newSite(t, 1)
	s.cfg.Storage.BlocksDir = filepath.Join(s.cfg.LogFile, "blocks")
	err := s.load(func(*Node) error { return nil })
	if err == nil || !strings.HasPrefix(Report(err), "Error: Cannot write to directory ") {
		t.Error(err)
	}
}
