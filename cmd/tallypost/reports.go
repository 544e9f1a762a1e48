package main

import (
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/node"
	"github.com/tallypost/tallypost/mail/reporting"
)

func reportsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "reports", Short: "What other servers report of our mail (DMARC) and of our TLS (TLSRPT)"}
	config := configFlag(cmd)
	cmd.AddCommand(reportsList(config), reportsShow(config))
	return cmd
}

// readReports reads the reports that the node of a configuration file has received.
func readReports(config string) ([]reporting.Received, error) {
	cfg, err := node.Load(config)
	if err != nil {
		return nil, err
	}
	return node.OpenInbox(cfg, clock.Real{}).List()
}

func reportsList(config *string) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List reports, newest first", Args: cobra.NoArgs}
	asJSON := cmd.Flags().Bool("json", false, "for a machine, with all there is")
	limit := cmd.Flags().Int("limit", 50, "most reports; 0 is all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		list, err := readReports(*config)
		if err != nil {
			return err
		}
		if *limit > 0 {
			list = list[:min(*limit, len(list))]
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), append([]reporting.Received{}, list...))
		}
		if len(list) == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), "no report: reports.receive names the addresses for them, and "+
				"`tallypost dns` prints the records that ask for them")
		}
		for _, r := range list {
			printReport(cmd.OutOrStdout(), r)
		}
		return nil
	}
	return cmd
}

func printReport(w io.Writer, r reporting.Received) {
	at := r.At.Local().Format(time.DateTime)
	if r.Error != "" {
		fmt.Fprintf(w, "%s  %s  to %s cannot be read: %s\n", r.ID, at, r.To, printable(r.Error))
		return
	}
	good, bad := "pass", "fail"
	if r.Kind == "tls" {
		good, bad = "with TLS", "failed"
	}
	fmt.Fprintf(w, "%s  %s  %s of %s about %s, %s: %d %s, %d %s", r.ID, at, r.Kind, printable(r.Org),
		printable(r.Domain), r.Begin.UTC().Format(time.DateOnly), r.Good, good, r.Bad, bad)
	if len(r.Vouched) == 0 {
		fmt.Fprint(w, "  (nobody vouches for the sender)")
	}
	fmt.Fprintln(w)
}

func reportsShow(config *string) *cobra.Command {
	return &cobra.Command{Use: "show ID", Short: "Show what a report says", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := readReports(*config)
			if err != nil {
				return err
			}
			for _, r := range list {
				if !strings.EqualFold(r.ID, args[0]) {
					continue
				}
				w := cmd.OutOrStdout()
				printReport(w, r)
				for _, d := range r.Details {
					fmt.Fprintf(w, "    %6d  %-24s %s\n", d.Count, printable(d.Source), printable(d.Words))
				}
				for _, note := range r.Notes {
					fmt.Fprintf(w, "    note: %s\n", printable(note))
				}
				if len(r.Vouched) > 0 {
					fmt.Fprintf(w, "    sent by %s\n", printable(strings.Join(r.Vouched, ", ")))
				}
				return nil
			}
			return fmt.Errorf("no report %s", args[0])
		}}
}

// printable shows what a stranger wrote: nothing of it steers the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e ||
			r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}

// lines are the lines of a text without their ends.
func lines(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(s) {
			if !yield(strings.TrimRight(line, "\r\n")) {
				return
			}
		}
	}
}
