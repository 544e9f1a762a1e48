// Command chain measures how fast blocks are connected: Tallypost beside btcd and, where BITCOIND_REF
// names its bitcoind, Bitcoin Core, on the same disk in one run.
//
// The chains are made by package chainfile, once, and kept in a folder. Each import is a process of
// its own, with an empty data directory; the rounds of the contestants are interleaved, and the table
// has medians. btcd is its blockchain package, of the version in test/oracle/go.mod, behind a program
// that reads the same files (test/oracle/btcdimport): its own addblock has no cache of coins. A
// contestant that is absent prints "not measured".
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

var (
	rounds  = flag.Int("rounds", 3, "runs of each contestant and import; that of coins is done once")
	inputs  = flag.Int("inputs", 150_000, "inputs of the chain with scripts")
	coins   = flag.Int("coins", 5_000_000, "coins of the chain with coins")
	spends  = flag.Int("spends", 1_000_000, "spends of these")
	blocks  = flag.Int("blocks", 20, "blocks for the latency; in every other one all is known")
	txs     = flag.Int("txs", 1400, "transactions in each of them")
	cache   = flag.Int("dbcache", 450, "MiB of cache for the chain with scripts")
	small   = flag.Int("small", 32, "MiB of cache for the chain with coins")
	limit   = flag.Duration("limit", 4*time.Minute, "what one run may take")
	jobs    = flag.String("jobs", "scripts,assumevalid,coins,latency", "what to measure")
	quick   = flag.Bool("quick", false, "small chains, one round: to see that it works")
	chains  = flag.String("chains", "", "folder for the chains; empty: one in the user's cache")
	work    = flag.String("dir", "", "folder for data directories; empty: a temporary one")
	profile = flag.String("cpuprofile", "", "file for a profile of Tallypost's last import")
)

func main() {
	flag.Parse()
	run := measure
	switch flag.Arg(0) {
	case "import":
		run = childImport
	case "connect":
		run = childConnect
	case "core":
		run = connectByCore
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-chain:", err)
		os.Exit(1)
	}
}

func measure() (err error) {
	if *quick {
		*rounds, *inputs, *coins, *spends, *blocks, *txs = 1, 5000, 200_000, 50_000, 4, 200
		*small = 8
	}
	if *chains == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		*chains = filepath.Join(dir, "tallypost-bench")
	}
	if *work == "" {
		if *work, err = os.MkdirTemp("", "bench-chain-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(*work)) }()
	}
	all, err := contestants()
	if err != nil {
		return err
	}
	t := table{contestants: all}
	t.head()
	for _, job := range strings.Split(*jobs, ",") {
		f := map[string]func(*table) error{
			"scripts": scripts, "assumevalid": assumeValid, "coins": coinsJob, "latency": latency,
		}[job]
		if f == nil {
			return fmt.Errorf("no job %q", job)
		}
		if err := f(&t); err != nil {
			return fmt.Errorf("%s: %w", job, err)
		}
	}
	for _, note := range t.notes {
		fmt.Println("\n" + note)
	}
	return nil
}
