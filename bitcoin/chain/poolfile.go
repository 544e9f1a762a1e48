package chain

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/mempool"
)

// ImportOptions say what is taken over from a file with transactions.
type ImportOptions struct {
	CurrentTime bool // transactions count as having arrived now
	Deltas      bool // what was added to fees for mining
	Unbroadcast bool // which transactions no peer has asked for
}

// SaveMempool writes the mempool to a file, in whose place nothing is put unless it is whole and on the
// disk (Bitcoin Core node/mempool_persist.cpp, DumpMempool). plain writes the form that Core read before
// its version 28.
func (c *Chain) SaveMempool(path string, plain bool) error {
	start := time.Now()
	var snapshot *mempool.Snapshot
	c.Mempool(func(p *mempool.Pool, _ *consensus.State) { snapshot = p.Snapshot() })
	copied := time.Since(start)
	c.cfg.Log.Info(fmt.Sprintf("Writing %d mempool transactions to file...", len(snapshot.Txs)))
	c.cfg.Log.Info(fmt.Sprintf("Writing %d unbroadcast transactions to file.", len(snapshot.Unbroadcast)))
	size, err := writeSnapshot(path, snapshot, plain)
	if err != nil {
		c.cfg.Log.Info(fmt.Sprintf("Failed to dump mempool: %v. Continuing anyway.", err))
		return fmt.Errorf("dump the mempool: %w", err)
	}
	c.cfg.Log.Info(fmt.Sprintf("Dumped mempool: %.3fs to copy, %.3fs to dump, %d bytes dumped to file",
		copied.Seconds(), (time.Since(start) - copied).Seconds(), size))
	return nil
}

func writeSnapshot(path string, s *mempool.Snapshot, plain bool) (size int64, err error) {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	var key *[8]byte
	if !plain {
		key = new([8]byte)
		if _, err := rand.Read(key[:]); err != nil {
			return 0, errors.Join(err, f.Close())
		}
	}
	if err = s.Write(f, key); err == nil {
		err = f.Sync()
	}
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	return size, os.Rename(path+".new", path)
}

// LoadMempool offers the transactions of a file to the mempool, which may refuse them (Bitcoin Core
// node/mempool_persist.cpp, LoadMempool). An error says that the file is not there or not whole, or that
// the context ended.
func (c *Chain) LoadMempool(ctx context.Context, path string, opts ImportOptions) error {
	f, err := os.Open(path)
	if err != nil {
		c.cfg.Log.Info("Failed to open mempool file. Continuing anyway.")
		return err
	}
	defer f.Close()
	in := poolImport{c: c, opts: opts, now: c.cfg.Clock.Now()}
	if err := in.all(ctx, f); err != nil {
		if ctx.Err() == nil {
			c.cfg.Log.Info(fmt.Sprintf("Failed to deserialize mempool data on file: %v. Continuing anyway.", err))
		}
		return err
	}
	c.cfg.Log.Info(fmt.Sprintf("Imported mempool transactions from file: %d succeeded, %d failed, %d expired, "+
		"%d already there, %d waiting for initial broadcast",
		in.succeeded, in.failed, in.expired, in.there, in.unbroadcast))
	return nil
}

// poolImport is an import of a file into the mempool.
type poolImport struct {
	c    *Chain
	opts ImportOptions
	now  time.Time

	succeeded, failed, expired, there, unbroadcast int
}

func (in *poolImport) all(ctx context.Context, f io.Reader) error {
	r, err := mempool.NewFileReader(f)
	if err != nil {
		return err
	}
	log := in.c.cfg.Log
	log.Info(fmt.Sprintf("Loading %d mempool transactions from file...", r.Count()))
	tenth := uint64(0)
	for n := range r.Count() {
		if done := n * 100 / r.Count(); tenth < done/10 {
			tenth = done / 10
			log.Info(fmt.Sprintf("Progress loading mempool transactions from file: %d%% (tried %d, %d remaining)",
				done, n, r.Count()-n))
		}
		s, err := r.Next()
		if err != nil {
			return err
		}
		if err := in.one(ctx, s); err != nil {
			return err
		}
	}
	return in.rest(r)
}

// one offers one transaction. An error is not about the transaction.
func (in *poolImport) one(ctx context.Context, s mempool.Saved) error {
	c := in.c
	if in.opts.CurrentTime {
		s.Time = in.now
	}
	var oldest time.Time
	c.Mempool(func(p *mempool.Pool, _ *consensus.State) {
		if in.opts.Deltas && s.Delta != 0 {
			p.Prioritise(s.Tx.TxID(), s.Delta)
		}
		oldest = in.now.Add(-p.Config().Expiry)
	})
	if !s.Time.After(oldest) {
		in.expired++
		return nil
	}
	_, err := c.AddTx(ctx, s.Tx, TxOptions{Time: s.Time})
	var refused *mempool.Error
	switch {
	case err == nil:
		in.succeeded++
	case !errors.As(err, &refused):
		return err
	default:
		c.Mempool(func(p *mempool.Pool, _ *consensus.State) {
			if p.Get(s.Tx.TxID()) != nil {
				in.there++
			} else {
				in.failed++
			}
		})
	}
	return ctx.Err()
}

func (in *poolImport) rest(r *mempool.FileReader) error {
	deltas, unbroadcast, err := r.Rest()
	if err != nil {
		return err
	}
	in.c.Mempool(func(p *mempool.Pool, _ *consensus.State) {
		if in.opts.Deltas {
			for txid, delta := range deltas {
				p.Prioritise(txid, delta)
			}
		}
		if in.opts.Unbroadcast {
			in.unbroadcast = len(unbroadcast)
			for _, txid := range unbroadcast {
				p.MarkUnbroadcast(txid)
			}
		}
	})
	return nil
}
