package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tallypost/tallypost/internal/bitcoind"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/internal/statusline"
	"github.com/tallypost/tallypost/internal/web"
)

// half is the Bitcoin half of a node, whichever it is. Its end is not that of the mail server.
type half interface {
	web.Bitcoin
	Run(ctx context.Context) error
	Close()
}

// openBitcoin makes the Bitcoin half that cfg names. Nothing runs yet.
func openBitcoin(cfg Config, log *slog.Logger) (half, error) {
	b := cfg.Bitcoin
	switch {
	case b.Mode == bitcoinExternal:
		return newExternal(b, log)
	case b.ours():
		return openOwn(b)
	}
	return none{}, nil
}

// none is the half of who wants none.
type none struct{}

func (none) Status() web.BitcoinStatus {
	return web.BitcoinStatus{Mode: bitcoinOff, State: web.BitcoinOff}
}

func (none) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (none) Close() {}

// options are what bitcoind would be told for the node that we run. Its bitcoin.conf is read too, if there is
// a data directory yet.
func (b *Bitcoin) options() (*options.Options, error) {
	args := []string{"-datadir=" + b.DataDir, "-chain=" + b.Network, "-printtoconsole=0",
		fmt.Sprintf("-dbcache=%d", b.Cache)}
	switch b.Mode {
	case bitcoinHeaders:
		args = append(args, "-headersonly")
	case bitcoinPruned:
		args = append(args, fmt.Sprintf("-prune=%d", b.Prune))
	}
	for _, o := range b.Options {
		args = append(args, "-"+strings.TrimLeft(o, "-"))
	}
	o := options.New(options.Bitcoind())
	if err := o.ParseCommandLine(args, false); err != nil {
		return nil, err
	}
	if err := o.ReadFiles(func(string) {}); err != nil {
		return nil, err
	}
	o.UseNetwork(b.Network)
	_, err := bitcoind.FromOptions(o)
	return o, err
}

// own is the node that we run.
type own struct {
	cfg    Bitcoin
	node   *bitcoind.Node
	failed atomic.Pointer[string]
}

func openOwn(b Bitcoin) (half, error) {
	if err := os.MkdirAll(b.DataDir, 0o700); err != nil {
		return nil, err
	}
	o, err := b.options()
	if err != nil {
		return nil, err
	}
	cfg, err := bitcoind.FromOptions(o)
	if err != nil {
		return nil, err
	}
	n, err := bitcoind.New(cfg)
	if err != nil {
		return nil, err
	}
	return &own{cfg: b, node: n}, nil
}

// Run runs the node until ctx ends. An error says that it ended before.
func (o *own) Run(ctx context.Context) error {
	err := o.node.Run(ctx)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	text := "it was stopped"
	if err != nil {
		text = strings.TrimPrefix(bitcoind.Report(err), "Error: ")
	}
	o.failed.Store(&text)
	return errors.New(text)
}

func (o *own) Close() { o.node.Close() }

func (o *own) Status() web.BitcoinStatus {
	s := o.node.Status()
	out := web.BitcoinStatus{Mode: o.cfg.Mode, Network: o.cfg.Network, State: web.BitcoinReady, Doing: s.String(),
		Progress: max(s.Fraction, 0), Rate: s.Rate, Left: s.Left.Seconds(), Height: int(s.Height),
		Headers: int(s.Headers), TipTime: s.TipTime, Peers: s.In + s.Out}
	if s.TipTime.IsZero() {
		out.State = web.BitcoinStarting
	} else {
		out.Tip = s.Tip.String()
		if !s.Synced {
			out.State = web.BitcoinSyncing
		}
		if s.Doing == "" {
			out.Progress = 1
		}
	}
	if text := o.failed.Load(); text != nil {
		out.State, out.Error, out.Doing = web.BitcoinFailed, *text, ""
	}
	return out
}

const (
	// lineInterval is how often the line of a terminal is renewed.
	lineInterval = 500 * time.Millisecond
	// tellInterval is how often the log is told how far a sync has come.
	tellInterval = time.Minute
)

// ShowProgress lets the node show how far its Bitcoin half has come. It is called before Run.
func (n *Node) ShowProgress(l *statusline.Line) { n.line = l }

// runBitcoin runs the Bitcoin half until ctx ends. Where it fails that is logged and shown, and the mail goes
// on: bridges only add.
func (n *Node) runBitcoin(ctx context.Context) error {
	log := n.log.With("part", "bitcoin")
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		n.watchBitcoin(watching, log)
	}()
	if err := n.bitcoin.Run(ctx); err != nil {
		log.Error("the Bitcoin half has ended; mail goes on without it, and a restart begins it anew", "err", err)
	}
	stop()
	<-watched
	return nil
}

// watchBitcoin tells how the Bitcoin half is getting on.
func (n *Node) watchBitcoin(ctx context.Context, log *slog.Logger) {
	defer n.line.Set("")
	var state string
	var told time.Time
	for clock.Sleep(ctx, clock.Real{}, lineInterval) == nil {
		s := n.bitcoin.Status()
		n.line.Set(s.Doing)
		if s.State == web.BitcoinOff {
			continue
		}
		now := time.Now()
		if s.State == state && (s.Doing == "" || now.Sub(told) < tellInterval) {
			continue
		}
		log.Info("status", "mode", s.Mode, "state", s.State, "doing", s.Doing, "height", s.Height,
			"headers", s.Headers, "peers", s.Peers)
		state, told = s.State, now
	}
}
