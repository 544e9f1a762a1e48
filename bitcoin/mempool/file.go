package mempool

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
)

// The versions of mempool.dat (Bitcoin Core node/mempool_persist.cpp).
const (
	fileVersionPlain = 1
	fileVersion      = 2 // all that follows the key is XORed with it

	fileKeySize = 8
	// maxFileTx is the largest transaction that is looked for: no block has room for a larger one.
	maxFileTx = 4_000_000
)

// Saved is a transaction as mempool.dat keeps it.
type Saved struct {
	Tx    *bitcoin.Tx
	Time  time.Time // of arrival
	Delta bitcoin.Amount
}

// Snapshot is what mempool.dat holds.
type Snapshot struct {
	Txs         []Saved                         // parents before children
	Deltas      map[bitcoin.Hash]bitcoin.Amount // of transactions that are not among Txs, by txid
	Unbroadcast []bitcoin.Hash                  // txids
}

// Snapshot returns what is to be kept of the pool while the node is down. It stays valid while the pool
// changes.
func (p *Pool) Snapshot() *Snapshot {
	s := &Snapshot{Txs: make([]Saved, 0, len(p.entries)),
		Deltas: make(map[bitcoin.Hash]bitcoin.Amount)}
	for _, e := range p.Sorted() {
		s.Txs = append(s.Txs, Saved{e.Tx, e.Time, e.Delta})
		if e.unbroadcast {
			s.Unbroadcast = append(s.Unbroadcast, e.TxID)
		}
	}
	for txid, delta := range p.deltas {
		if p.entries[txid] == nil {
			s.Deltas[txid] = delta
		}
	}
	return s
}

// Write writes mempool.dat, under a key or, if that is nil, in the form without one, which Core read
// before its version 28.
func (s *Snapshot) Write(w io.Writer, key *[fileKeySize]byte) error {
	var head []byte
	if key == nil {
		head = binary.LittleEndian.AppendUint64(head, fileVersionPlain)
	} else {
		head = binary.LittleEndian.AppendUint64(head, fileVersion)
		head = append(bitcoin.AppendCompactSize(head, fileKeySize), key[:]...)
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	out := bufio.NewWriterSize(&xorWriter{w, key, len(head)}, 1<<20)
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(s.Txs)))
	for _, t := range s.Txs {
		b = t.Tx.Append(b)
		b = binary.LittleEndian.AppendUint64(b, uint64(t.Time.Unix()))
		b = binary.LittleEndian.AppendUint64(b, uint64(t.Delta))
		if _, err := out.Write(b); err != nil {
			return err
		}
		b = b[:0]
	}
	b = bitcoin.AppendCompactSize(b, uint64(len(s.Deltas)))
	for _, txid := range sortedKeys(s.Deltas) {
		b = append(b, txid[:]...)
		b = binary.LittleEndian.AppendUint64(b, uint64(s.Deltas[txid]))
	}
	b = bitcoin.AppendCompactSize(b, uint64(len(s.Unbroadcast)))
	for _, txid := range s.Unbroadcast {
		b = append(b, txid[:]...)
	}
	if _, err := out.Write(b); err != nil {
		return err
	}
	return out.Flush()
}

func sortedKeys(m map[bitcoin.Hash]bitcoin.Amount) []bitcoin.Hash {
	keys := make([]bitcoin.Hash, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b bitcoin.Hash) int { return slices.Compare(a[:], b[:]) })
	return keys
}

// xorWriter hides what it writes with a key; at is the position in the file.
type xorWriter struct {
	w   io.Writer
	key *[fileKeySize]byte
	at  int
}

// Write changes b, which belongs to a buffer of ours.
func (x *xorWriter) Write(b []byte) (int, error) {
	xor(b, x.key, x.at)
	n, err := x.w.Write(b)
	x.at += n
	return n, err
}

func xor(b []byte, key *[fileKeySize]byte, at int) {
	if key == nil {
		return
	}
	for i := range b {
		b[i] ^= key[(at+i)%fileKeySize]
	}
}

// FileReader reads mempool.dat: Count transactions with Next, then Rest.
type FileReader struct {
	r     io.Reader
	key   *[fileKeySize]byte
	at    int
	in    *bufio.Reader
	count uint64
}

// NewFileReader reads the head of mempool.dat.
func NewFileReader(r io.Reader) (*FileReader, error) {
	f := &FileReader{r: r}
	f.in = bufio.NewReaderSize(f, maxFileTx+1)
	version, err := f.uint64()
	switch {
	case err != nil:
		return nil, err
	case version == fileVersion:
		if err := f.readKey(); err != nil {
			return nil, err
		}
	case version != fileVersionPlain:
		return nil, fmt.Errorf("mempool.dat has version %d: only 1 and 2 are known", version)
	}
	f.count, err = f.uint64()
	return f, err
}

// readKey takes the key, with which all is XORed that comes after it.
func (f *FileReader) readKey() error {
	var b [1 + fileKeySize]byte
	if _, err := io.ReadFull(f.in, b[:]); err != nil {
		return unexpected(err)
	}
	if b[0] != fileKeySize {
		return fmt.Errorf("mempool.dat has a key of %d octets, not %d", b[0], fileKeySize)
	}
	key := [fileKeySize]byte(b[1:])
	ahead, _ := f.in.Peek(f.in.Buffered())
	xor(ahead, &key, 8+len(b))
	f.key = &key
	return nil
}

// Read reads octets of the file as they are without the key.
func (f *FileReader) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	xor(b[:n], f.key, f.at)
	f.at += n
	return n, err
}

// Count returns how many transactions there are, as the file says.
func (f *FileReader) Count() uint64 { return f.count }

// Next returns the next transaction.
func (f *FileReader) Next() (s Saved, err error) {
	if s.Tx, err = f.tx(); err != nil {
		return s, err
	}
	arrived, err := f.uint64()
	if err != nil {
		return s, err
	}
	s.Time = time.Unix(int64(arrived), 0)
	delta, err := f.uint64()
	s.Delta = bitcoin.Amount(delta)
	return s, err
}

// tx reads a transaction, whose size shows only when it has been read: in a part of the file that grows
// until it is enough.
func (f *FileReader) tx() (*bitcoin.Tx, error) {
	for look := 16 << 10; ; look *= 4 {
		b, short := f.in.Peek(min(look, maxFileTx))
		_, n, err := bitcoin.ParseTxPrefix(b)
		if err == nil {
			own := slices.Clone(b[:n]) // the transaction keeps what it is read from
			f.in.Discard(n)
			return bitcoin.ParseTx(own)
		}
		if !errors.Is(err, bitcoin.ErrEndOfData) || short != nil || look >= maxFileTx {
			return nil, err
		}
	}
}

// Rest returns what follows the transactions.
func (f *FileReader) Rest() (deltas map[bitcoin.Hash]bitcoin.Amount, unbroadcast []bitcoin.Hash,
	err error) {
	deltas = make(map[bitcoin.Hash]bitcoin.Amount)
	err = f.list(func() error {
		txid, err := f.hash()
		if err != nil {
			return err
		}
		delta, err := f.uint64()
		deltas[txid] = bitcoin.Amount(delta)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	err = f.list(func() error {
		txid, err := f.hash()
		unbroadcast = append(unbroadcast, txid)
		return err
	})
	return deltas, unbroadcast, err
}

// list reads a count and calls one for each item.
func (f *FileReader) list(one func() error) error {
	b, _ := f.in.Peek(9)
	n, size, err := bitcoin.ReadCompactSize(b)
	if err != nil {
		return unexpected(err)
	}
	f.in.Discard(size)
	for ; n > 0; n-- {
		if err := one(); err != nil {
			return err
		}
	}
	return nil
}

func (f *FileReader) hash() (h bitcoin.Hash, err error) {
	_, err = io.ReadFull(f.in, h[:])
	return h, unexpected(err)
}

func (f *FileReader) uint64() (uint64, error) {
	var b [8]byte
	_, err := io.ReadFull(f.in, b[:])
	return binary.LittleEndian.Uint64(b[:]), unexpected(err)
}

// unexpected turns the end of the file, where more should come, into an error that says so.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
