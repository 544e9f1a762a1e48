package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/internal/bitcoincli"
)

// freePorts returns ports that nobody listens at right now.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// daemon is a bitcoind that runs in this process.
type daemon struct {
	t    *testing.T
	dir  string
	port int
	rpc  int
	done chan int
	stop context.CancelFunc
}

func startDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	ports := freePorts(t, 2)
	d := &daemon{t: t, dir: t.TempDir(), port: ports[0], rpc: ports[1], done: make(chan int, 1)}
	conf := fmt.Sprintf("regtest=1\n[regtest]\nport=%d\nrpcport=%d\ndnsseed=0\nprinttoconsole=0\n", d.port, d.rpc)
	if err := os.WriteFile(filepath.Join(d.dir, "bitcoin.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	args = append([]string{"-datadir=" + d.dir, "-debug", fmt.Sprintf("-bind=127.0.0.1:%d", d.port)}, args...)
	go func() { d.done <- runBitcoind(ctx, args) }()
	t.Cleanup(d.end)
	return d
}

// end stops the daemon and wants it to have ended well.
func (d *daemon) end() {
	d.stop()
	select {
	case code := <-d.done:
		if code != 0 {
			d.t.Errorf("bitcoind ended with %d", code)
		}
		d.done <- 0
	case <-time.After(20 * time.Second):
		d.t.Error("bitcoind does not end")
	}
}

// call is bitcoin-cli.
func (d *daemon) call(words ...string) (any, error) {
	args := append([]string{"-datadir=" + d.dir, "-rpcwait", "-rpcwaittimeout=20"}, words...)
	var out, text bytes.Buffer
	if code := bitcoincli.Run(context.Background(), args, bitcoincli.Streams{Out: &out, Err: &text}); code != 0 {
		return nil, errors.New(text.String())
	}
	v, err := jsonrpc.ParseValue(out.Bytes())
	if err != nil {
		return strings.TrimSuffix(out.String(), "\n"), nil
	}
	return v, nil
}

func (d *daemon) must(words ...string) any {
	d.t.Helper()
	// The cookie is there a moment after the process.
	for end := time.Now().Add(10 * time.Second); ; {
		v, err := d.call(words...)
		if err == nil {
			return v
		}
		if !strings.Contains(err.Error(), "Could not locate RPC credentials") || time.Now().After(end) {
			d.t.Fatalf("%q: %v", words, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestTwoDaemonsSync(t *testing.T) {
	a, b := startDaemon(t), startDaemon(t)
	if v := a.must("getblockcount"); v != json.Number("0") {
		t.Fatalf("a new chain has height %v", v)
	}
	b.must("getblockcount")
	a.must("addnode", fmt.Sprintf("127.0.0.1:%d", b.port), "onetry")
	hashes := a.must("generatetodescriptor", "5", "raw(51)").([]any)
	v := b.must("waitforblockheight", "5", "10000").(jsonrpc.Object)
	if len(hashes) != 5 || v.Get("hash") != hashes[4] {
		t.Fatalf("the second node is at %v, the first made %v", v, hashes)
	}
	if _, err := a.call("getblockhash", "6"); err == nil ||
		err.Error() != "error code: -8\nerror message:\nBlock height out of range\n" {
		t.Errorf("error of a wrong height: %v", err)
	}
	named := b.must("-named", "getblock", "blockhash="+hashes[0].(string), "verbosity=2").(jsonrpc.Object)
	if named.Get("height") != json.Number("1") {
		t.Errorf("block %v", named)
	}
	if got := a.must("stop"); got != "Tallypost stopping" {
		t.Errorf("stop: %v", got)
	}
	if code := <-a.done; code != 0 {
		t.Errorf("exit code %d", code)
	}
	a.done <- 0
	if _, err := os.Stat(filepath.Join(a.dir, "regtest", ".cookie")); !os.IsNotExist(err) {
		t.Error("the cookie is still there")
	}
	for _, name := range []string{"debug.log", "peers.dat", "banlist.json", "wallets"} {
		if _, err := os.Stat(filepath.Join(a.dir, "regtest", name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrongOptions(t *testing.T) {
	a := startDaemon(t)
	a.must("getblockcount")
	err := startBitcoind(context.Background(), []string{"-datadir=" + a.dir, "-nosuch"})
	if err == nil || err.Error() != "Error parsing command line arguments: Invalid parameter -nosuch" {
		t.Errorf("unknown option: %v", err)
	}
	err = startBitcoind(context.Background(), []string{"-datadir=" + filepath.Join(a.dir, "absent")})
	if err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("absent directory: %v", err)
	}
}
