package bitcoind

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

// nodeEnv makes the test binary a node with these arguments, one a line.
const nodeEnv = "TALLYPOST_TEST_NODE"

// runNode is bitcoind.
func runNode(args []string) int {
	o := options.New(options.Bitcoind())
	err := o.ParseCommandLine(args, false)
	var cfg Config
	if err == nil {
		o.UseNetwork("regtest")
		cfg, err = FromOptions(o)
	}
	var n *Node
	if err == nil {
		n, err = New(cfg)
	}
	if err == nil {
		err = n.Run(context.Background())
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, Report(err))
		return 1
	}
	return 0
}

// bootstrap is a file of blocks with many coins, so that a small cache is written several times.
func bootstrap(t *testing.T, file string, blocks int) (tip bitcoin.Hash) {
	t.Helper()
	net := bitcoin.Regtest()
	gen := chaintest.New(t, net)
	var b bytes.Buffer
	add := func(block *bitcoin.Block) {
		raw := block.Append(nil)
		b.Write(net.Magic[:])
		b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(raw))))
		b.Write(raw)
		tip = block.Hash()
	}
	for _, block := range gen.Run("m", 100+blocks) {
		add(block)
	}
	const outputs, spent = 3000, 1000
	for i := range blocks {
		tx := chaintest.Spend(0, gen.Coinbase(fmt.Sprint("m.", i)))
		out := tx.Out[0]
		out.Value /= outputs
		tx.Out = nil
		for range outputs {
			tx.Out = append(tx.Out, out)
		}
		// A part of them is spent in the next block.
		txs := []*bitcoin.Tx{tx}
		if i > 0 {
			before := gen.Block(fmt.Sprint("s", i-1)).Txs[1]
			var from []chaintest.Output
			for j := range spent {
				from = append(from, chaintest.OutputOf(&before, j))
			}
			txs = append(txs, chaintest.Spend(0, from...))
		}
		add(gen.Next(fmt.Sprint("s", i), chaintest.With(txs...)))
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return tip
}

// TestKillDuringImport kills a node again and again while it imports. Each time what is on disk is a chain
// that is in order, the node goes on without -reindex, and in the end it is where it should be.
func TestKillDuringImport(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many nodes")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "bootstrap.dat")
	want := bootstrap(t, file, spending)
	node := func(data string) *exec.Cmd { return importing(data, file) }
	whole := filepath.Join(dir, "whole")
	must(t, os.Mkdir(whole, 0o700))
	must(t, node(whole).Run())
	data := filepath.Join(dir, "data")
	must(t, os.Mkdir(data, 0o700))
	for at := first; at <= first+spending; at += 10 {
		cmd := node(data)
		must(t, cmd.Start())
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			killAt(cmd, filepath.Join(data, "regtest", "debug.log"), at)
		}()
		cmd.Wait()
		<-killed
		height := inOrder(t, data)
		t.Logf("killed at height %d: %d blocks are left", at, height)
	}
	must(t, node(data).Run())
	for _, d := range []string{whole, data} {
		if height := inOrder(t, d); height != first+spending {
			t.Errorf("%s ended at height %d", d, height)
		}
	}
	if a, b := coinsOf(t, whole), coinsOf(t, data); a != b || a.tip != want {
		t.Errorf("coins are %+v, without kills %+v; the last block is %v", b, a, want)
	}
}

// TestKillDuringSync does the same with a node that has its blocks from another one.
func TestKillDuringSync(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many nodes")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "bootstrap.dat")
	want := bootstrap(t, file, spending)
	source, data := filepath.Join(dir, "source"), filepath.Join(dir, "data")
	must(t, errors.Join(os.Mkdir(source, 0o700), os.Mkdir(data, 0o700)))
	must(t, importing(source, file).Run())
	addr := fmt.Sprint("127.0.0.1:", freePort(t))
	serving := process(source, "-bind="+addr, "-connect=0", "-listen=1")
	must(t, serving.Start())
	defer func() {
		serving.Process.Signal(os.Interrupt)
		serving.Wait()
	}()
	const end = first + spending
	for at := 30; at <= end; at += 30 {
		cmd := process(data, "-connect="+addr, "-listen=0", fmt.Sprint("-stopatheight=", end))
		must(t, cmd.Start())
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			killAt(cmd, filepath.Join(data, "regtest", "debug.log"), at)
		}()
		cmd.Wait()
		<-killed
		height := inOrder(t, data)
		t.Logf("killed at height %d: %d blocks are left", at, height)
	}
	must(t, process(data, "-connect="+addr, "-listen=0", fmt.Sprint("-stopatheight=", end)).Run())
	serving.Process.Signal(os.Interrupt)
	serving.Wait()
	if a, b := coinsOf(t, source), coinsOf(t, data); a != b || a.tip != want {
		t.Errorf("coins are %+v, those of the source %+v; the last block is %v", b, a, want)
	}
}

// freePort returns a port of the loopback interface that nobody has just now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// importing is a node that takes blocks in from a file and ends then.
func importing(data, file string) *exec.Cmd {
	return process(data, "-connect=0", "-listen=0", "-loadblock="+file, "-stopafterblockimport")
}

// process is a node with a small cache and small files.
func process(data string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	args = append(args, "-regtest", "-datadir="+data, "-server=0", "-dnsseed=0", "-fixedseeds=0",
		"-listenonion=0", "-printtoconsole=0", "-dbcache=4", "-fastprune")
	cmd.Env = append(os.Environ(), nodeEnv+"="+strings.Join(args, "\n"))
	cmd.Stderr = os.Stderr
	return cmd
}

// killAt kills a process when the last line of its log says that the chain has come to a height.
func killAt(cmd *exec.Cmd, log string, height int) {
	from, _ := os.Stat(log)
	said := int64(0)
	if from != nil {
		said = from.Size()
	}
	want := fmt.Appendf(nil, " height=%d ", height)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if b, err := os.ReadFile(log); err == nil && bytes.Contains(b[min(said, int64(len(b))):], want) {
			break
		}
		if cmd.Process.Signal(syscall.Signal(0)) != nil { // it has ended by itself
			break
		}
	}
	cmd.Process.Kill()
}

// The chain of the test: blocks before the first one that spends, and those that do.
const (
	spending = 40
	first    = 100 + spending
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open loads the chain of a data directory and calls f.
func open(t *testing.T, data string, f func(*Node)) {
	t.Helper()
	base := filepath.Join(data, "regtest")
	n, err := New(Config{Network: bitcoin.Regtest(), BaseDir: data, DataDir: base, MaxTipAge: time.Hour,
		Storage: Storage{BlocksDir: filepath.Join(base, "blocks"), SmallFiles: true, CacheBytes: 64 << 20}})
	must(t, err)
	defer n.Close()
	must(t, n.load(context.Background()))
	f(n)
	must(t, n.closeStore())
}

// inOrder verifies the whole chain at the highest level and returns its height.
func inOrder(t *testing.T, data string) (height bitcoin.Height) {
	t.Helper()
	open(t, data, func(n *Node) {
		height = n.chain.Tip().Height
		result, err := n.chain.Verify(context.Background(), 4, 0, nil)
		if err != nil || result != chain.VerifySound {
			t.Errorf("verification at height %d: %v, %v", height, result, err)
		}
	})
	return height
}

// summary is what all coins come to.
type summary struct {
	tip   bitcoin.Hash
	coins int
	value bitcoin.Amount
	hash  bitcoin.Hash
}

// coinsOf sums up all coins of a data directory, in their order.
func coinsOf(t *testing.T, data string) (sum summary) {
	t.Helper()
	open(t, data, func(n *Node) {
		h := sha256.New()
		var err error
		sum.tip, err = coins{n.chain}.All(context.Background(),
			func(out bitcoin.OutPoint, coin consensus.Coin) error {
				sum.coins++
				sum.value += coin.Out.Value
				h.Write(coin.Out.Append(out.Append(nil)))
				return nil
			})
		must(t, err)
		sum.hash = bitcoin.Hash(h.Sum(nil))
	})
	return sum
}
