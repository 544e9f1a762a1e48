package bitcoind

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// forkWarning is what is told of a node that cannot follow what seems to be the majority (Bitcoin Core
// validation.cpp, CheckForkWarningConditions).
const forkWarning = "Warning: Found invalid chain more than 6 blocks longer than our best chain. This could be " +
	"due to database corruption or consensus incompatibility with peers."

// warnings are what the operator of a node should know. They are looked for with every change of the chain,
// and when somebody asks.
type warnings struct {
	mu      sync.Mutex // guards what follows
	unknown string     // rules are active that this node does not know; stays
	fork    bool       // there is a large branch that is not valid
	alerts  []string   // new, and not yet told to -alertnotify
	wake    chan struct{}
}

// warn looks for warnings and returns those that there are, in Core's order.
func (n *Node) warn() []string {
	w := &n.warnings
	w.mu.Lock()
	defer w.mu.Unlock()
	if !n.p2p.InitialDownload() && w.unknown == "" {
		if s, ok := n.chain.State(n.chain.Tip().Hash); ok {
			if _, active := s.UnknownActivations(); len(active) > 0 {
				w.unknown = fmt.Sprintf("Unknown new rules activated (versionbit %d)", active[0])
				w.alert(w.unknown)
			}
		}
	}
	was := w.fork
	if w.fork = n.chain.LargeInvalidFork(); w.fork && !was {
		n.log.Warn(strings.TrimPrefix(forkWarning, "Warning: "))
		w.alert(forkWarning)
	}
	var list []string
	if w.unknown != "" {
		list = append(list, w.unknown)
	}
	if w.fork {
		list = append(list, forkWarning)
	}
	return list
}

// alert has a warning told by watchWarnings. The caller holds mu.
func (w *warnings) alert(text string) {
	w.alerts = append(w.alerts, text)
	wakeUp(w.wake)
}

// wakeUp leaves a word for a goroutine that listens, unless there is one already.
func wakeUp(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// watchWarnings looks for warnings when the chain changes and runs -alertnotify for new ones, until ctx ends.
func (n *Node) watchWarnings(ctx context.Context) {
	w := &n.warnings
	defer n.chain.OnTip(func() { wakeUp(w.wake) })()
	var commands sync.WaitGroup
	defer commands.Wait()
	for {
		n.warn()
		w.mu.Lock()
		alerts := w.alerts
		w.alerts = nil
		w.mu.Unlock()
		if n.cfg.Notify.Alert != "" {
			for _, text := range alerts {
				commands.Go(func() { n.shell(ctx, alertCommand(n.cfg.Notify.Alert, text)) })
			}
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
	}
}

// alertCommand puts a text into a command. It is our own and plain, but to be sure nothing stays of it that
// a shell might take for more than a word (Bitcoin Core node/kernel_notifications.cpp, AlertNotify, and
// util/strencodings.cpp, SanitizeString).
func alertCommand(command, text string) string {
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune(" .,;-_/:?@()", r) {
			return r
		}
		return -1
	}, text)
	return strings.ReplaceAll(command, "%s", "'"+safe+"'")
}
