package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "queue", Short: "See and steer the mail that waits"}
	config := configFlag(cmd)
	cmd.AddCommand(queueList(config), queueShow(config), queueStats(config))
	for name, short := range map[string]string{
		"retry":   "Try now",
		"hold":    "Keep from being tried until released",
		"release": "End a hold",
		"drop":    "Remove without any report to the sender",
	} {
		cmd.AddCommand(queueAct(config, name, short))
	}
	return cmd
}

// selectorFlags adds the flags that pick recipients, and returns what makes a Selector of them and of an
// ID given as argument.
func selectorFlags(cmd *cobra.Command) func(args []string) (queue.Selector, error) {
	sender := cmd.Flags().String("sender", "", "messages from this address; <> for reports")
	recipient := cmd.Flags().String("recipient", "", "this recipient")
	destination := cmd.Flags().String("destination", "", "recipients of this domain")
	state := cmd.Flags().String("state", "", "due, active, deferred or held")
	all := cmd.Flags().Bool("all", false, "everything")
	return func(args []string) (sel queue.Selector, err error) {
		sel.State, sel.All = queue.State(*state), *all
		switch sel.State {
		case "", queue.StateDue, queue.StateActive, queue.StateDeferred, queue.StateHeld:
		default:
			return sel, usageError{fmt.Errorf("state %q: want due, active, deferred or held", sel.State)}
		}
		if len(args) > 0 {
			if sel.ID, err = mail.ParseID(args[0]); err != nil {
				return sel, usageError{err}
			}
		}
		if *sender != "" {
			sel.Sender = new(mail.Address)
			if err := sel.Sender.UnmarshalText([]byte(strings.TrimSuffix(strings.TrimPrefix(*sender, "<"), ">"))); err != nil {
				return sel, usageError{err}
			}
		}
		if *recipient != "" {
			sel.Recipient = new(mail.Address)
			if err := sel.Recipient.UnmarshalText([]byte(*recipient)); err != nil {
				return sel, usageError{err}
			}
		}
		if *destination != "" {
			if sel.Destination, err = mail.ParseDomain(*destination); err != nil {
				return sel, usageError{err}
			}
		}
		return sel, nil
	}
}

func queueAct(config *string, name, short string) *cobra.Command {
	cmd := &cobra.Command{Use: name + " [ID]", Short: short, Args: cobra.MaximumNArgs(1)}
	pick := selectorFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		sel, err := pick(args)
		if err != nil {
			return err
		}
		var n int
		if err := ask(cmd, *config, http.MethodPost, "/v1/queue/"+name, nil, sel, &n); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", name, plural(n, "recipient"))
		return nil
	}
	return cmd
}

func queueList(config *string) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List messages, oldest first", Args: cobra.NoArgs}
	pick := selectorFlags(cmd)
	limit := cmd.Flags().Int("limit", 100, "most messages; 0 is all")
	asJSON := cmd.Flags().Bool("json", false, "for a machine")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		sel, err := pick(nil)
		if err != nil {
			return err
		}
		var list []queue.Message
		query := url.Values{"limit": {strconv.Itoa(*limit)}}
		if err := ask(cmd, *config, http.MethodPost, "/v1/queue/list", query, sel, &list); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		if len(list) == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), "nothing waits")
		}
		for _, m := range list {
			printMessage(cmd.OutOrStdout(), m)
		}
		return nil
	}
	return cmd
}

func queueShow(config *string) *cobra.Command {
	cmd := &cobra.Command{Use: "show ID", Short: "Show a message and all that happened to it",
		Args: cobra.ExactArgs(1)}
	asJSON := cmd.Flags().Bool("json", false, "for a machine")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var m queue.Message
		if err := ask(cmd, *config, http.MethodGet, "/v1/queue/show/"+url.PathEscape(args[0]), nil, nil, &m); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), m)
		}
		printMessage(cmd.OutOrStdout(), m)
		printHistory(cmd.OutOrStdout(), m)
		return nil
	}
	return cmd
}

func queueStats(config *string) *cobra.Command {
	return &cobra.Command{Use: "stats", Short: "The queue in numbers, as JSON", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s queue.Stats
			if err := ask(cmd, *config, http.MethodGet, "/v1/queue/stats", nil, nil, &s); err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), s)
		}}
}

func traceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace ID|MESSAGE-ID|ADDRESS",
		Short: "Every step of a message, in the words of whoever decided it",
		Args:  cobra.ExactArgs(1),
	}
	config := configFlag(cmd)
	limit := cmd.Flags().Int("limit", 10, "most messages, newest first")
	asJSON := cmd.Flags().Bool("json", false, "for a machine")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var list []queue.Message
		query := url.Values{"what": {args[0]}, "limit": {strconv.Itoa(*limit)}}
		if err := ask(cmd, *config, http.MethodGet, "/v1/trace", query, nil, &list); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		if len(list) == 0 {
			return fmt.Errorf("%s: nothing is known of it (history is kept for 30 days after delivery)", args[0])
		}
		for _, m := range list {
			printMessage(cmd.OutOrStdout(), m)
			printHistory(cmd.OutOrStdout(), m)
		}
		return nil
	}
	return cmd
}

// ask sends a request to the running node and decodes the answer.
func ask(cmd *cobra.Command, config, method, path string, query url.Values, body, into any) error {
	client, err := dialNode(config)
	if err != nil {
		return err
	}
	b, err := client.Do(cmd.Context(), method, path, query, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

func printMessage(to io.Writer, m queue.Message) {
	w := shown{to}
	fmt.Fprintf(w, "%s  %s  %d octets  from <%s>  log #%d\n",
		m.ID, m.Arrived.Local().Format(time.DateTime), m.Size, m.Envelope.From, m.Index)
	for _, r := range m.Recipients {
		fmt.Fprintf(w, "    <%s> %s", r.Address, r.State)
		if r.State == queue.StateDeferred {
			fmt.Fprintf(w, " until %s, %s so far", r.Due.Local().Format(time.DateTime), plural(r.Attempts, "attempt"))
		}
		if r.Last != nil && r.Last.Reply != "" {
			fmt.Fprintf(w, ": %s", indent(r.Last.Reply))
		}
		fmt.Fprintln(w)
	}
}

func printHistory(to io.Writer, m queue.Message) {
	w := shown{to}
	if p := m.Accepted.Peer; p != nil {
		fmt.Fprintf(w, "    %s accepted from %s\n", m.Arrived.Local().Format(time.DateTime), peerWords(p))
	}
	if m.Accepted.Note != "" {
		fmt.Fprintf(w, "        %s\n", m.Accepted.Note)
	}
	for _, a := range m.Attempts {
		fmt.Fprintf(w, "    %s %s %s", a.Time.Local().Format(time.DateTime), a.Route, a.Outcome)
		if a.Count > 1 {
			fmt.Fprintf(w, " (%d times, last %s)", a.Count, a.Last.Local().Format(time.DateTime))
		}
		if a.Peer != nil {
			fmt.Fprintf(w, " by %s", peerWords(a.Peer))
		}
		fmt.Fprintf(w, "\n        %s\n", indent(a.Reply))
	}
}

func peerWords(p *mail.Peer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s [%s]", p.Name, p.Addr)
	if p.Account != "" {
		fmt.Fprintf(&b, " as %s", p.Account)
	}
	if p.TLSVersion != "" {
		fmt.Fprintf(&b, " over %s %s", p.TLSVersion, p.Cipher)
	}
	return b.String()
}

func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n        ") }
