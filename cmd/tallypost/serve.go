package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/internal/node"
	"github.com/tallypost/tallypost/internal/statusline"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the node",
		Args:  cobra.NoArgs,
	}
	config := configFlag(cmd)
	debug := cmd.Flags().Bool("debug", false, "log what tonight's search for a fault wants to know")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := node.Load(*config)
		if err != nil {
			return err
		}
		level := slog.LevelInfo
		if *debug {
			level = slog.LevelDebug
		}
		line := statusline.On(os.Stderr)
		var out io.Writer = os.Stderr
		if line != nil {
			out = line
		}
		log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}))
		n, err := node.New(cfg, log)
		if err != nil {
			return err
		}
		n.ShowProgress(line)
		return n.Run(cmd.Context())
	}
	return cmd
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show or check a configuration"}
	config := configFlag(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:   "example",
		Short: "Print a configuration file with every default",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := node.Example()
			fmt.Fprintf(cmd.OutOrStdout(), "%s", b)
			return err
		},
	}, &cobra.Command{
		Use:   "check",
		Short: "Say what is wrong with the configuration file",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := node.Load(*config)
			if err != nil {
				return err
			}
			for i, cert := range cfg.TLS.Cert {
				if _, err := tls.LoadX509KeyPair(cert, cfg.TLS.Key[i]); err != nil {
					return fmt.Errorf("tls: certificate %s with key %s: %w", cert, cfg.TLS.Key[i], err)
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: good\n", *config)
			return nil
		},
	})
	return cmd
}
