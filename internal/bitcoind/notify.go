package bitcoind

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

// Notify are commands that are run when something has happened.
type Notify struct {
	Startup  []string // -startupnotify
	Shutdown []string // -shutdownnotify
	Block    []string // -blocknotify, %s being the hash of the new tip
	Alert    string   // -alertnotify, %s being a warning
}

func (c *Config) notify(o *options.Options) error {
	c.Notify = Notify{Startup: o.List("startupnotify"), Shutdown: o.List("shutdownnotify"),
		Block: o.List("blocknotify"), Alert: o.String("alertnotify", "")}
	return nil
}

// shell runs a command as Core does, by the shell, and logs its failure.
func (n *Node) shell(ctx context.Context, command string) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		n.log.Warn("runCommand error", "command", command, "err", err)
	}
}

// runAll runs commands at the same time and returns when all of them have ended.
func (n *Node) runAll(ctx context.Context, commands []string) {
	var wg sync.WaitGroup
	for _, c := range commands {
		if c != "" {
			wg.Go(func() { n.shell(ctx, c) })
		}
	}
	wg.Wait()
}

// notifyBlocks runs -blocknotify for each block that becomes the tip once the initial download is over, until
// ctx ends.
func (n *Node) notifyBlocks(ctx context.Context) {
	if len(n.cfg.Notify.Block) == 0 {
		return
	}
	wake := make(chan struct{}, 1)
	defer n.chain.OnTip(func() { wakeUp(wake) })()
	tip := n.chain.Tip()
	cursor := chain.Cursor{Hash: tip.Hash, Height: tip.Height}
	for {
		const most = 1000
		u, err := n.chain.UpdatesSince(cursor, most)
		if err != nil {
			n.log.Warn("blocknotify", "err", err)
			return
		}
		cursor = u.Next
		for _, e := range u.Applied {
			if n.p2p.InitialDownload() || ctx.Err() != nil {
				break
			}
			if e.Txs == 0 {
				continue // came with a snapshot, and never as a block
			}
			var commands []string
			for _, c := range n.cfg.Notify.Block {
				commands = append(commands, strings.ReplaceAll(c, "%s", e.Hash.String()))
			}
			n.runAll(ctx, commands)
		}
		if len(u.Applied)+len(u.Reverted) > 0 {
			continue
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return
		}
	}
}
