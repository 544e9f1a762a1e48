package queue_test

import (
	"testing"

	"github.com/tallypost/tallypost/internal/durable"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/queue/queuetest"
)

func TestMemoryConforms(t *testing.T) {
	queuetest.TestStore(t, func(t *testing.T) queuetest.Place {
		return queuetest.Place{
			Open:    func() (queue.Store, error) { return queue.NewMemory(), nil },
			Forgets: true,
		}
	})
}

func TestDiskConforms(t *testing.T) {
	t.Run("real", func(t *testing.T) {
		queuetest.TestStore(t, func(t *testing.T) queuetest.Place {
			dir := t.TempDir()
			return queuetest.Place{Open: func() (queue.Store, error) {
				return queue.OpenDisk(queue.DiskConfig{Dir: dir, SegmentBytes: 1 << 20})
			}}
		})
	})
	// Segments so small that all the tending happens.
	t.Run("small", func(t *testing.T) {
		queuetest.TestStore(t, func(t *testing.T) queuetest.Place {
			fs := durable.NewFaults(nil)
			return queuetest.Place{Open: func() (queue.Store, error) {
				return queue.OpenDisk(queue.DiskConfig{Dir: "/queue", FS: fs, SegmentBytes: 256 << 10})
			}}
		})
	})
}

func TestLedgerConforms(t *testing.T) {
	queuetest.TestJournal(t, func(t *testing.T, section queue.Section) queue.Journal {
		l, err := openLedger(section)
		if err != nil {
			t.Fatal(err)
		}
		return l
	})
}
