package chainfile

import (
	"math/rand/v2"

	"github.com/tallypost/tallypost/bitcoin"
)

const (
	// fundedEach is how many outputs a transaction has that makes coins.
	fundedEach = 1000
	// fundsPerBlock is how many such transactions a block takes: the signature operations that Core
	// counts for bare multisig limit it.
	fundsPerBlock = 10
	// inputsPerBlock is how many inputs of all types a block has.
	inputsPerBlock = 4000
	// coinValue is what each coin is worth.
	coinValue = 10_000
)

// spread makes the coins that the keys' outputs stand for, and returns where they are.
func (m *maker) spread(n int, output func(n int) []byte) ([]bitcoin.OutPoint, error) {
	coins := make([]bitcoin.OutPoint, 0, n)
	for len(coins) < n {
		var txs []bitcoin.Tx
		for len(txs) < fundsPerBlock && len(coins) < n {
			outs := make([]bitcoin.TxOut, min(fundedEach, n-len(coins)))
			for i := range outs {
				outs[i] = bitcoin.TxOut{Value: coinValue, Script: output(len(coins) + i)}
			}
			tx, err := m.fund(outs)
			if err != nil {
				return nil, err
			}
			id := tx.TxID()
			for i := range outs {
				coins = append(coins, bitcoin.OutPoint{TxID: id, Index: uint32(i)})
			}
			txs = append(txs, *tx)
		}
		if err := m.block(txs); err != nil {
			return nil, err
		}
	}
	return coins, nil
}

// scripts makes coins of all common types and spends them in random order: one to three in a
// transaction with two outputs.
func (m *maker) scripts(inputs int) error {
	keys, err := newKeyring()
	if err != nil {
		return err
	}
	if err := m.empty(120); err != nil {
		return err
	}
	coins, err := m.spread(inputs, keys.output)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, uint64(inputs)))
	order := random.Perm(inputs)
	for len(order) > 0 {
		var drafts []draft
		for count := 0; count < inputsPerBlock && len(order) > 0; {
			n := min(1+random.IntN(3), len(order))
			drafts = append(drafts, keys.draft(coins, order[:n], random))
			order, count = order[n:], count+n
		}
		txs, err := keys.signAll(drafts)
		if err != nil {
			return err
		}
		if err := m.block(txs); err != nil {
			return err
		}
	}
	return m.assume()
}

// payments makes coins that one key signs for, and blocks of transactions with one input and two
// outputs of that kind.
func (m *maker) payments(blocks, txs int) error {
	keys, err := newKeyring()
	if err != nil {
		return err
	}
	if err := m.empty(120); err != nil {
		return err
	}
	coins, err := m.spread(blocks*txs, keys.payment)
	if err != nil {
		return err
	}
	if err := m.tail(); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(2, uint64(blocks*txs)))
	for i := range blocks {
		drafts := make([]draft, txs)
		for j := range drafts {
			drafts[j] = keys.paymentDraft(coins, i*txs+j, random)
		}
		signed, err := keys.signAll(drafts)
		if err != nil {
			return err
		}
		if err := m.block(signed); err != nil {
			return err
		}
	}
	return nil
}

const (
	// cheapEach and cheapPerBlock make blocks of about a megabyte without witnesses.
	cheapEach     = 5000
	cheapPerBlock = 6
	cheapValue    = 600
	// spentEach is how many old coins a transaction of the last blocks spends.
	spentEach     = 40
	spentPerBlock = 550
)

// coins makes coins that are cheap to spend, and spends some of them in random order.
func (m *maker) coins(coins, spends int) error {
	if err := m.empty(120); err != nil {
		return err
	}
	var ids []bitcoin.Hash
	for made := 0; made < coins; {
		var txs []bitcoin.Tx
		for len(txs) < cheapPerBlock && made < coins {
			outs := make([]bitcoin.TxOut, cheapEach)
			for i := range outs {
				outs[i] = bitcoin.TxOut{Value: cheapValue, Script: anyoneScript(uint64(made + i))}
			}
			made += cheapEach
			tx, err := m.fund(outs)
			if err != nil {
				return err
			}
			ids = append(ids, tx.TxID())
			txs = append(txs, *tx)
		}
		if err := m.block(txs); err != nil {
			return err
		}
	}
	if err := m.spendCheap(ids, spends); err != nil {
		return err
	}
	return m.assume()
}

// spendCheap spends coins of the transactions in random order.
func (m *maker) spendCheap(ids []bitcoin.Hash, spends int) error {
	order := rand.New(rand.NewPCG(3, uint64(spends))).Perm(len(ids) * cheapEach)[:spends]
	for len(order) > 0 {
		var txs []bitcoin.Tx
		for len(txs) < spentPerBlock && len(order) > 0 {
			n := min(spentEach, len(order))
			tx := bitcoin.Tx{Version: 2, Out: []bitcoin.TxOut{{
				Value:  bitcoin.Amount(n) * (cheapValue - 100),
				Script: anyoneScript(uint64(order[0])),
			}}}
			for _, coin := range order[:n] {
				tx.In = append(tx.In, bitcoin.TxIn{Sequence: 0xffffffff, PrevOut: bitcoin.OutPoint{
					TxID: ids[coin/cheapEach], Index: uint32(coin % cheapEach)}})
			}
			order = order[n:]
			txs = append(txs, tx)
		}
		if err := m.block(txs); err != nil {
			return err
		}
	}
	return nil
}
