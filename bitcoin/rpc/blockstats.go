package rpc

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/blockstore"
	"github.com/tallypost/tallypost/bitcoin/chain"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// coinOverhead is what getblockstats counts for a coin beside its output: outpoint, height and whether a
// coinbase made it (Core's PER_UTXO_OVERHEAD).
const coinOverhead = 36 + 4 + 1

// spentBy returns what a block spends, or an error for the caller.
func (a *API) spentBy(e chain.Entry) (consensus.Spent, error) {
	u, err := a.chain.Undo(e.Hash)
	switch {
	case err == nil:
		return u, nil
	case errors.Is(err, chain.ErrNoUndo) && e.Status&blockstore.HaveData == 0 && e.Txs > 0:
		return u, fail(jsonrpc.MiscError, "Undo data not available (pruned data)")
	case errors.Is(err, chain.ErrNoUndo):
		return u, fail(jsonrpc.MiscError, "Undo data not available")
	}
	return u, fail(jsonrpc.InternalError, "Undo data expected but can't be read. This could be due to disk "+
		"corruption or a conflict with a pruning event.")
}

// parsedBlock returns a block, or an error for the caller.
func (a *API) parsedBlock(ctx context.Context, e chain.Entry) (*bitcoin.Block, error) {
	raw, err := a.rawBlock(ctx, e)
	if err != nil {
		return nil, err
	}
	b, err := bitcoin.ParseBlock(raw)
	if err != nil {
		return nil, fail(jsonrpc.MiscError, "Block not found on disk")
	}
	return b, nil
}

// blockStats gathers the figures of getblockstats.
type blockStats struct {
	ins, outs, totalOut                 int64
	utxos, sizeIncrease, actualIncrease int64
	segwitTxs, segwitSize, segwitWeight int64
	fees, sizes                         spread
	rates                               []weighed
	minRate, maxRate, totalWeight       int64
}

// spread is how some numbers are distributed.
type spread struct {
	all             []int64
	total, min, max int64
}

func (s *spread) add(v int64) {
	if len(s.all) == 0 || v < s.min {
		s.min = v
	}
	s.max = max(s.max, v)
	s.total += v
	s.all = append(s.all, v)
}

// median rounds down between the two in the middle.
func (s *spread) median() int64 {
	n := len(s.all)
	if n == 0 {
		return 0
	}
	slices.Sort(s.all)
	if n%2 == 0 {
		return (s.all[n/2-1] + s.all[n/2]) / 2
	}
	return s.all[n/2]
}

func (s *spread) average() int64 {
	if len(s.all) == 0 {
		return 0
	}
	return s.total / int64(len(s.all))
}

type weighed struct{ rate, weight int64 }

func (s *blockStats) outputs(tx *bitcoin.Tx, counts bool) (sum int64) {
	s.outs += int64(len(tx.Out))
	for i := range tx.Out {
		out := &tx.Out[i]
		sum += int64(out.Value)
		size := outputSize(out) + coinOverhead
		s.sizeIncrease += size
		if counts && !script.IsUnspendable(out.Script) {
			s.utxos++
			s.actualIncrease += size
		}
	}
	return sum
}

func outputSize(out *bitcoin.TxOut) int64 {
	n := len(out.Script)
	return int64(8 + bitcoin.CompactSizeLen(uint64(n)) + n)
}

func (s *blockStats) transaction(tx *bitcoin.Tx, paid int64, spent consensus.Spent) {
	s.ins += int64(len(tx.In))
	s.totalOut += paid
	size, weight := int64(tx.Size()), int64(tx.Weight())
	s.sizes.add(size)
	s.totalWeight += weight
	if tx.HasWitness() {
		s.segwitTxs++
		s.segwitSize += size
		s.segwitWeight += weight
	}
	fee := -paid
	for i := range spent.Outs {
		fee += int64(spent.Outs[i].Value)
		size := outputSize(&spent.Outs[i]) + coinOverhead
		s.sizeIncrease -= size
		s.actualIncrease -= size
	}
	s.fees.add(fee)
	rate := fee * bitcoin.WitnessScale / max(weight, 1)
	if len(s.rates) == 0 || rate < s.minRate {
		s.minRate = rate
	}
	s.maxRate = max(s.maxRate, rate)
	s.rates = append(s.rates, weighed{rate, weight})
}

// percentiles are the fee rates at the 10th, 25th, 50th, 75th and 90th percentile of the weight.
func (s *blockStats) percentiles() []any {
	out := []any{int64(0), int64(0), int64(0), int64(0), int64(0)}
	if len(s.rates) == 0 {
		return out
	}
	slices.SortFunc(s.rates, func(a, b weighed) int {
		return cmp.Or(cmp.Compare(a.rate, b.rate), cmp.Compare(a.weight, b.weight))
	})
	w := float64(s.totalWeight)
	at := []float64{w / 10, w / 4, w / 2, w * 3 / 4, w * 9 / 10}
	next, sum := 0, int64(0)
	for _, r := range s.rates {
		for sum += r.weight; next < len(at) && float64(sum) >= at[next]; next++ {
			out[next] = r.rate
		}
	}
	for ; next < len(at); next++ {
		out[next] = s.rates[len(s.rates)-1].rate
	}
	return out
}

func (a *API) getBlockStats(ctx context.Context, c call) (any, error) {
	e, err := a.hashOrHeight(c.Any(0))
	if err != nil {
		return nil, err
	}
	b, err := a.parsedBlock(ctx, e)
	if err != nil {
		return nil, err
	}
	undo, err := a.spentBy(e)
	if err != nil {
		return nil, err
	}
	var s blockStats
	at := 0
	for i := range b.Txs {
		tx := &b.Txs[i]
		// Neither the first coinbase nor those that overwrote others added a coin.
		paid := s.outputs(tx, e.Height > 0 && !(i == 0 && consensus.IsOverwriting(e.Height, e.Hash)))
		if i > 0 {
			s.transaction(tx, paid, undo.Part(at, at+len(tx.In)))
			at += len(tx.In)
		}
	}
	all := a.blockStatsJSON(e, b, &s)
	if len(c.Array(1)) == 0 {
		return all, nil
	}
	return chosen(all, c.Array(1))
}

// chosen returns the members that are asked for, sorted.
func chosen(all object, names []any) (any, error) {
	var wanted []string
	for _, v := range names {
		name, ok := v.(string)
		if !ok {
			return nil, fail(jsonrpc.TypeError, "JSON value of type %s is not of expected type string",
				jsonrpc.TypeName(v))
		}
		wanted = append(wanted, name)
	}
	slices.Sort(wanted)
	out := object{}
	for _, name := range slices.Compact(wanted) {
		if !all.Has(name) {
			return nil, fail(jsonrpc.InvalidParameter, "Invalid selected statistic '%s'", name)
		}
		out.Set(name, all.Get(name))
	}
	return out, nil
}

func (a *API) blockStatsJSON(e chain.Entry, b *bitcoin.Block, s *blockStats) object {
	averageRate := int64(0)
	if s.totalWeight > 0 {
		averageRate = s.fees.total * bitcoin.WitnessScale / s.totalWeight
	}
	return object{
		{"avgfee", s.fees.average()}, {"avgfeerate", averageRate}, {"avgtxsize", s.sizes.average()},
		{"blockhash", e.Hash}, {"feerate_percentiles", s.percentiles()}, {"height", e.Height}, {"ins", s.ins},
		{"maxfee", s.fees.max}, {"maxfeerate", s.maxRate}, {"maxtxsize", s.sizes.max},
		{"medianfee", s.fees.median()}, {"mediantime", e.Median}, {"mediantxsize", s.sizes.median()},
		{"minfee", s.fees.min}, {"minfeerate", s.minRate}, {"mintxsize", s.sizes.min}, {"outs", s.outs},
		{"subsidy", int64(consensus.Subsidy(a.net, e.Height))}, {"swtotal_size", s.segwitSize},
		{"swtotal_weight", s.segwitWeight}, {"swtxs", s.segwitTxs}, {"time", e.Header.Time},
		{"total_out", s.totalOut}, {"total_size", s.sizes.total}, {"total_weight", s.totalWeight},
		{"totalfee", s.fees.total}, {"txs", len(b.Txs)}, {"utxo_increase", s.outs - s.ins},
		{"utxo_size_inc", s.sizeIncrease}, {"utxo_increase_actual", s.utxos - s.ins},
		{"utxo_size_inc_actual", s.actualIncrease},
	}
}
