package oracle

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/chaincfg/v2"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
)

// TestSyncWithBtcd runs our program and btcd side by side on regtest. Each has blocks that the other
// must take, each has to give up a branch for the other's, and a transaction of ours is mined there.
func TestSyncWithBtcd(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs two programs")
	}
	dir := t.TempDir()
	ours := build(t, "../..", filepath.Join(dir, "tallypost"), "./cmd/tallypost")
	btcd := build(t, ".", filepath.Join(dir, "btcd"), "github.com/btcsuite/btcd")
	for _, row := range []struct {
		name         string
		v2, theyCall bool
	}{
		{"we call with v1", false, false},
		{"they call with v1", false, true},
		{"we call with v2", true, false},
		{"they call with v2", true, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := pair{
				t: t, v2: row.v2, theyCall: row.theyCall,
				ours:   startOurs(t, ours, row.v2),
				theirs: startBtcd(t, btcd, row.v2),
			}
			p.story()
		})
	}
}

// TestSyncWithCore does the same with the bitcoind that BITCOIND_REF names.
func TestSyncWithCore(t *testing.T) {
	core := os.Getenv("BITCOIND_REF")
	if core == "" {
		t.Skip("skipped: BITCOIND_REF names no bitcoind")
	}
	ours := build(t, "../..", filepath.Join(t.TempDir(), "tallypost"), "./cmd/tallypost")
	for _, v2 := range []bool{false, true} {
		for _, theyCall := range []bool{false, true} {
			t.Run(fmt.Sprintf("v2 %v, they call %v", v2, theyCall), func(t *testing.T) {
				p := pair{
					t: t, v2: v2, theyCall: theyCall,
					ours:   startOurs(t, ours, v2),
					theirs: startCoreNode(t, core, v2),
				}
				p.story()
			})
		}
	}
}

// Whom the two mine for. It must not be the same: their blocks of one height and second would be one block.
var (
	forOurs   = "raw(" + hex.EncodeToString(chaintest.Anyone()) + ")" // see pair.pay
	forTheirs = "raw(51)"
)

// startOurs starts our bitcoind.
func startOurs(t *testing.T, program string, v2 bool) *daemon {
	return startBitcoind(t, "tallypost", []string{program, "bitcoind"}, forOurs, v2)
}

func startCoreNode(t *testing.T, program string, v2 bool) *daemon {
	return startBitcoind(t, "Bitcoin Core", []string{program}, forTheirs, v2)
}

func startBitcoind(t *testing.T, name string, command []string, minesFor string, v2 bool) *daemon {
	t.Helper()
	d := newDaemon(t, name)
	transport := "-v2transport=0"
	if v2 {
		transport = "-v2transport=1"
	}
	d.mine = func(n int) error { return d.call("generatetodescriptor", nil, n, minesFor) }
	d.peer = func(what, addr string) error {
		if what == "add" {
			return d.call("addnode", nil, addr, "onetry")
		}
		return d.dropAll()
	}
	d.startAsCore(command, transport)
	return d
}

// startAsCore starts a program that has the options of Core's bitcoind.
func (d *daemon) startAsCore(command []string, more ...string) {
	d.t.Helper()
	_, p2p, _ := net.SplitHostPort(d.p2p)
	_, rpc, _ := net.SplitHostPort(d.rpc)
	d.logs = []string{filepath.Join(d.dir, "regtest", "debug.log")}
	command = append(slices.Clip(command), "-regtest", "-datadir="+d.dir, "-listen=1", "-bind="+d.p2p,
		"-port="+p2p, "-rpcport="+rpc, "-rpcuser="+rpcUser, "-rpcpassword="+rpcPassword, "-dnsseed=0",
		"-fixedseeds=0", "-listenonion=0", "-printtoconsole=0", "-debug=net")
	d.start(append(command, more...))
}

// startBtcd starts btcd.
func startBtcd(t *testing.T, program string, v2 bool) *daemon {
	t.Helper()
	d := newDaemon(t, "btcd")
	to, err := address.NewAddressWitnessPubKeyHash(make([]byte, 20), &chaincfg.RegressionNetParams)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(d.dir, "btcd.conf")
	if err := os.WriteFile(config, []byte("[Application Options]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command := []string{program, "--configfile=" + config, "--regtest", "--datadir=" + d.dir,
		"--logdir=" + d.dir, "--listen=" + d.p2p, "--rpclisten=" + d.rpc, "--notls",
		"--rpcuser=" + rpcUser, "--rpcpass=" + rpcPassword, "--nodnsseed", "--nobanning",
		"--trickleinterval=100ms", "--miningaddr=" + to.EncodeAddress(), "--debuglevel=debug"}
	if v2 {
		command = append(command, "--v2transport")
	}
	d.start(command)
	d.logs = []string{filepath.Join(d.dir, "regtest", "btcd.log")}
	d.mine = func(n int) error { return d.call("generate", nil, n) }
	d.peer = func(what, addr string) error {
		if what == "add" {
			return d.call("node", nil, "connect", addr, "temp")
		}
		return d.dropAllBtcd()
	}
	return d
}

// pair is our node and another.
type pair struct {
	t            *testing.T
	ours, theirs *daemon
	v2, theyCall bool
}

// must ends the test if something could not be done.
func (p *pair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// story mines here and there:
//
//	      we mine 110      they mine a transaction of ours, and 3 more
//	g ----------------- a ----------------- b -- 2 of ours, given up
//	                                         \-- 4 of theirs -- c -- 3 of theirs, given up
//	                                                             \-- 6 of ours
func (p *pair) story() {
	p.must(p.ours.mine(110))
	p.connect()
	p.same("they follow", 110)

	tx := p.pay()
	p.await("the transaction is there", func() (bool, error) {
		var pool []string
		err := p.theirs.call("getrawmempool", &pool)
		return slices.Contains(pool, tx), err
	})
	p.must(p.theirs.mine(4))
	p.same("we follow", 114)
	var pool []string
	p.must(p.ours.call("getrawmempool", &pool))
	if len(pool) != 0 {
		p.t.Errorf("our mempool holds %v after they mined it", pool)
	}

	p.disconnect()
	p.must(p.ours.mine(2))
	p.must(p.theirs.mine(4))
	p.connect()
	p.same("we change over", 118)

	p.disconnect()
	p.must(p.theirs.mine(3))
	p.must(p.ours.mine(6))
	p.connect()
	p.same("they change over", 124)
	p.tips()
}

// connect connects the two and looks at the connection.
func (p *pair) connect() {
	p.t.Helper()
	if p.theyCall {
		p.must(p.theirs.peer("add", p.ours.p2p))
	} else {
		p.must(p.ours.peer("add", p.theirs.p2p))
	}
	want := "v1"
	if p.v2 {
		want = "v2"
	}
	p.await("a connection of type "+want, func() (bool, error) {
		var peers []struct {
			Type    string `json:"transport_protocol_type"`
			Version int
			Inbound bool
		}
		err := p.ours.call("getpeerinfo", &peers)
		return len(peers) == 1 && peers[0].Type == want && peers[0].Version > 0 &&
			peers[0].Inbound == p.theyCall, err
	})
}

func (p *pair) disconnect() {
	p.t.Helper()
	p.must(p.theirs.peer("drop", ""))
	p.await("the connection is gone", func() (bool, error) {
		var mine, other []any
		if err := p.ours.call("getpeerinfo", &mine); err != nil {
			return false, err
		}
		err := p.theirs.call("getpeerinfo", &other)
		return len(mine) == 0 && len(other) == 0, err
	})
}

// same waits until both have the same tip at a height.
func (p *pair) same(what string, height int) {
	p.t.Helper()
	p.await(what, func() (bool, error) {
		var mine, other string
		var at int
		if err := p.ours.call("getbestblockhash", &mine); err != nil {
			return false, err
		}
		if err := p.ours.call("getblockcount", &at); err != nil {
			return false, err
		}
		err := p.theirs.call("getbestblockhash", &other)
		return mine == other && at == height, err
	})
}

// pay sends a transaction from our first block, and returns its txid.
func (p *pair) pay() string {
	p.t.Helper()
	txid, err := p.ours.payFrom(1)
	p.must(err)
	return txid
}

// payFrom sends a transaction that spends what anyone may of the coinbase at a height.
func (d *daemon) payFrom(height int) (txid string, err error) {
	var hash, raw string
	err = d.call("getblockhash", &hash, height)
	if err == nil {
		err = d.call("getblock", &raw, hash, 0)
	}
	if err != nil {
		return "", err
	}
	b, err := hex.DecodeString(raw)
	if err != nil {
		return "", err
	}
	block, err := bitcoin.ParseBlock(b)
	if err != nil {
		return "", err
	}
	tx := chaintest.Spend(10_000, chaintest.OutputOf(&block.Txs[0], 0))
	return txid, d.call("sendrawtransaction", &txid, hex.EncodeToString(tx.Append(nil)))
}

// tips wants our two lost branches to be there still.
func (p *pair) tips() {
	p.t.Helper()
	var tips []struct {
		Height int
		Status string
	}
	p.must(p.ours.call("getchaintips", &tips))
	var found []string
	for _, tip := range tips {
		found = append(found, fmt.Sprint(tip.Height, " ", tip.Status))
	}
	slices.Sort(found)
	// Their second branch never came here: it had less work when they told of it.
	all := strings.Join(found, ", ")
	if !strings.Contains(all, "116 valid-fork") || !strings.Contains(all, "124 active") {
		p.t.Errorf("our tips are %s", all)
	}
}
