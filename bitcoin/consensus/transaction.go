package consensus

import (
	"fmt"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
)

const (
	// MaxBlockWeight is the largest weight of a block (BIP 141, "Block size").
	MaxBlockWeight = 4_000_000
	// MaxBlockSigOpsCost is the largest cost of the signature checks in a block (BIP 141,
	// "Sigops").
	MaxBlockSigOpsCost = 80_000
	// CoinbaseMaturity is how many blocks deep a coinbase must be before it is spent.
	CoinbaseMaturity = 100
)

// CheckTransaction judges what can be said of a transaction by itself (Bitcoin Core
// consensus/tx_check.cpp). It looks at no witness, which is not known to be the right one yet.
func CheckTransaction(tx *bitcoin.Tx) error {
	switch {
	case len(tx.In) == 0:
		return invalid("bad-txns-vin-empty", "")
	case len(tx.Out) == 0:
		return invalid("bad-txns-vout-empty", "")
	case tx.BaseSize()*bitcoin.WitnessScale > MaxBlockWeight:
		return invalid("bad-txns-oversize", "")
	}
	if err := checkOutputs(tx.Out); err != nil {
		return err
	}
	// CVE-2018-17144: were this left to the coins, one coin could be spent twice by one
	// transaction.
	if spendsTwice(tx.In) {
		return invalid("bad-txns-inputs-duplicate", "")
	}
	if tx.IsCoinbase() {
		if n := len(tx.In[0].Script); n < 2 || n > 100 {
			return invalid("bad-cb-length", "")
		}
		return nil
	}
	for i := range tx.In {
		if tx.In[i].PrevOut.IsNull() {
			return invalid("bad-txns-prevout-null", "")
		}
	}
	return nil
}

// checkOutputs holds each amount and their sum against the range of money (CVE-2010-5139).
func checkOutputs(outs []bitcoin.TxOut) error {
	var sum bitcoin.Amount
	for i := range outs {
		switch value := outs[i].Value; {
		case value < 0:
			return invalid("bad-txns-vout-negative", "")
		case value > bitcoin.MaxMoney:
			return invalid("bad-txns-vout-toolarge", "")
		default:
			sum += value
		}
		if !sum.Valid() {
			return invalid("bad-txns-txouttotal-toolarge", "")
		}
	}
	return nil
}

// spendsTwice reports whether two inputs spend the same output. Most transactions have a few
// inputs, for which comparing each with each is the fastest way.
func spendsTwice(ins []bitcoin.TxIn) bool {
	if len(ins) > 24 {
		seen := newOutpoints(len(ins))
		for i := range ins {
			if _, fresh := seen.add(&ins[i].PrevOut); !fresh {
				return true
			}
		}
		return false
	}
	for i := range ins {
		for j := range i {
			if ins[i].PrevOut == ins[j].PrevOut {
				return true
			}
		}
	}
	return false
}

// CheckInputs judges a transaction that is not a coinbase against the coins that its inputs spend,
// in a block of this height, and returns the fee (Bitcoin Core consensus/tx_verify.cpp,
// CheckTxInputs). The transaction must have passed CheckTransaction.
func CheckInputs(
	tx *bitcoin.Tx, spent Spent, height bitcoin.Height,
) (fee bitcoin.Amount, err error) {
	for _, origin := range spent.Origins {
		if origin.IsSpent() {
			return 0, missingInputs()
		}
	}
	var in bitcoin.Amount
	for i, origin := range spent.Origins {
		if depth := height - origin.Height; origin.Coinbase && depth < CoinbaseMaturity {
			return 0, &Error{KindPrematureSpend, "bad-txns-premature-spend-of-coinbase",
				fmt.Sprintf("tried to spend coinbase at depth %d", depth)}
		}
		value := spent.Outs[i].Value
		if in += value; !value.Valid() || !in.Valid() {
			return 0, invalid("bad-txns-inputvalues-outofrange", "")
		}
	}
	out := sum(tx.Out)
	if in < out {
		return 0, invalid("bad-txns-in-belowout", "value in (%s) < value out (%s)",
			formatMoney(in), formatMoney(out))
	}
	// Core has one more check here, bad-txns-fee-outofrange, that nothing can fail: 0 <= in-out <=
	// in.
	return in - out, nil
}

func missingInputs() error {
	return &Error{KindMissingInputs, "bad-txns-inputs-missingorspent",
		"CheckTxInputs: inputs missing/spent"}
}

// sum adds amounts that CheckTransaction found to be in range.
func sum(outs []bitcoin.TxOut) (sum bitcoin.Amount) {
	for i := range outs {
		sum += outs[i].Value
	}
	return sum
}

// formatMoney writes an amount in bitcoins with at least two decimals (Bitcoin Core
// util/moneystr.cpp).
func formatMoney(a bitcoin.Amount) string {
	s := fmt.Sprintf("%d.%08d", a/bitcoin.Coin, a%bitcoin.Coin)
	short := strings.TrimRight(s, "0")
	return s[:max(len(short), len(s)-6)]
}
