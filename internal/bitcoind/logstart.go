package bitcoind

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

// openLog begins the log.
func (n *Node) openLog() error {
	if n.cfg.LogFile != "" {
		f, err := openLogFile(n.cfg.LogFile, n.cfg.ShrinkLog)
		if err != nil {
			return fmt.Errorf("Could not open debug log file %s", n.cfg.LogFile)
		}
		n.logFile = f
	}
	var limit *logLimit
	if !n.cfg.LogUnlimited {
		limit = newLogLimit(time.Now())
	}
	var console io.Writer
	switch {
	case n.cfg.LogConsole && n.cfg.Line != nil:
		console = n.cfg.Line
	case n.cfg.LogConsole:
		console = os.Stdout
	}
	n.debug.begin(console, n.logFile, limit)
	n.logStart()
	return nil
}

// logStart tells what the node is and what it was told, by Core's lines.
func (n *Node) logStart() {
	n.log.Info("Bitcoin Core version v30.99.0 (Tallypost)")
	for _, w := range n.cfg.Warnings {
		n.log.Warn(w)
	}
	for _, note := range n.cfg.Notes {
		n.log.Info(note)
	}
	if n.cfg.Network.Name == "signet" {
		n.log.Info(fmt.Sprintf("Signet derived magic (message start): %x", n.cfg.Network.Magic))
	}
	for _, w := range n.cfg.Aloud {
		n.warnAloud(w)
	}
	if !n.cfg.logStyle.stamps {
		n.log.Info("Startup time: " + n.started.UTC().Format(time.RFC3339))
	}
	n.log.Info("Default data directory " + options.DefaultDir())
	n.log.Info("Using data directory " + n.cfg.DataDir)
	switch st, err := os.Stat(n.cfg.File); {
	case n.cfg.File == "":
		n.log.Info("Config file: <disabled>")
	case err != nil:
		n.log.Info("Config file: " + n.cfg.File + " (not found, skipping)")
	case st.IsDir():
		n.log.Warn("Config file: " + n.cfg.File + " (is directory, not file)")
	default:
		n.log.Info("Config file: " + n.cfg.File)
	}
	for _, line := range n.cfg.Given {
		n.log.Info(line)
	}
	if n.cfg.LogUnlimited {
		n.log.Info("Log rate limiting disabled")
	}
}

// warnAloud tells of something in the log and on standard error.
func (n *Node) warnAloud(text string) {
	n.log.Warn(strings.TrimSpace(text))
	fmt.Fprintln(os.Stderr, "Warning: "+text)
}

// ReopenLog has the log's file opened again before the next line: it has been moved away.
func (n *Node) ReopenLog() {
	if n.logFile != nil {
		n.logFile.again.Store(true)
	}
}
