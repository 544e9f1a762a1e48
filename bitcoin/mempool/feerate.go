package mempool

import (
	"cmp"
	"fmt"
	"math/bits"

	"github.com/tallypost/tallypost/bitcoin"
)

// FeeRate is a number of satoshis for a thousand virtual bytes.
type FeeRate int64

// Fee returns the fee for a size at this rate, rounded up.
func (r FeeRate) Fee(vsize int) bitcoin.Amount {
	return bitcoin.Amount((int64(r)*int64(vsize) + 999) / 1000)
}

// String returns the rate as Core writes it.
func (r FeeRate) String() string {
	return fmt.Sprintf("%d.%08d BTC/kvB", r/FeeRate(bitcoin.Coin), r%FeeRate(bitcoin.Coin))
}

// Rate returns the rate of a fee for a size, rounded down.
func Rate(fee bitcoin.Amount, vsize int) FeeRate {
	if vsize <= 0 {
		return 0
	}
	r := FeeRate(int64(fee) * 1000 / int64(vsize))
	if int64(fee)*1000 < int64(r)*int64(vsize) {
		r-- // the division rounds towards zero
	}
	return r
}

// Price is a fee for a weight. Transactions and sets of them are ordered by the quotient.
type Price struct {
	Fee    bitcoin.Amount
	Weight int64
}

func (p Price) add(q Price) Price { return Price{p.Fee + q.Fee, p.Weight + q.Weight} }
func (p Price) sub(q Price) Price { return Price{p.Fee - q.Fee, p.Weight - q.Weight} }

// Rate returns the price for a thousand virtual bytes.
func (p Price) Rate() FeeRate { return Rate(p.Fee, p.vsize()) }

// vsize returns the weight in virtual bytes, rounded up.
func (p Price) vsize() int {
	return int((p.Weight + bitcoin.WitnessScale - 1) / bitcoin.WitnessScale)
}

// Cmp compares the quotients of two prices: negative where p pays less for its weight than q.
func (p Price) Cmp(q Price) int { return cmpProducts(int64(p.Fee), q.Weight, int64(q.Fee), p.Weight) }

// cmpProducts compares a*b with c*d in 128 bits, which fees of many transactions times their weight
// need. b and d are not negative.
func cmpProducts(a, b, c, d int64) int {
	hi1, lo1 := product(a, b)
	hi2, lo2 := product(c, d)
	return cmp.Or(cmp.Compare(hi1, hi2), cmp.Compare(lo1, lo2))
}

func product(a, b int64) (hi int64, lo uint64) {
	high, lo := bits.Mul64(uint64(a), uint64(b))
	hi = int64(high)
	if a < 0 { // uint64(a) was 2^64 too much
		hi -= b
	}
	return hi, lo
}
