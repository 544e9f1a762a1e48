package main

import (
	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/internal/bitcoincli"
)

// bitcoinCLICommand calls a node, ours or another. Its flags are bitcoin-cli's.
func bitcoinCLICommand() *cobra.Command {
	return &cobra.Command{
		Use:                "bitcoin-cli [flags] METHOD [ARGS]",
		Short:              "Call a Bitcoin node as Bitcoin Core's bitcoin-cli does",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return exitCode(bitcoincli.Run(cmd.Context(), args, bitcoincli.Standard()))
		},
	}
}
