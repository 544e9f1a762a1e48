package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKillDuringSync kills a node again and again while it fetches a chain. It must start by itself
// each time, go on where it was, and end with the other's tip; never is a reindex asked for.
func TestKillDuringSync(t *testing.T) {
	const blocks, kills = 2500, 8
	from := startChainNode(t, "-connect=0")
	// An output that everybody can spend. In parts, for each call is bounded in time.
	for range blocks / 500 {
		from.cli("generatetodescriptor", "500", "raw(51)")
	}
	random := rand.New(rand.NewPCG(1, 2))
	to := startChainNode(t, "-connect="+from.p2p, "-dbcache=4")
	at := 0
	for kill := range kills {
		time.Sleep(time.Duration(20+random.IntN(400)) * time.Millisecond) // a moment as good as any
		to.kill()
		to.start()
		now := to.number("getblockcount")
		t.Logf("kill %d: %d blocks", kill, now)
		at = max(at, now)
	}
	want := from.cli("getbestblockhash")
	for end := time.Now().Add(2 * time.Minute); to.cli("getbestblockhash") != want; {
		if time.Now().After(end) {
			t.Fatalf("stuck at block %s", to.cli("getblockcount"))
		}
		time.Sleep(100 * time.Millisecond)
	}
	if to.cli("verifychain", "4", "200") != "true" {
		t.Error("verifychain is not content")
	}
	log, err := os.ReadFile(filepath.Join(to.dir, "regtest", "debug.log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "-reindex") {
		t.Errorf("a reindex was asked for:\n%s", tail(string(log), 5000))
	}
}

// chainNode is the Bitcoin half as a process, on regtest.
type chainNode struct {
	t        *testing.T
	dir      string
	p2p, rpc string
	args     []string
	cmd      *exec.Cmd
	out      bytes.Buffer
	ended    chan struct{}
}

func startChainNode(t *testing.T, args ...string) *chainNode {
	t.Helper()
	n := &chainNode{t: t, dir: t.TempDir(), p2p: freeAddr(t), rpc: freeAddr(t), args: args}
	n.start()
	t.Cleanup(func() {
		n.cmd.Process.Signal(syscall.SIGTERM)
		<-n.ended
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(n.dir, "regtest", "debug.log"))
			t.Logf("%s\n%s", n.out.String(), tail(string(log), 5000))
		}
	})
	return n
}

func (n *chainNode) start() {
	n.t.Helper()
	_, port, err := net.SplitHostPort(n.p2p)
	if err != nil {
		n.t.Fatal(err)
	}
	_, rpc, err := net.SplitHostPort(n.rpc)
	if err != nil {
		n.t.Fatal(err)
	}
	args := append([]string{"bitcoind", "-regtest", "-datadir=" + n.dir, "-listen=1", "-bind=" + n.p2p,
		"-port=" + port, "-rpcport=" + rpc, "-rpcuser=u", "-rpcpassword=p", "-dnsseed=0",
		"-printtoconsole=0"}, n.args...)
	n.cmd = exec.Command(binary, args...)
	n.cmd.Stdout, n.cmd.Stderr = &n.out, &n.out
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	cmd, ended := n.cmd, make(chan struct{})
	n.ended = ended
	go func() { cmd.Wait(); close(ended) }()
	n.cli("getblockcount")
}

// kill ends the process as a power cut would, as far as a process can.
func (n *chainNode) kill() {
	n.t.Helper()
	n.cmd.Process.Kill()
	<-n.ended
}

// cli calls a method and returns what it prints.
func (n *chainNode) cli(words ...string) string {
	n.t.Helper()
	_, rpc, err := net.SplitHostPort(n.rpc)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	go func() { // who waits for a process that has ended waits for long
		select {
		case <-n.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	cmd := exec.CommandContext(ctx, binary, append([]string{"bitcoin-cli", "-regtest",
		"-datadir=" + n.dir, "-rpcport=" + rpc, "-rpcuser=u", "-rpcpassword=p", "-rpcwait", "-rpcwaittimeout=90"}, words...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v\n%s\nthe node: %s", words[0], err, out, n.out.String())
	}
	return strings.TrimSpace(string(out))
}

func (n *chainNode) number(words ...string) (value int) {
	n.t.Helper()
	if out := n.cli(words...); json.Unmarshal([]byte(out), &value) != nil {
		n.t.Fatal(fmt.Sprint(words, ": ", out))
	}
	return value
}
