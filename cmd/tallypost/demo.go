package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

//go:embed demo.eml
var demoMessage []byte

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Send a real mail over two servers on loopback, kill one of them, and prove the mail",
		Args:  cobra.NoArgs,
	}
	stay := cmd.Flags().Bool("stay", false, "keep the servers up and print commands to try")
	message := cmd.Flags().String("message", "", "send this message file instead of the one built in")
	dir := cmd.Flags().String("dir", "", "folder for the servers' data; empty: a temporary one")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d := &demo{out: cmd.OutOrStdout(), dir: *dir, message: demoMessage, began: time.Now()}
		if *message != "" {
			var err error
			if d.message, err = os.ReadFile(*message); err != nil {
				return err
			}
		}
		if d.dir == "" {
			var err error
			if d.dir, err = os.MkdirTemp("", "tallypost-demo-"); err != nil {
				return err
			}
			defer os.RemoveAll(d.dir)
		}
		var err error
		if d.dir, err = filepath.Abs(d.dir); err != nil {
			return err
		}
		return d.run(cmd.Context(), *stay)
	}
	return cmd
}

// run is the story, a step a line.
func (d *demo) run(ctx context.Context, stay bool) (err error) {
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.build(ctx); err != nil {
		return fmt.Errorf("setting up: %w", err)
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"submit a message to a.test", d.submit},
		{"relay it to b.test, past a dead MX, into a mailbox", d.arrive},
		{"kill b.test with SIGKILL while it takes mail, and restart it", d.kill},
		{"verify both logs from end to end", d.audit},
		{"prove the message offline", d.prove},
	} {
		fmt.Fprintf(d.out, "\n▶ %s\n", step.name)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	fmt.Fprintf(d.out, "\n✓ all of it in %.1f s\n", time.Since(d.began).Seconds())
	if stay {
		d.invite()
		<-ctx.Done()
	}
	return nil
}
