package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/index"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/rpc"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/internal/clock"
)

// core is a Bitcoin Core of regtest to be asked in our place, for testdata/answers.txt to be written anew; it is
// started with -regtest -connect=0 -listen=0 -mocktime=1400000000 -txindex -blockfilterindex -coinstatsindex -rest
// on an empty directory.
var core = flag.String("core", "", "http://user:password@host:port/ whose answers become testdata/answers.txt")

const answersFile = "testdata/answers.txt"

// now is some years behind the blocks.
var now = time.Unix(1_400_000_000, 0)

// mockClock is a clock as the API wants one.
type mockClock struct{ *clock.Mock }

// SetMock sets the time.
func (c mockClock) SetMock(t time.Time) { c.Set(t) }

// coins are those of a chain.
type coins struct{ *chain.Chain }

// All is as rpc.Coins has it.
func (c coins) All(ctx context.Context, yield func(bitcoin.OutPoint, consensus.Coin) error) (bitcoin.Hash, error) {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return bitcoin.Hash{}, err
	}
	defer s.Close()
	return s.Best, s.All(ctx, func(out bitcoin.OutPoint, coin *consensus.Coin) error { return yield(out, *coin) })
}

// blocks returns a chain with 110 blocks without transactions, and one that spends the first of them.
func blocks(t testing.TB) (list []*bitcoin.Block, spending *bitcoin.Tx) {
	g := chaintest.New(t, bitcoin.Regtest())
	list = g.Run("b", 110)
	in := g.Next("in", chaintest.With(chaintest.Spend(1000, g.Coinbase("b.0"))))
	return append(list, in), chaintest.Spend(20_000, g.Coinbase("b.1"))
}

// newAPI returns an API over the blocks, and a server of its methods.
func newAPI(t testing.TB) (*rpc.API, *jsonrpc.Server) {
	t.Helper()
	store, err := blockstore.Open(blockstore.Config{Network: bitcoin.Regtest()})
	if err != nil {
		t.Fatal(err)
	}
	clk := mockClock{clock.NewMock(now)}
	c, err := chain.New(chain.Config{Network: bitcoin.Regtest(), Clock: clk}, store)
	if err != nil {
		t.Fatal(err)
	}
	list, _ := blocks(t)
	for _, b := range list {
		if _, err := c.Add(t.Context(), b, chain.Source{Requested: true, WorkChecked: true}); err != nil {
			t.Fatal(err)
		}
	}
	set, err := index.Open(index.Config{Chain: c, Dir: t.TempDir()},
		index.Wanted{Tx: true, Filters: true, CoinStats: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- set.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-ended
		if err := errors.Join(set.Close(), c.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	for _, x := range set.All() {
		for end := time.Now().Add(30 * time.Second); !x.Wait(ctx); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("an index is not built")
			}
		}
	}
	api := rpc.New(rpc.Config{Chain: c, Clock: clk, Coins: coins{c}, Indexes: set, Stop: func() {}, Started: now,
		P2P: p2p.New(p2p.Config{Chain: c, Clock: clk, ConnectOnly: true, NoListen: true})})
	s := jsonrpc.NewServer(jsonrpc.Config{Credentials: []jsonrpc.Credential{jsonrpc.NewCredential("u", "p")}}, nil)
	api.SetServer(s)
	s.Add(api.Methods())
	s.SetWarmup("")
	return api, s
}

// asker calls a method.
type asker func(method string, params any) (any, error)

// local asks our own server.
func local(t testing.TB, s *jsonrpc.Server) asker {
	return func(method string, params any) (any, error) {
		return s.Call(t.Context(), &jsonrpc.Request{Method: method, Params: params})
	}
}

// askCore asks a Bitcoin Core, which gets the blocks before.
func askCore(t *testing.T) asker {
	u, err := url.Parse(*core)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	c := jsonrpc.Client{User: u.User.Username(), Password: password, URL: "http://" + u.Host + "/"}
	ask := func(method string, params any) (any, error) { return c.Call(t.Context(), method, params) }
	list, _ := blocks(t)
	for _, b := range list {
		if v, err := ask("submitblock", []any{fmt.Sprintf("%x", b.Append(nil))}); err != nil || v != nil {
			t.Fatal(v, err)
		}
	}
	return ask
}

// TestAnswers makes the calls of testdata/answers.txt, whose answers are those of Bitcoin Core, and wants the
// same: every octet of them but for spaces, and for help texts, of which it is the usage. A line that begins with ">" is a method and its parameters, where
// $NAME stands for what vars has; "<" a result, "!" the code and text of an error, "#" a comment.
func TestAnswers(t *testing.T) {
	_, s := newAPI(t)
	ask := local(t, s)
	if *core != "" {
		ask = askCore(t)
	}
	file, err := os.ReadFile(answersFile)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	replace := vars(t)
	lines := strings.Split(strings.TrimRight(string(file), "\n"), "\n")
	for i, line := range lines {
		if line == "" || line[0] == '#' {
			fmt.Fprintln(&out, line)
			continue
		}
		if line[0] != '>' {
			continue
		}
		method, text, _ := strings.Cut(line[2:], " ")
		params, err := jsonrpc.ParseValue([]byte(replace.Replace(text)))
		if err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		v, err := ask(method, params)
		got := "< " + string(jsonrpc.AppendValue(nil, v))
		if e := new(jsonrpc.Error); errors.As(err, &e) {
			// Of a help text the usage counts: what it explains is said in words of our own.
			message, _, _ := strings.Cut(e.Message, "\n\n")
			got = fmt.Sprintf("! %d %q", e.Code, message)
		} else if err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		fmt.Fprintf(&out, "%s\n%s\n", line, got)
		if *core == "" && (i+1 == len(lines) || lines[i+1] != got) {
			want := "nothing"
			if i+1 < len(lines) {
				want = lines[i+1]
			}
			t.Errorf("line %d: %s\ngot  %s\nwant %s", i+1, line, got, want)
		}
	}
	if *core != "" {
		if err := os.WriteFile(answersFile, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// vars are names for what is too long for a table.
func vars(t testing.TB) *strings.Replacer {
	list, spending := blocks(t)
	last := list[len(list)-1]
	hex := func(b []byte) string { return fmt.Sprintf("%x", b) }
	quote := func(s string) string { return `"` + s + `"` }
	return strings.NewReplacer(
		"$BLOCK1", quote(list[0].Hash().String()), "$TIP", quote(last.Hash().String()),
		"$RAWTIP", quote(hex(last.Append(nil))), "$MINED", quote(last.Txs[1].TxID().String()),
		"$RAWMINED", quote(hex(last.Txs[1].Append(nil))), "$POOLED", quote(spending.TxID().String()),
		"$RAWPOOLED", quote(hex(spending.Append(nil))),
		"$COINBASE3", quote(list[2].Txs[0].TxID().String()),
		"$NOHASH", quote(strings.Repeat("00", 31)+"01"),
	)
}

// FuzzCall sends bodies as an HTTP server does: whatever comes, there is an answer, and the server goes on.
func FuzzCall(f *testing.F) {
	for _, s := range []string{`{"method":"getblock","params":["00",1],"id":1}`, `[{"jsonrpc":"2.0","method":"help"}]`,
		`{"method":"createrawtransaction","params":{"inputs":[],"outputs":[{"data":"00"}]},"id":1}`,
		`{"method":"deriveaddresses","params":["wpkh(tpub/0/*)",[0,1]]}`, `{"method":"scantxoutset","params":["start",["raw(51)"]]}`} {
		f.Add([]byte(s))
	}
	_, s := newAPI(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := jsonrpc.ParseValue(b)
		if err != nil {
			return
		}
		r, err := jsonrpc.ParseRequest(v)
		if err != nil || strings.HasPrefix(r.Method, "wait") || strings.HasPrefix(r.Method, "generate") ||
			r.Method == "dumptxoutset" || r.Method == "savemempool" {
			return // they wait, take their time, or write files
		}
		result, err := s.Call(t.Context(), &r)
		if e := new(jsonrpc.Error); errors.As(err, &e) && strings.Contains(e.Message, "Internal bug") {
			t.Errorf("%s: %v", b, err)
		}
		if err == nil {
			jsonrpc.AppendValue(nil, result)
		}
	})
}

// FuzzREST asks for paths.
func FuzzREST(f *testing.F) {
	for _, s := range []string{"chaininfo.json", "block/00.hex", "headers/5/00.bin", "getutxos/checkmempool/00-1.json",
		"blockhashbyheight/3.json", "blockfilter/basic/00.bin", "blockpart/00.bin?offset=1&size=2", "mempool/contents.json"} {
		f.Add(s, []byte(nil))
	}
	api, _ := newAPI(f)
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		resp, ok := api.REST(t.Context(), &http.Request{RequestURI: "/rest/" + path}, body)
		if ok && (resp.Status < 200 || resp.Status > 599) {
			t.Errorf("%q: status %d", path, resp.Status)
		}
	})
}
