package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/bridge/evidence"
)

func evidenceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "evidence", Short: "Proof of one message, for a third party"}
	config := configFlag(cmd)
	export := &cobra.Command{
		Use:   "export ID",
		Short: "Write the evidence file of a message: the message, its events, and their places in the log",
		Args:  cobra.ExactArgs(1),
	}
	out := export.Flags().StringP("output", "o", "", "file to write")
	message := export.Flags().String("message", "", "a copy of the message, where the node has none any more")
	export.RunE = func(cmd *cobra.Command, args []string) error {
		if *out == "" {
			return usageError{errors.New("evidence export: name the file to write with -o")}
		}
		var copyOf []byte
		if *message != "" {
			var err error
			if copyOf, err = os.ReadFile(*message); err != nil {
				return err
			}
		}
		client, err := dialNode(*config)
		if err != nil {
			return err
		}
		b, err := client.Do(cmd.Context(), http.MethodPost, "/v1/evidence/"+args[0], nil, bytes.NewReader(copyOf))
		if err != nil {
			return err
		}
		if err := os.WriteFile(*out, b, 0o600); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %d octets; anyone verifies it with: tallypost verify %[1]s\n", *out, len(b))
		return nil
	}
	cmd.AddCommand(export)
	return cmd
}

func verifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check an evidence file, offline, and say what it proves and what not",
		Args:  cobra.ExactArgs(1),
	}
	key := cmd.Flags().String("key", "", "the log's key, from a source you trust (tallypost log key)")
	asJSON := cmd.Flags().Bool("json", false, "for a machine")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, evidence.DefaultMaxBytes+1))
		if err != nil {
			return err
		}
		report, err := evidence.Verify(b, evidence.Options{Key: *key})
		if err != nil {
			return fmt.Errorf("%s: NOT VERIFIED: %w", args[0], err)
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), report)
		}
		fmt.Fprint(cmd.OutOrStdout(), report)
		return nil
	}
	return cmd
}
