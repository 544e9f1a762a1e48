package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// signetHeader begins the push in the witness commitment's output that holds the solution of a
// signet block (BIP 325, "Block solution").
var signetHeader = []byte{0xec, 0xc7, 0xda, 0xa2}

// signetFlags are the rules that a solution is held to, whatever the height.
const signetFlags = script.VerifyP2SH | script.VerifyWitness | script.VerifyDERSig |
	script.VerifyNullDummy

// solvesSignet reports whether the block carries a solution of the network's challenge: the input
// of a transaction that signs the block and stands nowhere (Bitcoin Core signet.cpp).
func solvesSignet(net *bitcoin.Network, b *bitcoin.Block) bool {
	challenge, solution, err := SignetTxs(net, b)
	if err != nil {
		return false
	}
	var spending script.Spending
	spending.Init(solution, challenge.Out)
	return new(script.Verifier).VerifyInput(&spending, 0, signetFlags) == nil
}

// SignetTxs returns the two transactions of BIP 325: one with the network's challenge as output,
// whose input commits to the block without its solution, and the one that spends it, with the
// solution.
func SignetTxs(
	net *bitcoin.Network, b *bitcoin.Block,
) (challenge, solution *bitcoin.Tx, err error) {
	if len(b.Txs) == 0 {
		return nil, nil, errors.New("no coinbase")
	}
	coinbase := b.Txs[0].Clone()
	at := WitnessCommitment(coinbase)
	if at < 0 {
		return nil, nil, errors.New("no witness commitment")
	}
	solution = &bitcoin.Tx{
		In:  []bitcoin.TxIn{{}},
		Out: []bitcoin.TxOut{{Script: []byte{byte(script.OpReturn)}}},
	}
	if stripped, data, found := cutSolution(coinbase.Out[at].Script); found {
		coinbase.Out[at].Script = stripped
		if err := readSolution(&solution.In[0], data); err != nil {
			return nil, nil, err
		}
	} // Without a solution the challenge may still be one that needs none.
	challenge = &bitcoin.Tx{
		In: []bitcoin.TxIn{{
			PrevOut: bitcoin.OutPoint{Index: 0xffffffff},
			Script:  script.AppendPush([]byte{byte(script.Op0)}, signedData(b, coinbase)),
		}},
		Out: []bitcoin.TxOut{{Script: net.SignetChallenge}},
	}
	solution.In[0].PrevOut.TxID = challenge.TxID()
	return challenge, solution, nil
}

// cutSolution takes the solution out of the commitment's script: the first push that begins with
// signetHeader and goes on keeps the header only. All pushes get the shortest form, and what cannot
// be read at the end is lost.
func cutSolution(commitment []byte) (stripped, solution []byte, found bool) {
	for rest := commitment; ; {
		op, data, after, ok := script.Next(rest)
		if !ok {
			return stripped, solution, found
		}
		if !found && len(data) > len(signetHeader) && bytes.HasPrefix(data, signetHeader) {
			solution, data, found = data[len(signetHeader):], signetHeader, true
		}
		if len(data) > 0 {
			stripped = script.AppendPush(stripped, data)
		} else {
			stripped = append(stripped, byte(op))
		}
		rest = after
	}
}

// readSolution reads the script and the witness stack of the solving input, which fill b.
func readSolution(in *bitcoin.TxIn, b []byte) (err error) {
	if in.Script, b, err = readVarBytes(b); err != nil {
		return err
	}
	n, size, err := bitcoin.ReadCompactSize(b)
	if err != nil {
		return err
	}
	for b = b[size:]; n > 0; n-- {
		var item []byte
		if item, b, err = readVarBytes(b); err != nil {
			return err
		}
		in.Witness = append(in.Witness, item)
	}
	if len(b) > 0 {
		return bitcoin.ErrTrailingData
	}
	return nil
}

func readVarBytes(b []byte) (data, rest []byte, err error) {
	n, size, err := bitcoin.ReadCompactSize(b)
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(b)-size) {
		return nil, nil, bitcoin.ErrEndOfData
	}
	end := size + int(n)
	return b[size:end:end], b[end:], nil
}

// signedData returns what a solution signs: the header with the Merkle root that the coinbase
// without solution gives, up to the time.
func signedData(b *bitcoin.Block, coinbase *bitcoin.Tx) []byte {
	leaves := make([]bitcoin.Hash, len(b.Txs))
	leaves[0] = coinbase.TxID()
	for i := 1; i < len(b.Txs); i++ {
		leaves[i] = b.Txs[i].TxID()
	}
	root, _ := bitcoin.MerkleRoot(leaves)
	data := binary.LittleEndian.AppendUint32(nil, uint32(b.Header.Version))
	data = append(data, b.Header.PrevBlock[:]...)
	data = append(data, root[:]...)
	return binary.LittleEndian.AppendUint32(data, b.Header.Time)
}
