package rpc

import (
	"errors"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/miner"
)

// TestWorkIsReused: a template lasts until the tip is another, or until transactions came and it is more
// than five seconds old.
func TestWorkIsReused(t *testing.T) {
	var w work
	made := 0
	tipA, tipB := bitcoin.Hash{1}, bitcoin.Hash{2}
	for _, step := range []struct {
		what    string
		tip     bitcoin.Hash
		changes uint64
		second  int64
		failure error
		made    int    // so far
		goes    uint64 // back to which changes
	}{
		{"the first", tipA, 7, 100, nil, 1, 7},
		{"again", tipA, 7, 100, nil, 1, 7},
		{"much later, nothing has changed", tipA, 7, 1000, nil, 1, 7},
		{"old, and the mempool has changed", tipA, 8, 1000, nil, 2, 8},
		{"changed, but five seconds old", tipA, 9, 1005, nil, 2, 8},
		{"six seconds old", tipA, 9, 1006, nil, 3, 9},
		{"another tip", tipB, 9, 1006, nil, 4, 9},
		{"back to the first tip", tipA, 9, 1006, nil, 5, 9},
		{"cannot be made", tipB, 9, 1006, errors.New("no"), 6, 0},
		{"after a failure", tipB, 9, 1006, nil, 7, 9},
	} {
		build := func() (*miner.Template, error) {
			made++
			if step.failure != nil {
				return nil, step.failure
			}
			return &miner.Template{State: consensus.State{Hash: step.tip}}, nil
		}
		got, changes, err := w.get(step.tip, step.changes, time.Unix(step.second, 0), build)
		if made != step.made || err != step.failure || changes != step.goes {
			t.Errorf("%s: %d made, of change %d, %v; want %d, of %d, %v", step.what, made, changes, err, step.made,
				step.goes, step.failure)
		}
		if err == nil && got.State.Hash != step.tip {
			t.Errorf("%s: the template follows %v", step.what, got.State.Hash)
		}
	}
}
