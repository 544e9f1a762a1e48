// Package bitcoincli is bitcoin-cli: it calls a node, ours or another, from the command line, with the flags,
// the output and the exit codes of Bitcoin Core's program of that name (bitcoin-cli.cpp).
//
// It knows nothing of what methods do, but which of their parameters are JSON.
package bitcoincli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

const (
	clientName = "Bitcoin Core"
	version    = "v30.99.0"
)

// Streams are those of a program.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Terminal bool // Out is one
	// Secret reads a line from In where that is a terminal, which does not show it; else it is nil.
	Secret func() (string, error)
}

// cli is one run of the program.
type cli struct {
	Streams
	in       *bufio.Reader
	o        *options.Options
	net      *bitcoin.Network
	args     []string
	password string // of standard input
}

// commands are what can be asked for beside the methods.
var commands = [...]string{"addrinfo", "generate", "getinfo", "netinfo"}

// Run runs the program and returns its exit code.
func Run(ctx context.Context, args []string, streams Streams) int {
	if streams.In == nil {
		streams.In = strings.NewReader("")
	}
	c := &cli{Streams: streams, in: bufio.NewReader(streams.In), o: options.New(append(options.BitcoinCLI(), "rpcbind"))}
	if done, code := c.configure(args); done {
		return code
	}
	text, err := c.run(ctx)
	var e *jsonrpc.Error
	switch {
	case errors.As(err, &e):
		fmt.Fprintf(c.Err, "error code: %d\nerror message:\n%s\n", e.Code, e.Message)
		return max(int(e.Code), -int(e.Code)) & 0xff
	case err != nil:
		fmt.Fprintf(c.Err, "error: %v\n", err)
		return 1
	}
	if text != "" {
		fmt.Fprintln(c.Out, text)
	}
	return 0
}

// configure reads flags and files. It is done where there is nothing else to do.
func (c *cli) configure(args []string) (done bool, code int) {
	o := c.o
	if err := o.ParseCommandLine(args, true); err != nil {
		fmt.Fprintf(c.Err, "Error parsing command line arguments: %v\n", err)
		return true, 1
	}
	if len(args) == 0 || o.Has("help") || o.Has("h") || o.Has("?") || o.Bool("version", false) {
		fmt.Fprintf(c.Out, "%s RPC client version %s (Tallypost)\n", clientName, version)
		if !o.Bool("version", false) {
			fmt.Fprint(c.Out, usage)
		}
		if len(args) == 0 {
			fmt.Fprintln(c.Err, "Error: too few parameters")
			return true, 1
		}
		return true, 0
	}
	if o.CheckDataDir() != nil {
		fmt.Fprintf(c.Err, "Error: Specified data directory \"%s\" does not exist.\n", o.String("datadir", ""))
		return true, 1
	}
	if err := o.ReadFiles(func(s string) { fmt.Fprintln(c.Err, s) }); err != nil {
		fmt.Fprintf(c.Err, "Error reading configuration file: %v\n", err)
		return true, 1
	}
	name, err := o.Network()
	if err == nil {
		o.UseNetwork(name)
		if c.net, err = bitcoin.NetworkByName(name); err != nil {
			err = fmt.Errorf("Unknown chain %s.", name)
		}
	}
	if err != nil {
		fmt.Fprintf(c.Err, "Error: %v\n", err)
		return true, 1
	}
	return false, 0
}

// run does what is asked and returns what is to be printed.
func (c *cli) run(ctx context.Context) (string, error) {
	c.args = append([]string(nil), c.o.Rest...)
	if err := c.readStdin(); err != nil {
		return "", err
	}
	var chosen []string
	for _, name := range commands {
		if c.o.Has(name) {
			chosen = append(chosen, "-"+name)
		}
	}
	if len(chosen) > 1 {
		return "", fmt.Errorf("Only one of %s may be specified.", strings.Join(chosen, ", "))
	}
	switch {
	case c.o.Bool("getinfo", false):
		return c.getInfo(ctx)
	case c.o.Bool("netinfo", false):
		return c.netInfo(ctx)
	case c.o.Bool("generate", false):
		return c.generate(ctx)
	case c.o.Bool("addrinfo", false):
		return c.addrInfo(ctx)
	case len(c.args) == 0:
		return "", errors.New("too few parameters (need at least command)")
	}
	method, words := c.args[0], c.args[1:]
	var params any
	var err error
	if c.o.Bool("named", false) {
		params, err = named(method, words)
	} else {
		params, err = positional(method, words)
	}
	if err != nil {
		return "", err
	}
	result, err := c.one(ctx, method, params, c.wallet())
	if err != nil {
		return "", err
	}
	return show(result), nil
}

// readStdin reads what is not to stand on a command line, where others may see it.
func (c *cli) readStdin() error {
	line := func(what, prompt string) (string, error) {
		var s string
		var err error
		if c.Secret != nil {
			fmt.Fprint(c.Err, prompt)
			s, err = c.Secret()
			fmt.Fprintln(c.Err)
		} else {
			s, err = c.in.ReadString('\n')
		}
		if err != nil && s == "" {
			return "", fmt.Errorf("%s specified but failed to read from standard input", what)
		}
		return strings.TrimSuffix(s, "\n"), nil
	}
	var err error
	if c.o.Bool("stdinrpcpass", false) {
		if c.password, err = line("-stdinrpcpass", "RPC password> "); err != nil {
			return err
		}
	}
	if c.o.Bool("stdinwalletpassphrase", false) {
		if len(c.args) == 0 || !strings.HasPrefix(c.args[0], "walletpassphrase") {
			return errors.New("-stdinwalletpassphrase is only applicable for walletpassphrase(change)")
		}
		s, err := line("-stdinwalletpassphrase", "Wallet passphrase> ")
		if err != nil {
			return err
		}
		c.args = append([]string{c.args[0], s}, c.args[1:]...)
	}
	if !c.o.Bool("stdin", false) {
		return nil
	}
	for {
		s, err := c.in.ReadString('\n')
		if s != "" || err == nil {
			c.args = append(c.args, strings.TrimSuffix(s, "\n"))
		}
		if err != nil {
			return nil
		}
	}
}

// wallet returns the wallet that is meant, and whether one is.
func (c *cli) wallet() *string {
	if !c.o.Has("rpcwallet") || c.o.Negated("rpcwallet") {
		return nil
	}
	name := c.o.String("rpcwallet", "")
	return &name
}

// Standard returns the streams of the process.
func Standard() Streams {
	s := Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Terminal: term.IsTerminal(int(os.Stdout.Fd()))}
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
		s.Secret = func() (string, error) {
			b, err := term.ReadPassword(in)
			return string(b), err
		}
	}
	return s
}

const usage = `
The bitcoin-cli utility provides a command line interface to interact with a Bitcoin Core RPC server.

It can be used to query network information, create or broadcast transactions, and control the server.

Use the "help" command to list all commands. Use "help <command>" to show help for that command.
The -named option allows you to specify parameters using the key=value format.

Usage: bitcoin-cli [options] <command> [params]
or:    bitcoin-cli [options] -named <command> [name=value]...
or:    bitcoin-cli [options] help
or:    bitcoin-cli [options] help <command>

Options:

  -conf=<file>, -datadir=<dir>, -chain=<chain>, -regtest, -signet, -testnet, -testnet4
  -rpcconnect=<ip>, -rpcport=<port>, -rpcuser=<user>, -rpcpassword=<pw>, -rpccookiefile=<loc>
  -rpcwait, -rpcwaittimeout=<n>, -rpcclienttimeout=<n>, -rpcwallet=<walletname>
  -stdin, -stdinrpcpass, -stdinwalletpassphrase, -color=always|auto|never, -version

CLI Commands:

  -addrinfo    the number of addresses known to the node, per network and total
  -generate    mine blocks to a new address of the node's wallet: [nblocks [maxtries]]
  -getinfo     general information from the node
  -netinfo     a dashboard of the node's peers: [level [outonly]] or "help"
`
