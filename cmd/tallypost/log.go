package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/bridge/eventlog"
)

func logCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "log", Short: "The tamper-evident log of mail events"}
	config := configFlag(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:   "checkpoint",
		Short: "Print the signed checkpoint of the log (C2SP tlog-checkpoint)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printAnswer(cmd, *config, "/v1/log/checkpoint", nil)
		},
	}, &cobra.Command{
		Use:   "key",
		Short: "Print the key that the log's checkpoints are verified with",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printAnswer(cmd, *config, "/v1/log/key", nil)
		},
	}, &cobra.Command{
		Use:   "prove INDEX",
		Short: "Print the proof that an entry is in the log (C2SP tlog-proof)",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return printAnswer(cmd, *config, "/v1/log/proof", url.Values{"index": {args[0]}})
		},
	}, logAudit(config))
	return cmd
}

// printAnswer prints what the running node answers.
func printAnswer(cmd *cobra.Command, config, path string, query url.Values) error {
	client, err := dialNode(config)
	if err != nil {
		return err
	}
	b, err := client.Do(cmd.Context(), http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(b)
	return err
}

func logAudit(config *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Verify the whole log: entries, tiles, root, checkpoint, and each event it commits to",
		Args:  cobra.NoArgs,
	}
	asJSON := cmd.Flags().Bool("json", false, "for a machine")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var a eventlog.Audit
		if err := ask(cmd, *config, http.MethodGet, "/v1/log/audit", nil, nil, &a); err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if *asJSON {
			b, err := json.MarshalIndent(a, "", "  ")
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%s\n", b)
		} else {
			fmt.Fprintf(w, "%s: %d entries, root %v\n%d events verified, %d erased, %d messages under legal hold\n",
				a.Origin, a.Size, a.Root, a.Private, a.Erased, a.Held)
		}
		for _, p := range a.Problems {
			fmt.Fprintln(cmd.ErrOrStderr(), "problem:", p)
		}
		if len(a.Problems) > 0 {
			return errors.New("the log is damaged or was tampered with")
		}
		return nil
	}
	return cmd
}
