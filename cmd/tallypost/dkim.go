package main

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/node"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/keyring"
)

func dkimCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "dkim", Short: "Make, list and rotate the keys that sign outgoing mail"}
	config := configFlag(cmd)
	cmd.AddCommand(dkimCreate(config), dkimRotate(config), dkimList(config), dkimRemove(config))
	return cmd
}

// openRing opens the keys of the node that a configuration file describes, and reads a domain of
// its.
func openRing(config, domain string) (*keyring.Ring, mail.Domain, error) {
	cfg, err := node.Load(config)
	if err != nil {
		return nil, "", err
	}
	d, err := mail.ParseDomain(domain)
	if err != nil {
		return nil, "", usageError{err}
	}
	ring, err := node.OpenRing(cfg, new(dns.Zone), clock.Real{}, slog.New(slog.DiscardHandler))
	return ring, d, err
}

func dkimCreate(config *string) *cobra.Command {
	return &cobra.Command{
		Use:   "create DOMAIN",
		Short: "Make a domain's first keys and print the DNS records to publish",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, d, err := openRing(*config, args[0])
			if err != nil {
				return err
			}
			if n := len(ring.Keys(d)); n > 0 {
				return fmt.Errorf("%s has %s already: `tallypost dkim list %[1]s` shows them, `tallypost dkim rotate "+
					"%[1]s` makes new ones", d, plural(n, "key"))
			}
			return makeKeys(cmd.OutOrStdout(), ring, d)
		},
	}
}

func dkimRotate(config *string) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate DOMAIN",
		Short: "Make new keys; the node changes over once their records are in the DNS",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, d, err := openRing(*config, args[0])
			if err != nil {
				return err
			}
			return makeKeys(cmd.OutOrStdout(), ring, d)
		},
	}
}

func makeKeys(w io.Writer, ring *keyring.Ring, d mail.Domain) error {
	keys, err := ring.Create(d)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "; publish in the zone of %s; a running node signs with them once it sees them\n", d.ASCII())
	for _, k := range keys {
		line, err := k.Line()
		if err != nil {
			return err
		}
		fmt.Fprintln(w, line)
	}
	return nil
}

// shownKey is a key without its private half.
type shownKey struct {
	Domain    mail.Domain `json:"domain"`
	Selector  string      `json:"selector"`
	Algorithm string      `json:"algorithm"`
	Created   time.Time   `json:"created"`
	Status    string      `json:"status"`
	Record    string      `json:"record"`
	keyring.State
}

func shownKeys(ring *keyring.Ring, domains []string) ([]shownKey, error) {
	list := []shownKey{}
	for _, name := range domains {
		d, err := mail.ParseDomain(name)
		if err != nil {
			return nil, err
		}
		for _, k := range ring.Keys(d) {
			line, err := k.Line()
			if err != nil {
				return nil, err
			}
			list = append(list, shownKey{k.Domain, k.Selector, k.Algorithm, k.Created, k.Status(), line,
				k.State})
		}
	}
	return list, nil
}

func dkimList(config *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [DOMAIN]",
		Short: "List keys and what they do, newest first",
		Args:  cobra.MaximumNArgs(1),
	}
	asJSON := cmd.Flags().Bool("json", false, "for a machine")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := node.Load(*config)
		if err != nil {
			return err
		}
		domains := cfg.Domains
		if len(args) > 0 {
			domains = args
		}
		ring, _, err := openRing(*config, domains[0])
		if err != nil {
			return err
		}
		list, err := shownKeys(ring, domains)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		for _, k := range list {
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  made %s  %s\n", k.Domain, k.Selector,
				k.Created.Local().Format(time.DateTime), printable(k.Status))
		}
		return nil
	}
	return cmd
}

func dkimRemove(config *string) *cobra.Command {
	return &cobra.Command{
		Use:   "remove DOMAIN SELECTOR",
		Short: "Delete a key that signs no more; its record may go as well",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, d, err := openRing(*config, args[0])
			if err != nil {
				return err
			}
			return ring.Remove(d, args[1])
		},
	}
}
