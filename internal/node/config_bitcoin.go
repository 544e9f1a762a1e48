package node

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
)

// Modes of the Bitcoin half.
const (
	bitcoinOff      = "off"
	bitcoinExternal = "external"
	bitcoinHeaders  = "headers"
	bitcoinPruned   = "pruned"
	bitcoinFull     = "full"
)

// Bitcoin says which Bitcoin node there is beside the mail server. Nothing of the mail depends on it.
type Bitcoin struct {
	Mode    string `toml:"mode" comment:"off; external: a bitcoind of yours; headers: the chain of headers alone, in little memory; pruned: everything is verified, the last blocks are kept; full: everything is kept"`
	Network string `toml:"network" comment:"main, test, testnet4, signet or regtest"`
	// Those of our own node.
	DataDir string   `toml:"data_dir" comment:"of headers, pruned and full; empty: bitcoin in data_dir; a bitcoin.conf there is read"`
	Prune   int      `toml:"prune" comment:"MiB that the blocks of pruned may take, 550 at least"`
	Cache   int      `toml:"cache" comment:"MiB for coins and databases of pruned and full"`
	Options []string `toml:"options" comment:"further ones of bitcoind, as \"maxconnections=20\""`
	// Those of somebody else's.
	URL      string `toml:"url" comment:"of external; empty: http://127.0.0.1 and the port of the network"`
	Cookie   string `toml:"cookie" comment:"file of external's cookie; empty: that of ~/.bitcoin, unless there are user and password"`
	User     string `toml:"user"`
	Password string `toml:"password" comment:"so keep this file from others' eyes"`
}

func defaultBitcoin() Bitcoin {
	return Bitcoin{Mode: bitcoinOff, Network: "main", Prune: 2000, Cache: 450}
}

// ours reports whether the node is one that we run.
func (b *Bitcoin) ours() bool {
	return b.Mode == bitcoinHeaders || b.Mode == bitcoinPruned || b.Mode == bitcoinFull
}

// decidedHere are options of bitcoind that have a key of their own, or make no sense inside the house.
var decidedHere = []string{"datadir", "chain", "regtest", "signet", "testnet", "testnet4", "prune", "dbcache",
	"headersonly", "daemon", "daemonwait", "printtoconsole", "conf", "help", "h", "?", "version"}

// validateBitcoin reports what is wrong with the section, and fills in what follows from other settings.
func (c *Config) validateBitcoin(bad func(format string, args ...any)) {
	b := &c.Bitcoin
	modes := []string{bitcoinOff, bitcoinExternal, bitcoinHeaders, bitcoinPruned, bitcoinFull}
	if !slices.Contains(modes, b.Mode) {
		bad("bitcoin.mode: %q is none of %s", b.Mode, strings.Join(modes, ", "))
	}
	network, err := bitcoin.NetworkByName(b.Network)
	if err != nil {
		bad("bitcoin.network: %q is none of main, test, testnet4, signet and regtest", b.Network)
		return
	}
	if b.Prune < 550 {
		bad("bitcoin.prune: %d: a node needs 550 MiB at least; for all blocks set mode to full", b.Prune)
	}
	if b.Cache < 4 {
		bad("bitcoin.cache: %d: want 4 MiB at least", b.Cache)
	}
	if b.DataDir == "" {
		b.DataDir = filepath.Join(c.DataDir, "bitcoin")
	}
	if b.URL == "" {
		b.URL = fmt.Sprintf("http://127.0.0.1:%d/", network.RPCPort)
	}
	if u, err := url.Parse(b.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" ||
		u.User != nil {
		bad("bitcoin.url: want http://host:port/; name and password are user and password")
	}
	if (b.User == "") != (b.Password == "") {
		bad("bitcoin: user and password go together")
	}
	for _, o := range b.Options {
		name, _, _ := strings.Cut(strings.TrimLeft(o, "-"), "=")
		if slices.Contains(decidedHere, name) || slices.Contains(decidedHere, strings.TrimPrefix(name, "no")) {
			bad("bitcoin.options: %q: that is decided by the keys of this section", o)
		}
	}
	if b.ours() {
		if _, err := b.options(); err != nil {
			bad("bitcoin: %w", err)
		}
	}
}
