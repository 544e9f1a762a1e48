package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/internal/bitcoind"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
	"github.com/tallypost/tallypost/internal/statusline"
)

// bitcoindCommand is the Bitcoin half alone. Its flags are bitcoind's, so it parses them itself.
func bitcoindCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "bitcoind [flags]",
		Short:              "Run the Bitcoin node alone, with the flags and files of Bitcoin Core's bitcoind",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return exitCode(runBitcoind(cmd.Context(), args))
		},
	}
}

// exitError ends the program with a code, everything having been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func exitCode(code int) error {
	if code == 0 {
		return nil
	}
	return exitError(code)
}

// runBitcoind is bitcoind's main: it returns the exit code.
func runBitcoind(ctx context.Context, args []string) int {
	err := startBitcoind(ctx, args)
	if err == nil {
		return 0
	}
	if errors.Is(err, errDaemon) {
		fmt.Fprintln(os.Stderr, err)
	} else {
		fmt.Fprintln(os.Stderr, bitcoind.Report(err))
	}
	return 1
}

func startBitcoind(ctx context.Context, args []string) error {
	o := options.New(options.Bitcoind())
	if err := o.ParseCommandLine(args, true); err != nil {
		return fmt.Errorf("Error parsing command line arguments: %w", err)
	}
	switch {
	case o.Has("help") || o.Has("h") || o.Has("?"):
		fmt.Print(bitcoindHelp)
		return nil
	case o.Bool("version", false):
		fmt.Print("Bitcoin Core daemon version v30.99.0 bitcoind (Tallypost)\n")
		return nil
	}
	if err := bitcoind.Configure(o, func(s string) { fmt.Fprintln(os.Stderr, s) }); err != nil {
		return err
	}
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			return fmt.Errorf("Command line contains unexpected token '%s', see bitcoind -h for a list of options.", arg)
		}
	}
	cfg, err := bitcoind.FromOptions(o)
	if err != nil {
		return err
	}
	if wait := o.Bool("daemonwait", false); !wait && !o.Bool("daemon", false) {
		cfg.Line = statusline.On(os.Stdout)
	} else {
		parent, ready, err := daemonize(wait)
		if parent {
			return err
		}
		cfg.Ready = ready
	}
	n, err := bitcoind.New(cfg)
	if err != nil {
		return err
	}
	defer reopenLog(n)()
	if err := n.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// reopenLog opens the log's file again at each SIGHUP, for who moves it away now and then, until stop is called.
func reopenLog(n *bitcoind.Node) (stop func()) {
	hangups, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range hangups {
			n.ReopenLog()
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}

const bitcoindHelp = `Bitcoin Core daemon version v30.99.0 bitcoind (Tallypost)

The Bitcoin half of Tallypost, to be used as Bitcoin Core's bitcoind is.

Usage:  bitcoind [options]

All options of Bitcoin Core 30 are accepted on the command line and in bitcoin.conf; those of
parts that this node does not have are without effect. The ones of every day:

Options:

  -datadir=<dir>      data directory (default: ~/.bitcoin)
  -conf=<file>        configuration file (default: bitcoin.conf in the data directory)
  -chain=<chain>      main, test, testnet4, signet or regtest; also -testnet4, -signet, -regtest
  -listen, -bind=<addr>[:<port>][=onion], -whitebind=<perms@addr:port>, -port=<port>
  -connect=<ip>, -addnode=<ip>, -seednode=<ip>, -dnsseed, -proxy=<ip:port>, -onion=<ip:port>
  -listenonion, -torcontrol=<ip:port>, -torpassword=<pw>
  -maxconnections=<n>, -blocksonly, -v2transport, -whitelist=<perms@subnet>
  -server, -rpcport=<port>, -rpcbind=<addr>, -rpcallowip=<ip>, -rpcauth=<userpw>,
  -rpcuser=<user>, -rpcpassword=<pw>, -rpccookiefile=<file>
  -rest, -txindex, -blockfilterindex, -peerblockfilters, -coinstatsindex
  -zmqpubhashblock=<address>, -zmqpubhashtx, -zmqpubrawblock, -zmqpubrawtx, -zmqpubsequence, ...hwm=<n>
  -daemon, -daemonwait (leave the terminal, the latter once calls are answered), -pid=<file>
  -startupnotify=<cmd>, -shutdownnotify=<cmd>, -blocknotify=<cmd>, -alertnotify=<cmd>
  -debug=<category>, -debugexclude=<category>, -loglevel=[<category>:]<level>, -printtoconsole,
  -debuglogfile=<file>, -logratelimit, -settings=<file>, -fixedseeds
  -dbcache=<MiB>, -prune=<n>, -reindex, -reindex-chainstate, -loadblock=<file>, -blocksdir=<dir>,
  -assumevalid=<hex>, -stopatheight=<n>, -checkblocks=<n>, -checklevel=<n>
  -maxmempool=<MB>, -minrelaytxfee=<amt>, -datacarriersize=<n>, -acceptnonstdtxn
`
