package consensus

import (
	"fmt"
	"testing"

	"github.com/tallypost/tallypost/bitcoin"
)

// TestLockTimes has transactions that just may and just may not be in the block.
func TestLockTimes(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 4)
	height := uint32(g.on.height + 1)
	median := g.node.tip().state.MedianTimePast()
	for i, row := range []struct {
		lock, sequence uint32
		final          bool
	}{
		{0, 0, true},
		{height - 1, 0, true},
		{height, 0, false},
		{height, 0xffffffff, true},
		{LockTimeThreshold - 1, 0, false},
		{LockTimeThreshold, 0, true},
		{median - 1, 0, true},
		{median, 0, false}, // though the block's own time is later (BIP 113)
		{0xffffffff, 0xfffffffe, false},
		{0xffffffff, 0xffffffff, true},
	} {
		tx := spend(g.spare[0], g.spare[1])
		tx.LockTime = row.lock
		tx.In[1].Sequence = row.sequence
		g.next(fmt.Sprint("row ", i), with(tx))
		if !row.final {
			g.reject(KindConsensus, "bad-txns-nonfinal")
			continue
		}
		g.accept()
		g.forget()
	}
}

// TestLockTimeBeforeBIP113: until BIP 113 the block's own time counts.
func TestLockTimeBeforeBIP113(t *testing.T) {
	net := bitcoin.Regtest()
	net.CSVHeight = 1000
	g := newMature(t, net, 2)
	tx := spend(g.spare[0])
	tx.In[0].Sequence = 0
	tx.LockTime = g.on.block.Header.Time
	tx.Version = 2
	tx.In[0].Sequence = 5000 // nor does BIP 68 bind
	g.next("time of the block", with(tx))
	g.accept()
}

// medians is a chain of which only the times are known: block h has median 1,000·h.
type medians struct{}

func (medians) MedianTimePast(height bitcoin.Height) (uint32, error) {
	return uint32(1000 * height), nil
}

// TestSequenceLocks is BIP 68, "Specification", case by case.
func TestSequenceLocks(t *testing.T) {
	const byTime, disabled = 1 << 22, 1 << 31
	for _, row := range []struct {
		name      string
		version   uint32
		sequences []uint32
		created   []bitcoin.Height
		want      SequenceLock
	}{
		{"version 1", 1, []uint32{10}, []bitcoin.Height{100}, SequenceLock{-1, -1}},
		{"version 0", 0, []uint32{10}, []bitcoin.Height{100}, SequenceLock{-1, -1}},
		{"version -1", 0xffffffff, []uint32{10}, []bitcoin.Height{100}, SequenceLock{109, -1}},
		{"disabled", 2, []uint32{disabled | 10}, []bitcoin.Height{100}, SequenceLock{-1, -1}},
		{"no lock", 2, []uint32{0}, []bitcoin.Height{100}, SequenceLock{99, -1}},
		{"height", 2, []uint32{1}, []bitcoin.Height{100}, SequenceLock{100, -1}},
		{"bits without meaning", 2, []uint32{0x7fbf0001}, []bitcoin.Height{100},
			SequenceLock{100, -1}},
		{"time from the median before", 2, []uint32{byTime}, []bitcoin.Height{100},
			SequenceLock{-1, 98_999}},
		{"time", 2, []uint32{byTime | 3}, []bitcoin.Height{100},
			SequenceLock{-1, 99_000 + 3*512 - 1}},
		{"greatest", 2, []uint32{0xffff, byTime | 0xffff}, []bitcoin.Height{1, 1},
			SequenceLock{0xffff, 0xffff*512 - 1}},
		{"several", 2, []uint32{5, 1, byTime | 1, byTime, disabled},
			[]bitcoin.Height{10, 20, 30, 40, 50}, SequenceLock{20, 38_999}},
	} {
		tx := &bitcoin.Tx{Version: row.version}
		var origins []Origin
		for i := range row.sequences {
			tx.In = append(tx.In, bitcoin.TxIn{Sequence: row.sequences[i]})
			origins = append(origins, Origin{Height: row.created[i]})
		}
		got, err := SequenceLocks(tx, origins, medians{})
		if err != nil || got != row.want {
			t.Errorf("%s: %v, %v; want %v", row.name, got, err, row.want)
		}
	}
	lock := SequenceLock{Height: 100, Time: 5000}
	for _, row := range []struct {
		height bitcoin.Height
		median uint32
		want   bool
	}{{101, 5001, true}, {100, 5001, false}, {101, 5000, false}} {
		if got := lock.Allows(row.height, row.median); got != row.want {
			t.Errorf("height %d, median %d: %v", row.height, row.median, got)
		}
	}
	if !(SequenceLock{-1, -1}).Allows(0, 0) {
		t.Error("no lock does not allow")
	}
}

// TestRelativeLocksInBlocks has coins that are just old enough, of before and of the block itself.
func TestRelativeLocksInBlocks(t *testing.T) {
	g := newMature(t, bitcoin.Regtest(), 2)
	old := g.take() // of height 1, 101 or more deep
	locked := func(from output, sequence uint32) *bitcoin.Tx {
		tx := spend(from)
		tx.Version, tx.In[0].Sequence = 2, sequence
		return tx
	}
	g.next("102 blocks", with(locked(old, 102)))
	g.reject(KindConsensus, "bad-txns-nonfinal")
	g.next("101 blocks", with(locked(old, 101)))
	g.accept()
	fresh := g.out(g.on.block, 1, 0)
	inside := locked(fresh, 0x80000005)
	g.next("of this block, 1", with(inside, locked(outputOf(inside, 0), 1)))
	g.reject(KindConsensus, "bad-txns-nonfinal")
	g.next("of this block, 0", with(inside, locked(outputOf(inside, 0), 0)))
	g.accept()

	// Medians rise by a second with each block, as times do: 512 s take 512 blocks, or one late
	// time to become the median.
	coin := g.out(g.on.block, 2, 0)
	before := g.chain[g.on.height-1].state.MedianTimePast()
	for i := 0; g.node.tip().state.MedianTimePast() < before+511; i++ {
		g.next(fmt.Sprint("late ", i), func(d *draft) {
			if i == 0 {
				// Five blocks later this time, and 4 s, is the median.
				d.Header.Time = before + 511 - 5 + 1
			}
		})
		g.accept()
	}
	g.next("511 s", with(locked(coin, 1<<22|1)))
	g.reject(KindConsensus, "bad-txns-nonfinal")
	g.next("one more")
	g.accept()
	g.next("512 s", with(locked(coin, 1<<22|1)))
	g.accept()
}
