package bitcoind

import (
	"slices"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

// TestEventOrder: which events of the mempool are told of before a block is, by letters: a to m are transactions
// of the block, others are not; capitals say what happened to the letter before them.
func TestEventOrder(t *testing.T) {
	reasons := map[byte]mempool.Reason{'A': mempool.Added, 'B': mempool.Block, 'C': mempool.Conflicts,
		'R': mempool.Reorg, 'X': mempool.Replaced}
	ours := map[bitcoin.Hash]bool{}
	for c := byte('a'); c <= 'm'; c++ {
		ours[bitcoin.Hash{c}] = true
	}
	read := func(s string) (list []mempool.Event) {
		for i := 0; i < len(s); i += 2 {
			list = append(list, mempool.Event{TxID: bitcoin.Hash{s[i]}, Reason: reasons[s[i+1]]})
		}
		return list
	}
	for _, c := range []struct {
		events          string
		applied, revert int // events before the block
	}{
		{"", 0, 0},
		{"zA", 1, 1},
		{"zAaBzX", 2, 3},
		{"zAaByCbBwCvA", 5, 6},
		{"zCvA", 1, 2},
		{"yCzB", 1, 2},
		{"aBzByC", 1, 3},
		{"zAaAyA", 3, 1},
		{"zXyRaA", 3, 1},
	} {
		list := read(c.events)
		if got := untilApplied(list, ours); got != c.applied {
			t.Errorf("%s: %d before the block is applied, want %d", c.events, got, c.applied)
		}
		if got := beforeRevert(list, []zmqBlock{{has: ours}}); got != c.revert {
			t.Errorf("%s: %d before the block is reverted, want %d", c.events, got, c.revert)
		}
	}
}

func TestZMQOptions(t *testing.T) {
	o := options.New(options.Bitcoind())
	err := o.ParseCommandLine([]string{"-zmqpubrawtx=tcp://127.0.0.1:1", "-zmqpubrawtx=unix:/x", "-zmqpubrawtxhwm=5",
		"-zmqpubhashblock=tcp://127.0.0.1:1"}, false)
	if err != nil {
		t.Fatal(err)
	}
	var c Config
	if err := c.zmq(o); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range c.ZMQ {
		got = append(got, n.Type+" "+n.Address)
		if want := map[bool]int{true: 5, false: 1000}[n.Type == "pubrawtx"]; n.HWM != want {
			t.Errorf("%+v", n)
		}
	}
	if want := []string{"pubhashblock tcp://127.0.0.1:1", "pubrawtx tcp://127.0.0.1:1", "pubrawtx ipc:///x"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
