package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/internal/node"
	"github.com/tallypost/tallypost/internal/web"
)

// usageError is a command line that makes no sense.
type usageError struct{ error }

// rootCommand returns the tree of subcommands.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "tallypost",
		Short:         "Mail server with a log that anyone can verify, and the Bitcoin node that anchors it",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		demoCommand(), serveCommand(), configCommand(), accountCommand(), aliasCommand(),
		queueCommand(), traceCommand(), logCommand(), evidenceCommand(), verifyCommand(),
		statusCommand(), bitcoindCommand(), bitcoinCLICommand(),
		dkimCommand(), dnsCommand(), reportsCommand(),
	)
	for _, c := range root.Commands() {
		wrapArgs(c)
	}
	return root
}

// group makes a command that has only others below it say which word it does not know; without one it
// prints its help.
func group(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())}
		}
		return cmd.Help()
	}
}

// wrapArgs makes a wrong number of arguments or an unknown word a usageError, for c and what is below it.
func wrapArgs(c *cobra.Command) {
	if c.HasSubCommands() && !c.Runnable() {
		group(c)
	}
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

// configFlag adds --config, which every command that concerns a node has.
func configFlag(cmd *cobra.Command) *string {
	return cmd.PersistentFlags().StringP("config", "c", "tallypost.toml", "configuration file")
}

// dialNode returns a client of the running node that a configuration file describes.
func dialNode(config string) (*web.Client, error) {
	cfg, err := node.Load(config)
	if err != nil {
		return nil, err
	}
	return web.NewClient(cfg.DataDir), nil
}

// printJSON writes v for a machine, indented for a person who looks all the same.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// plural returns "1 message", "2 messages".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
