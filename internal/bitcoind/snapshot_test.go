package bitcoind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
)

// dump returns the coins of a site's tip as a file, and what a network would say of them.
func (s *site) dump() (file []byte, known bitcoin.Snapshot) {
	s.t.Helper()
	ctx := context.Background()
	s.must(s.load(func(n *Node) error {
		coins, err := n.chain.Snapshot(ctx)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		sum, err := coins.Dump(ctx, &b)
		tip := n.chain.Tip()
		file, known = b.Bytes(), bitcoin.Snapshot{Height: tip.Height, Block: tip.Hash, CoinsHash: sum.Hash,
			ChainTxs: tip.ChainTxs}
		return errors.Join(err, coins.Close())
	}))
	return file, known
}

func (s *site) expectLog(phrases ...string) {
	s.t.Helper()
	log, err := os.ReadFile(s.cfg.LogFile)
	s.must(err)
	for _, phrase := range phrases {
		if !strings.Contains(string(log), phrase) {
			s.t.Errorf("debug.log does not have %q", phrase)
		}
	}
}

// newAssumedSite has 5 of 20 blocks, the coins as of the last one, and what history adds.
func newAssumedSite(t *testing.T, history int) *site {
	t.Helper()
	full := newSite(t, 20)
	file, known := full.dump()
	s := newSite(t, 5)
	net := *bitcoin.Regtest()
	net.Snapshots = []bitcoin.Snapshot{known}
	s.cfg.Network, s.gen, s.tip = &net, full.gen, full.tip
	s.must(s.load(func(n *Node) error {
		for i := range 20 {
			b := s.gen.Block(fmt.Sprintf("m.%d", i))
			if _, err := n.chain.AddHeaders([]bitcoin.Header{b.Header}, true); err != nil {
				return err
			}
		}
		r := bytes.NewReader(file)
		head, err := blockstore.ReadSnapshotHead(r, &net)
		if err != nil {
			return err
		}
		if _, err := n.chain.LoadSnapshot(context.Background(), head, r); err != nil {
			return err
		}
		src := chain.Source{Requested: true, WorkChecked: true}
		for i := range history {
			b := s.gen.Block(fmt.Sprintf("m.%d", i))
			if _, err := n.chain.Add(context.Background(), b, src); err != nil {
				return err
			}
		}
		return nil
	}))
	return s
}

// TestSnapshotStart: a node starts with a snapshot, and once all is validated puts its directory in the place
// of the other, with Core's phrases.
func TestSnapshotStart(t *testing.T) {
	s := newAssumedSite(t, 10)
	s.expectTip()
	s.expectLog("[snapshot] detected active snapshot chainstate", "[snapshot] successfully activated snapshot")
	s.must(s.load(func(n *Node) error {
		if size := n.diskFiles().CoinBytes(); size == 0 {
			t.Error("the coins take no room")
		}
		src := chain.Source{Requested: true, WorkChecked: true}
		for i := range 20 {
			b := s.gen.Block(fmt.Sprintf("m.%d", i))
			if _, err := n.chain.Add(context.Background(), b, src); err != nil {
				return err
			}
		}
		return nil
	}))
	s.expectTip()
	s.expectLog("[snapshot] computing UTXO stats for background chainstate to validate snapshot",
		"has been fully validated", "[snapshot] cleaning up unneeded background chainstate, then reinitializing",
		"[snapshot] deleted background chainstate directory")
	if _, err := os.Stat(s.path("chainstate_snapshot")); err == nil {
		t.Error("the directory of the snapshot is still there")
	}
	s.expectTip()
}

// TestBadSnapshotStarts: what a start says of a snapshot that cannot be.
func TestBadSnapshotStarts(t *testing.T) {
	fatal := "Error: A fatal internal error occurred, see debug.log for details: "
	s := newAssumedSite(t, 20)
	snapshots := s.cfg.Network.Snapshots
	s.cfg.Network.Snapshots = nil
	err := s.load(func(*Node) error { return nil })
	want := fatal + fmt.Sprintf("Assumeutxo data not found for the given blockhash '%v'.", s.tip)
	if err == nil || Report(err) != want {
		t.Errorf("unknown block: %v", err)
	}
	s.cfg.Network.Snapshots = snapshots
	snapshots[0].CoinsHash[0] ^= 1
	err = s.load(func(*Node) error { return nil })
	if err == nil || !strings.HasPrefix(Report(err), fatal+"Tallypost failed to validate the -assumeutxo") {
		t.Errorf("other coins: %v", err)
	}
	s.expectLog("[snapshot] hash mismatch: actual=", "UTXO snapshot failed to validate. Restart to resume")
	if _, err := os.Stat(s.path("chainstate_snapshot_INVALID")); err != nil {
		t.Error(err)
	}
	s.expectTip() // the history has come as far by itself
}
