package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/internal/node"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/records"
	"github.com/tallypost/tallypost/mail/tlspolicy"
)

// checkTimeout bounds all look-ups of dns --check.
const checkTimeout = time.Minute

func dnsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dns DOMAIN",
		Short: "Print the DNS records that a domain's mail needs, or check those that are there",
		Args:  cobra.ExactArgs(1),
	}
	config := configFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "for a machine")
	check := cmd.Flags().Bool("check", false, "ask the DNS, as other servers do, whether they do their work")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := node.Load(*config)
		if err != nil {
			return err
		}
		domain, err := mail.ParseDomain(args[0])
		if err != nil {
			return usageError{err}
		}
		keys, err := node.OpenKeys(cfg, new(dns.Zone), clock.Real{}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		site, err := node.Site(cfg, domain, keys)
		if err != nil {
			return err
		}
		list, err := site.Records()
		switch {
		case err != nil:
			return err
		case *check:
			return checkRecords(cmd, cfg, list, *asJSON)
		case *asJSON:
			return printJSON(cmd.OutOrStdout(), list)
		}
		printZone(cmd.OutOrStdout(), site, list)
		return nil
	}
	return cmd
}

// printZone prints a piece of a zone file, and what belongs to it elsewhere.
func printZone(w io.Writer, site *records.Site, list []records.Record) {
	fmt.Fprintf(w, "; Mail of %s by %s\n", site.Domain.ASCII(), site.Host.ASCII())
	for _, r := range list {
		fmt.Fprintf(w, ";\n; %s: %s\n%s\n", r.Need, r.Why, r.Line())
	}
	if site.STS != nil {
		fmt.Fprintf(w, ";\n; The policy at https://mta-sts.%s/.well-known/mta-sts.txt\n", site.Domain.ASCII())
		for line := range lines(site.STS.Text()) {
			fmt.Fprintln(w, ";    ", line)
		}
	}
}

// checkRecords prints what is there. What is required and missing or wrong makes it fail.
func checkRecords(cmd *cobra.Command, cfg node.Config, list []records.Record, asJSON bool) error {
	resolver, err := dns.NewClient(dns.Config{Servers: cfg.DNS.Servers, TrustAD: cfg.DNS.TrustAD})
	if err != nil {
		return err
	}
	defer resolver.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), checkTimeout)
	defer cancel()
	c := records.Checker{Resolver: resolver, Now: time.Now(), STS: tlspolicy.NewSTS(tlspolicy.STSConfig{
		Resolver: resolver, Client: &http.Client{Timeout: 20 * time.Second}})}
	findings := c.Check(ctx, list)
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), findings); err != nil {
			return err
		}
	}
	bad, unknown := 0, 0
	for _, f := range findings {
		switch {
		case f.Need != records.Required:
		case f.Status == records.Missing || f.Status == records.Wrong:
			bad++
		case f.Status == records.Unknown:
			unknown++
		}
		if !asJSON {
			printFinding(shown{cmd.OutOrStdout()}, f)
		}
	}
	switch {
	case bad > 0:
		return fmt.Errorf("%s missing or wrong", plural(bad, "required record"))
	case unknown > 0:
		return fmt.Errorf("%s could not be checked", plural(unknown, "required record"))
	}
	return nil
}

func printFinding(w io.Writer, f records.Finding) {
	fmt.Fprintf(w, "%-9s %-11s %s %s", f.Status, f.Need, f.Type, f.Name)
	if f.Words != "" {
		fmt.Fprintf(w, ": %s", printable(f.Words))
	}
	fmt.Fprintln(w)
	if f.Status == records.Missing || f.Status == records.Wrong {
		fmt.Fprintf(w, "          %s\n          publish: %s\n", f.Why, f.Line())
	}
}
