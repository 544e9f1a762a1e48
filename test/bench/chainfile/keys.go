package chainfile

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
	"github.com/tallypost/tallypost/bitcoin/secp"
)

// kind is a type of output.
type kind uint8

const (
	p2pkh kind = iota
	p2wpkh
	p2shWpkh
	p2wshMulti // 2 of 3
	p2trKey
	p2trScript
	bareMulti // 1 of 2
)

// mix is what twenty coins in a row are: about what blocks of late years hold, with a share of each
// rarer type that shows.
var mix = [20]kind{
	p2wpkh, p2pkh, p2trKey, p2wpkh, p2shWpkh, p2pkh, p2wshMulti, p2wpkh, p2trScript, p2pkh,
	p2wpkh, p2trKey, bareMulti, p2wpkh, p2pkh, p2shWpkh, p2trKey, p2wshMulti, p2wpkh, p2pkh,
}

// keyring holds the keys of all coins. Coin n has the keys n, n+1 and n+2, in a ring.
type keyring struct {
	keys    [1021]*secp.PrivateKey
	public  [1021][33]byte
	tweaked [1021]*secp.PrivateKey // for P2TR without scripts
	taproot [1021][32]byte         // their outputs
	scripts [1021]tapscript
}

// tapscript is an output of P2TR with one leaf.
type tapscript struct {
	leaf    []byte // <key> OP_CHECKSIG
	output  [32]byte
	control []byte // shows that the leaf is in the output
}

func newKeyring() (*keyring, error) {
	r := new(keyring)
	err := parallel(len(r.keys), func(i int) error {
		seed := sha256.Sum256(binary.LittleEndian.AppendUint32([]byte("chainfile"), uint32(i)))
		key, err := secp.ParsePrivateKey(&seed) // fails once in 2^127
		if err != nil {
			return err
		}
		r.keys[i], r.public[i] = key, key.PublicKey().Compressed()
		if r.tweaked[i], err = key.TapTweak(nil); err != nil {
			return err
		}
		r.taproot[i] = r.tweaked[i].PublicKey().XOnly()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, parallel(len(r.keys), r.makeTapscript)
}

const tapLeafVersion = 0xc0

// makeTapscript makes the output with key i in it, whose leaf the next key signs.
func (r *keyring) makeTapscript(i int) error {
	t, internal := &r.scripts[i], [32]byte(r.pub(i)[1:])
	t.leaf = new(script.Builder).Push(r.pub(i + 1)[1:]).Op(script.OpCheckSig).Script()
	root := script.TapLeafHash(tapLeafVersion, t.leaf)
	output, odd, err := secp.TaprootOutput(&internal, root[:])
	version := byte(tapLeafVersion)
	if odd {
		version++
	}
	t.output, t.control = output, append([]byte{version}, internal[:]...)
	return err
}

// parallel calls f for each number below n on all processors, and returns one of the errors.
func parallel(n int, f func(i int) error) error {
	workers := runtime.GOMAXPROCS(0)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				errs[w] = f(i)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *keyring) pub(n int) []byte { return r.public[n%len(r.public)][:] }

// output returns the script of coin n.
func (r *keyring) output(n int) []byte {
	switch mix[n%len(mix)] {
	case p2pkh:
		return script.PayToPubKeyHash(script.Hash160(r.pub(n)))
	case p2wpkh:
		return r.payment(n)
	case p2shWpkh:
		return script.PayToScriptHash(script.Hash160(r.payment(n)))
	case p2wshMulti:
		program := sha256.Sum256(r.multisig(n))
		return script.PayToWitness(0, program[:])
	case p2trKey:
		return script.PayToWitness(1, r.taproot[n%len(r.taproot)][:])
	case p2trScript:
		return script.PayToWitness(1, r.scripts[n%len(r.scripts)].output[:])
	default:
		return script.Multisig(1, [][]byte{r.pub(n), r.pub(n + 1)})
	}
}

// payment returns the P2WPKH script of key n.
func (r *keyring) payment(n int) []byte {
	hash := script.Hash160(r.pub(n))
	return script.PayToWitness(0, hash[:])
}

func (r *keyring) multisig(n int) []byte {
	return script.Multisig(2, [][]byte{r.pub(n), r.pub(n + 1), r.pub(n + 2)})
}

// draft is a transaction that is to be signed.
type draft struct {
	tx    *bitcoin.Tx
	spent []bitcoin.TxOut
	coins []int  // that the inputs spend
	kinds []kind // of them
}

// draft makes a transaction that spends coins, with two outputs of P2WPKH.
func (r *keyring) draft(where []bitcoin.OutPoint, coins []int, random *rand.Rand) draft {
	d := draft{tx: &bitcoin.Tx{Version: 2}, coins: coins}
	for _, n := range coins {
		d.tx.In = append(d.tx.In, bitcoin.TxIn{PrevOut: where[n], Sequence: 0xfffffffd})
		d.spent = append(d.spent, bitcoin.TxOut{Value: coinValue, Script: r.output(n)})
		d.kinds = append(d.kinds, mix[n%len(mix)])
	}
	r.pay(d.tx, len(coins), random)
	return d
}

// paymentDraft is draft for one coin that is a payment.
func (r *keyring) paymentDraft(where []bitcoin.OutPoint, n int, random *rand.Rand) draft {
	d := draft{
		tx: &bitcoin.Tx{Version: 2,
			In: []bitcoin.TxIn{{PrevOut: where[n], Sequence: 0xfffffffd}}},
		spent: []bitcoin.TxOut{{Value: coinValue, Script: r.payment(n)}},
		coins: []int{n},
		kinds: []kind{p2wpkh},
	}
	r.pay(d.tx, 1, random)
	return d
}

// pay adds outputs worth a number of coins less the fee.
func (r *keyring) pay(tx *bitcoin.Tx, coins int, random *rand.Rand) {
	const fee = 2000 // of each coin
	half := bitcoin.Amount(coins) * (coinValue - fee) / 2
	for range 2 {
		to := r.payment(random.IntN(len(r.keys)))
		tx.Out = append(tx.Out, bitcoin.TxOut{Value: half, Script: to})
	}
}

// signAll signs transactions on all processors.
func (r *keyring) signAll(drafts []draft) ([]bitcoin.Tx, error) {
	txs := make([]bitcoin.Tx, len(drafts))
	err := parallel(len(drafts), func(i int) error {
		if err := r.sign(&drafts[i]); err != nil {
			return err
		}
		txs[i] = *drafts[i].tx
		return nil
	})
	return txs, err
}

func (r *keyring) sign(d *draft) error {
	s := signer{r: r, tx: d.tx}
	s.spending.InitForSigning(d.tx, d.spent)
	for i, n := range d.coins {
		if err := s.input(i, n, d.kinds[i]); err != nil {
			return err
		}
	}
	return nil
}
