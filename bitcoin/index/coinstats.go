package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// The keys of the index of statistics.
//
//	'b' hash[32]     a CoinStats: hash[32] and eleven numbers[8]
//	's' height[4]    hash[32] of a block and the state[384] of the MuHash after it: of the last
//	                 keptStates blocks, and of every stateInterval-th
const (
	keyStats = 'b'
	keyState = 's'
)

const (
	keptStates    = 400
	stateInterval = 1000
)

// CoinStats are statistics of the unspent outputs as of a block. The sums of what was ever spent and created
// count modulo 2^64: their differences between two blocks are exact.
type CoinStats struct {
	MuHash      bitcoin.Hash
	Outputs     uint64
	BogoSize    uint64
	Amount      bitcoin.Amount // of all unspent outputs
	Subsidy     bitcoin.Amount // of all blocks so far
	Spent       uint64         // by all transactions so far
	Created     uint64         // by all transactions so far but coinbases
	Coinbase    uint64         // by all coinbases so far
	Unspendable Unspendable
}

// Unspendable is what is lost for good, by reason.
type Unspendable struct {
	Genesis   bitcoin.Amount // the coinbase of the first block is no coin
	BIP30     bitcoin.Amount // coinbases that others took the place of
	Scripts   bitcoin.Amount // outputs that nothing can spend
	Unclaimed bitcoin.Amount // rewards that miners did not take
}

// Sum is all of it.
func (u Unspendable) Sum() bitcoin.Amount { return u.Genesis + u.BIP30 + u.Scripts + u.Unclaimed }

const coinStatsSize = 32 + 11*8

func (s *CoinStats) append(dst []byte) []byte {
	dst = append(dst, s.MuHash[:]...)
	u := &s.Unspendable
	for _, v := range [...]uint64{s.Outputs, s.BogoSize, uint64(s.Amount), uint64(s.Subsidy), s.Spent, s.Created,
		s.Coinbase, uint64(u.Genesis), uint64(u.BIP30), uint64(u.Scripts), uint64(u.Unclaimed)} {
		dst = binary.BigEndian.AppendUint64(dst, v)
	}
	return dst
}

func parseCoinStats(b []byte) (s CoinStats, ok bool) {
	if len(b) != coinStatsSize {
		return s, false
	}
	copy(s.MuHash[:], b)
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[32+8*i:]) }
	amount := func(i int) bitcoin.Amount { return bitcoin.Amount(at(i)) }
	s.Outputs, s.BogoSize, s.Amount, s.Subsidy = at(0), at(1), amount(2), amount(3)
	s.Spent, s.Created, s.Coinbase = at(4), at(5), at(6)
	s.Unspendable = Unspendable{amount(7), amount(8), amount(9), amount(10)}
	return s, true
}

// BogoSize is a size of a coin that depends on no database (Core's GetBogoSize): id, index, height, amount,
// length of the script and script.
func BogoSize(scriptLen int) uint64 { return 32 + 4 + 4 + 8 + 2 + uint64(scriptLen) }

// AppendCoin appends a coin as the hashes of the set of coins take it (Core's TxOutSer).
func AppendCoin(dst []byte, out bitcoin.OutPoint, coin *consensus.Coin) []byte {
	code := uint32(coin.Height) << 1
	if coin.Coinbase {
		code |= 1
	}
	dst = binary.LittleEndian.AppendUint32(out.Append(dst), code)
	return coin.Out.Append(dst)
}

// CoinStatsIndex has statistics of the coins as of each block, those that were taken back too.
type CoinStatsIndex struct{ Index }

func openCoinStats(cfg Config) (*CoinStatsIndex, error) {
	x := &CoinStatsIndex{Index{name: "coinstatsindex", cfg: cfg}}
	return x, x.open(cfg.FS.PathJoin(cfg.Dir, "coinstatsindex", "db"), &statsKeeper{x: &x.Index})
}

// Stats returns the statistics as of a block. The error is ErrNotFound where there are none.
func (x *CoinStatsIndex) Stats(block bitcoin.Hash) (CoinStats, error) { return x.stats(block) }

func (x *Index) stats(block bitcoin.Hash) (CoinStats, error) {
	return readRecord(x, keyStats, block, parseCoinStats)
}

// statsKeeper makes the statistics.
type statsKeeper struct {
	x     *Index
	at    chain.Cursor // where stats and set are
	stats CoinStats
	set   MuHash
	buf   []byte
}

func (*statsKeeper) needs() needs                       { return needs{undo: true} }
func (*statsKeeper) revert(*pebble.Batch, *block) error { return nil } // apply sees that it must go back
func (*statsKeeper) sync() error                        { return nil }
func (*statsKeeper) close() error                       { return nil }

// load goes back to the nearest state that is kept, and forward again from there.
func (k *statsKeeper) load(at chain.Cursor) error {
	k.at, k.stats, k.set = chain.Cursor{}, CoinStats{}, MuHash{}
	if at == (chain.Cursor{}) {
		return nil
	}
	h := at.Height
	for ; h >= 0; h-- {
		e, ok := k.x.cfg.Chain.Ancestor(at.Hash, h)
		if !ok {
			return fmt.Errorf("Cannot read current %s state; index may be corrupted", k.x.name)
		}
		found, err := k.loadState(e.Hash, h)
		if err != nil {
			return err
		}
		if found {
			break
		}
	}
	for h++; h <= at.Height; h++ {
		e, ok := k.x.cfg.Chain.Ancestor(at.Hash, h)
		if !ok {
			return fmt.Errorf("Cannot read current %s state; index may be corrupted", k.x.name)
		}
		blk, err := k.x.read(e, true)
		if err != nil {
			return err
		}
		if err := k.take(blk); err != nil {
			return err
		}
	}
	return nil
}

// loadState sets the keeper to the state after a block, if that is kept.
func (k *statsKeeper) loadState(hash bitcoin.Hash, h bitcoin.Height) (bool, error) {
	v, err := get(k.x.db, heightKey(keyState, h))
	if err != nil || len(v) != 32+muhashBytes || bitcoin.Hash(v[:32]) != hash {
		return false, err
	}
	if k.stats, err = k.x.stats(hash); err != nil {
		return false, err
	}
	k.set.Load((*[muhashBytes]byte)(v[32:]))
	if k.set.Sum() != k.stats.MuHash {
		return false, fmt.Errorf("Cannot read current %s state; index may be corrupted", k.x.name)
	}
	k.at = chain.Cursor{Hash: hash, Height: h}
	return true, nil
}

func (k *statsKeeper) apply(b *pebble.Batch, blk *block) error {
	if prev := blk.Header.PrevBlock; blk.Height > 0 && prev != k.at.Hash {
		if err := k.load(chain.Cursor{Hash: prev, Height: blk.Height - 1}); err != nil {
			return err
		}
	}
	if err := k.take(blk); err != nil {
		return err
	}
	state := k.set.Bytes()
	value := append(append(make([]byte, 0, 32+muhashBytes), blk.Hash[:]...), state[:]...)
	if old := blk.Height - keptStates; old > 0 && old%stateInterval != 0 {
		if err := b.Delete(heightKey(keyState, old), nil); err != nil {
			return err
		}
	}
	return errors.Join(b.Set(heightKey(keyState, blk.Height), value, nil),
		b.Set(hashKey(keyStats, blk.Hash), k.stats.append(nil), nil))
}

// take adds a block to the statistics (Core's CoinStatsIndex::CustomAppend).
func (k *statsKeeper) take(blk *block) error {
	s := &k.stats
	subsidy := consensus.Subsidy(k.x.cfg.Chain.Network(), blk.Height)
	s.Subsidy += subsidy
	if blk.Height == 0 {
		s.Unspendable.Genesis += subsidy
	} else {
		at := 0
		for i := range blk.body.Txs {
			tx := &blk.body.Txs[i]
			if i == 0 && consensus.IsOverwritten(blk.Height, blk.Hash) {
				s.Unspendable.BIP30 += subsidy
				continue
			}
			k.create(tx, blk.Height, i == 0)
			if i > 0 {
				k.spend(tx, blk.spent.Part(at, at+len(tx.In)))
				at += len(tx.In)
			}
		}
	}
	// What was spent and newly made must be in outputs, or lost; what is in neither was not claimed.
	lost := s.Spent + uint64(s.Subsidy) - (s.Created + s.Coinbase + uint64(s.Unspendable.Sum()))
	if bitcoin.Amount(lost) < 0 {
		return fmt.Errorf("the sums of block %v make no sense", blk.Hash)
	}
	s.Unspendable.Unclaimed += bitcoin.Amount(lost)
	s.MuHash = k.set.Sum()
	k.at = chain.Cursor{Hash: blk.Hash, Height: blk.Height}
	return nil
}

func (k *statsKeeper) create(tx *bitcoin.Tx, h bitcoin.Height, coinbase bool) {
	s, txid := &k.stats, tx.TxID()
	for j := range tx.Out {
		out := &tx.Out[j]
		if script.IsUnspendable(out.Script) {
			s.Unspendable.Scripts += out.Value
			continue
		}
		coin := consensus.Coin{Out: *out, Origin: consensus.Origin{Height: h, Coinbase: coinbase}}
		k.buf = AppendCoin(k.buf[:0], bitcoin.OutPoint{TxID: txid, Index: uint32(j)}, &coin)
		k.set.Insert(k.buf)
		if coinbase {
			s.Coinbase += uint64(out.Value)
		} else {
			s.Created += uint64(out.Value)
		}
		s.Outputs++
		s.Amount += out.Value
		s.BogoSize += BogoSize(len(out.Script))
	}
}

func (k *statsKeeper) spend(tx *bitcoin.Tx, spent consensus.Spent) {
	s := &k.stats
	for j := range tx.In {
		coin := spent.Coin(j)
		k.buf = AppendCoin(k.buf[:0], tx.In[j].PrevOut, &coin)
		k.set.Remove(k.buf)
		s.Spent += uint64(coin.Out.Value)
		s.Outputs--
		s.Amount -= coin.Out.Value
		s.BogoSize -= BogoSize(len(coin.Out.Script))
	}
}
