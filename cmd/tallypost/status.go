package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/internal/web"
	"github.com/tallypost/tallypost/mail/queue"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "How both halves of the running node are",
		Args:  cobra.NoArgs,
	}
	config := configFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "for a machine")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var s struct {
			Queue   queue.Stats       `json:"queue"`
			Bitcoin web.BitcoinStatus `json:"bitcoin"`
		}
		if err := ask(cmd, *config, http.MethodGet, "/v1/queue/stats", nil, nil, &s.Queue); err != nil {
			return err
		}
		if err := ask(cmd, *config, http.MethodGet, "/v1/bitcoin", nil, nil, &s.Bitcoin); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), s)
		}
		w := shown{cmd.OutOrStdout()}
		fmt.Fprintf(w, "mail: %s in the queue", plural(s.Queue.Messages, "message"))
		if !s.Queue.Oldest.IsZero() {
			fmt.Fprintf(w, ", the oldest of %s", s.Queue.Oldest.Local().Format(time.DateTime))
		}
		fmt.Fprintf(w, "\nbitcoin: %s\n", bitcoinWords(&s.Bitcoin))
		return nil
	}
	return cmd
}

// bitcoinWords tells of the Bitcoin half in one line.
func bitcoinWords(s *web.BitcoinStatus) string {
	switch s.State {
	case web.BitcoinOff:
		return "off"
	case web.BitcoinFailed:
		return s.Mode + ", failed: " + s.Error
	}
	words := fmt.Sprintf("%s, %s, %s", s.Mode, s.Network, s.State)
	if s.Doing != "" {
		words += ": " + s.Doing
	}
	if s.Tip != "" {
		words += fmt.Sprintf("; height %d, %s, of %s, %s", s.Height, s.Tip, s.TipTime.Local().Format(time.DateTime),
			plural(s.Peers, "peer"))
	}
	return words
}
