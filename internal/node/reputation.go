package node

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail/dmarc"
	"github.com/tallypost/tallypost/mail/intake"
	"github.com/tallypost/tallypost/mail/reputation"
)

// reputationSample is how much of a message's body is looked at for its words, in octets.
const reputationSample = 64 << 10

// weigher has intake ask the site's own history.
type weigher struct {
	history *reputation.History
	clock   clock.Clock
}

// Weigh is as intake.Weigher has it.
func (w weigher) Weigh(_ context.Context, l *intake.Letter) []intake.Reason {
	s := reputation.Sender{Network: reputation.NetworkOf(l.Client)}
	for _, d := range l.Domains {
		s.Domains = append(s.Domains, strings.ToLower(d.ASCII()))
	}
	if l.DMARC == dmarc.Pass {
		s.Author = reputation.AuthorAddress(l.Header)
	}
	var tokens []reputation.Token
	if w.history.WantsWords() {
		var msg bytes.Buffer
		for _, f := range l.Header.Fields {
			msg.Write(f.Raw)
		}
		msg.WriteString("\r\n")
		msg.Write(l.Start)
		tokens = reputation.Tokens(l.Header, msg.Bytes())
	}
	var out []intake.Reason
	for _, r := range w.history.Weigh(s, tokens, w.clock.Now()) {
		out = append(out, intake.Reason{Name: r.Name, Points: r.Points, Words: r.Words})
	}
	return out
}

// openLearner loads what was learned so far and returns who learns more.
func openLearner(cfg Config, clk clock.Clock, log *slog.Logger) (*reputation.Learner, error) {
	file := filepath.Join(cfg.DataDir, "reputation")
	history, err := reputation.Load(file)
	if err != nil {
		return nil, err
	}
	return &reputation.Learner{History: history, Root: cfg.Mailbox.Root, File: file, ServID: cfg.Hostname,
		Clock: clk, Log: log}, nil
}
