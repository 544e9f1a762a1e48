package oracle

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

// TestFilesWithCore has one node write its files and the other one read them: blocks, mempool, addresses of
// peers and bans. What is asked for afterwards must be the same.
func TestFilesWithCore(t *testing.T) {
	core := os.Getenv("BITCOIND_REF")
	if core == "" {
		t.Skip("skipped: BITCOIND_REF names no bitcoind")
	}
	ours := build(t, "../..", filepath.Join(t.TempDir(), "tallypost"), "./cmd/tallypost")
	both := [][]string{{ours, "bitcoind"}, {core}}
	for i, name := range []string{"theirs from ours", "ours from theirs"} {
		t.Run(name, func(t *testing.T) {
			from := newDaemon(t, "the writer")
			args := []string{"-connect=0", "-blocksxor=0"}
			from.startAsCore(both[i], args...)
			want := from.leaveFiles()
			to := newDaemon(t, "the reader")
			there, here := filepath.Join(from.dir, "regtest"), filepath.Join(to.dir, "regtest")
			if err := os.Mkdir(here, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"mempool.dat", "peers.dat", "banlist.json"} {
				b, err := os.ReadFile(filepath.Join(there, file))
				if err == nil {
					err = os.WriteFile(filepath.Join(here, file), b, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			to.startAsCore(both[1-i], append(args, "-loadblock="+filepath.Join(there, "blocks", "blk00000.dat"))...)
			await(t, "all is read", func() (bool, error) {
				var pool struct {
					Loaded bool
					Size   int
				}
				err := to.call("getmempoolinfo", &pool)
				return pool.Loaded && pool.Size > 0, err
			})
			if got := to.known(); !reflect.DeepEqual(got, want) {
				t.Errorf("read: %+v\nwritten: %+v", got, want)
			}
		})
	}
}

// leaveFiles has a node learn something, and ends it. It returns what the node knows.
func (d *daemon) leaveFiles() any {
	must := func(err error) {
		d.t.Helper()
		if err != nil {
			d.t.Fatal(err)
		}
	}
	must(d.call("generatetodescriptor", nil, 110, forOurs))
	_, err := d.payFrom(1)
	must(err)
	txid, err := d.payFrom(2)
	must(err)
	must(d.call("prioritisetransaction", nil, txid, 0, 1234))
	for i := range 12 {
		must(d.call("addpeeraddress", nil, fmt.Sprintf("%d.2.3.4", 80+i), 8333, i%3 == 0))
	}
	must(d.call("addpeeraddress", nil, "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion", 8333))
	must(d.call("setban", nil, "5.6.7.0/24", "add", 100_000))
	must(d.call("setban", nil, "2001:db8::/32", "add", 9_999_999_999, true))
	known := d.known()
	must(d.call("stop", nil))
	<-d.ended
	return known
}

// known is what is in the files of a node, but for what passes with time.
func (d *daemon) known() any {
	d.t.Helper()
	var k struct {
		Tip      string
		Pool     []string
		Deltas   map[string]map[string]any
		Peers    map[string]map[string]map[string]any
		Excluded []map[string]any
	}
	for method, result := range map[string]any{"getbestblockhash": &k.Tip, "getrawmempool": &k.Pool,
		"getprioritisedtransactions": &k.Deltas, "getrawaddrman": &k.Peers, "listbanned": &k.Excluded} {
		if err := d.call(method, result); err != nil {
			d.t.Fatal(err)
		}
	}
	slices.Sort(k.Pool)
	for _, ban := range k.Excluded {
		delete(ban, "time_remaining")
	}
	return k
}
