// Command tallypost is a mail server, a Bitcoin node and the bridges between them in one program.
//
// Each subcommand has a file of its own. The program exits with 0 on success, 1 on failure and 2 where the
// command line was wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tallypost/tallypost/internal/bitcoincli"
)

func main() { os.Exit(run()) }

// run is main with an exit code; the story tests call it in processes of their own.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch filepath.Base(os.Args[0]) {
	case "bitcoind":
		return runBitcoind(ctx, os.Args[1:])
	case "bitcoin-cli":
		return bitcoincli.Run(ctx, os.Args[1:], bitcoincli.Standard())
	}
	err := rootCommand().ExecuteContext(ctx)
	var usage usageError
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command"): // cobra has no type for it
		fmt.Fprintf(shown{os.Stderr}, "tallypost: %v\nTry `tallypost --help`.\n", err)
		return 2
	}
	fmt.Fprintf(shown{os.Stderr}, "tallypost: %v\n", err)
	return 1
}
