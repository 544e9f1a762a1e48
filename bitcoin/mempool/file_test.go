package mempool

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chaintest"
)

func readSnapshot(r io.Reader) (*Snapshot, error) {
	f, err := NewFileReader(r)
	if err != nil {
		return nil, err
	}
	s := new(Snapshot)
	for range f.Count() {
		t, err := f.Next()
		if err != nil {
			return nil, err
		}
		s.Txs = append(s.Txs, t)
	}
	s.Deltas, s.Unbroadcast, err = f.Rest()
	return s, err
}

func sameSnapshot(a, b *Snapshot) bool {
	return maps.Equal(a.Deltas, b.Deltas) && slices.Equal(a.Unbroadcast, b.Unbroadcast) &&
		slices.EqualFunc(a.Txs, b.Txs, func(x, y Saved) bool {
			return x.Tx.WTxID() == y.Tx.WTxID() && x.Time.Equal(y.Time) && x.Delta == y.Delta
		})
}

func TestFile(t *testing.T) {
	w := newWorld(t, Config{})
	a := w.accept(pay(20_000, 2000, w.coin())) // more than is looked at at first
	w.now = w.now.Add(time.Minute)
	b := w.accept(pay(30_000, 1, chaintest.OutputOf(a.Tx, 7)))
	w.Prioritise(b.TxID, -5)
	w.Prioritise(bitcoin.Hash{1}, 77)
	w.Prioritise(bitcoin.Hash{2}, -78)
	w.MarkUnbroadcast(b.TxID)
	want := w.Snapshot()
	if len(want.Txs) != 2 || want.Txs[0].Tx != a.Tx || want.Txs[1].Delta != -5 || len(want.Deltas) != 2 {
		t.Fatalf("%d transactions, deltas %v", len(want.Txs), want.Deltas)
	}
	for name, key := range map[string]*[8]byte{"hidden": {1, 2, 3, 0xff, 5, 6, 7, 8}, "plain": nil} {
		var file bytes.Buffer
		if err := want.Write(&file, key); err != nil {
			t.Fatal(err)
		}
		if plain := bytes.Contains(file.Bytes(), a.Tx.Append(nil)); plain != (key == nil) {
			t.Errorf("%s: a transaction can be seen in the file: %v", name, plain)
		}
		for _, r := range []io.Reader{bytes.NewReader(file.Bytes()),
			iotest.HalfReader(bytes.NewReader(file.Bytes()))} {
			got, err := readSnapshot(r)
			if err != nil || !sameSnapshot(got, want) {
				t.Errorf("%s: read as something else, or not at all: %v", name, err)
			}
		}
		for n := 0; n < file.Len(); n += 1 + n/7 {
			if _, err := readSnapshot(bytes.NewReader(file.Bytes()[:n])); err == nil {
				t.Errorf("%s: the first %d of %d octets passed for whole", name, n, file.Len())
			}
		}
	}
}

func TestFileWriteFails(t *testing.T) {
	w := newWorld(t, Config{})
	w.accept(pay(1000, 1, w.coin()))
	for n := range 3 {
		if err := w.Snapshot().Write(&full{left: n * 10}, &[8]byte{}); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("with room for %d octets: %v", n*10, err)
		}
	}
}

// full is a disk without much room.
type full struct{ left int }

func (f *full) Write(b []byte) (int, error) {
	n := min(len(b), f.left)
	if f.left -= n; n < len(b) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

func FuzzFile(f *testing.F) {
	tx := pay(1000, 1, chaintest.Output{TxOut: bitcoin.TxOut{Value: 5000, Script: chaintest.Anyone()}})
	s := &Snapshot{Txs: []Saved{{tx, time.Unix(1e9, 0), 3}}, Deltas: map[bitcoin.Hash]bitcoin.Amount{{1}: 2},
		Unbroadcast: []bitcoin.Hash{tx.TxID()}}
	for _, key := range []*[8]byte{nil, {9, 8, 7, 6, 5, 4, 3, 2}} {
		var file bytes.Buffer
		if err := s.Write(&file, key); err != nil {
			f.Fatal(err)
		}
		f.Add(file.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readSnapshot(bytes.NewReader(data))
		if err != nil {
			return
		}
		var file bytes.Buffer
		if err := got.Write(&file, &[8]byte{1}); err != nil {
			t.Fatal(err)
		}
		again, err := readSnapshot(&file)
		if err != nil || !sameSnapshot(again, got) {
			t.Fatalf("what was read cannot be written and read again: %v", err)
		}
	})
}
