package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/internal/web"
)

// TestBitcoinConfig breaks one thing a row of the section, and wants it named.
func TestBitcoinConfig(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`mode = "lite"`, `bitcoin.mode: "lite" is none of off, external, headers, pruned, full`},
		{`network = "mainnet"`, `bitcoin.network: "mainnet" is none of`},
		{`prune = 100`, "bitcoin.prune: 100: a node needs 550 MiB"},
		{`cache = 1`, "bitcoin.cache: 1"},
		{`url = "127.0.0.1:8332"`, "bitcoin.url: want http://host:port/"},
		{`url = "http://u:p@127.0.0.1:8332"`, "bitcoin.url: want http://host:port/"},
		{`user = "u"`, "bitcoin: user and password go together"},
		{`options = ["datadir=/x"]`, `bitcoin.options: "datadir=/x": that is decided by the keys`},
		{`options = ["-noprune"]`, `bitcoin.options: "-noprune": that is decided by the keys`},
		{"mode = \"full\"\noptions = [\"frob=1\"]", "bitcoin: Invalid parameter -frob=1"},
		{"mode = \"headers\"\noptions = [\"txindex=1\"]", "bitcoin: -headersonly keeps no blocks"},
	} {
		if _, err := load(t, small+"[bitcoin]\n"+c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s", c.text, err, c.want)
		}
	}
	cfg, err := load(t, small+"[bitcoin]\nmode = \"pruned\"\nnetwork = \"signet\"")
	if err != nil || cfg.Bitcoin.DataDir != filepath.Join(cfg.DataDir, "bitcoin") ||
		cfg.Bitcoin.URL != "http://127.0.0.1:38332/" {
		t.Errorf("%+v, %v", cfg.Bitcoin, err)
	}
}

// fakeBitcoind answers as its fields say.
type fakeBitcoind struct {
	network *bitcoin.Network
	header  string // of the tip
	initial bool
	warming string
}

func (f *fakeBitcoind) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var call struct{ Method string }
	json.NewDecoder(r.Body).Decode(&call)
	if user, password, _ := r.BasicAuth(); user != "__cookie__" || password != "secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if f.warming != "" {
		fmt.Fprintf(w, `{"result":null,"error":{"code":-28,"message":%q}}`, f.warming)
		return
	}
	tip := f.network.Genesis.Hash().String()
	switch call.Method {
	case "getblockhash":
		fmt.Fprintf(w, `{"result":%q}`, tip)
	case "getblockchaininfo":
		fmt.Fprintf(w, `{"result":{"chain":"x","blocks":7,"headers":9,"bestblockhash":%q,"verificationprogress":0.5,`+
			`"initialblockdownload":%v}}`, tip, f.initial)
	case "getnetworkinfo":
		fmt.Fprint(w, `{"result":{"subversion":"/Satoshi:30.0.0/","connections":4}}`)
	case "getblockheader":
		fmt.Fprintf(w, `{"result":%q}`, f.header)
	default:
		fmt.Fprint(w, `{"error":{"code":-32601,"message":"Method not found"}}`)
	}
}

// TestExternal asks a bitcoind that is well, at work, on its way up, of another network, and one that lies.
func TestExternal(t *testing.T) {
	genesis := func(n *bitcoin.Network) string {
		b := n.Genesis.Header.Bytes()
		return hex.EncodeToString(b[:])
	}
	main, signet := bitcoin.Mainnet(), bitcoin.Signet()
	for _, c := range []struct {
		name   string
		node   *fakeBitcoind
		cookie string
		state  string
		words  string // of Doing or Error
	}{
		{"ready", &fakeBitcoind{network: main, header: genesis(main)}, "__cookie__:secret", web.BitcoinReady, ""},
		{"syncing", &fakeBitcoind{network: main, header: genesis(main), initial: true}, "__cookie__:secret\n",
			web.BitcoinSyncing, "bitcoind synchronizes  50.0%  height 7 of 9"},
		{"warming up", &fakeBitcoind{network: main, warming: "Verifying blocks…"}, "__cookie__:secret",
			web.BitcoinStarting, "Verifying blocks…"},
		{"another network", &fakeBitcoind{network: signet, header: genesis(signet)}, "__cookie__:secret",
			web.BitcoinFailed, "it is of another network than bitcoin.network = \"main\" says"},
		{"another header", &fakeBitcoind{network: main, header: genesis(signet)}, "__cookie__:secret",
			web.BitcoinFailed, "is another or has no proof of work"},
		{"no header", &fakeBitcoind{network: main, header: "00"}, "__cookie__:secret", web.BitcoinFailed, "the header of its tip"},
		{"wrong cookie", &fakeBitcoind{network: main}, "__cookie__:old", web.BitcoinFailed, "Authorization failed"},
		{"no cookie", &fakeBitcoind{network: main}, "", web.BitcoinFailed, "does bitcoind run"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.node)
			defer s.Close()
			cfg := defaultBitcoin()
			cfg.Mode, cfg.URL, cfg.Cookie = bitcoinExternal, s.URL, filepath.Join(t.TempDir(), "cookie")
			if c.cookie != "" {
				if err := os.WriteFile(cfg.Cookie, []byte(c.cookie), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			x, err := newExternal(cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if got := x.Status().State; got != web.BitcoinStarting {
				t.Errorf("before it runs: %s", got)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- x.Run(ctx) }()
			got := waitStatus(t, x, c.state)
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if words := got.Doing + got.Error; !strings.Contains(words, c.words) || got.Mode != "external" {
				t.Errorf("%+v, want %q", got, c.words)
			}
			if c.name == "ready" && (got.Height != 7 || got.Peers != 4 || got.Node != "/Satoshi:30.0.0/" ||
				got.Tip != main.Genesis.Hash().String() || got.TipTime.Unix() != int64(main.Genesis.Header.Time)) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// waitStatus waits until a half is in a state, and tells something where that says what it is at.
func waitStatus(t *testing.T, h half, state string) web.BitcoinStatus {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s := h.Status()
		if s.State == state && (state != web.BitcoinStarting || s.Doing != "") {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("state %+v, want %s", s, state)
		}
	}
}
