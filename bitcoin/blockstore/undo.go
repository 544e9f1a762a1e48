package blockstore

import (
	"crypto/sha256"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
)

// appendUndo appends the undo data of a block as Core's rev files have it (Bitcoin Core undo.h): for
// each transaction but the coinbase the coins that it spends.
func appendUndo(dst []byte, b *bitcoin.Block, undo consensus.Spent) []byte {
	txs := b.Txs[1:]
	dst = bitcoin.AppendCompactSize(dst, uint64(len(txs)))
	input := 0
	for i := range txs {
		dst = bitcoin.AppendCompactSize(dst, uint64(len(txs[i].In)))
		for range txs[i].In {
			origin := undo.Origins[input]
			dst = appendVarInt(dst, originCode(origin))
			if origin.Height > 0 {
				dst = append(dst, 0) // once the version of the transaction that was spent
			}
			dst = appendOut(dst, &undo.Outs[input])
			input++
		}
	}
	return dst
}

// parseUndo reads what appendUndo wrote.
func parseUndo(b []byte) (consensus.Spent, error) {
	d := decoder{b: b}
	var undo consensus.Spent
	for range d.compactSize() {
		if d.err != nil {
			break
		}
		for range d.compactSize() {
			if d.err != nil {
				break
			}
			origin := codeOrigin(d.varInt())
			if origin.Height > 0 {
				d.varInt()
			}
			undo.Origins = append(undo.Origins, origin)
			undo.Outs = append(undo.Outs, d.out())
		}
	}
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("%d octets too many", len(d.b))
	}
	return undo, d.err
}

// undoChecksum is what follows undo data in a file: a hash of the block before and the data.
func undoChecksum(prev bitcoin.Hash, undo []byte) bitcoin.Hash {
	h := sha256.New()
	h.Write(prev[:])
	h.Write(undo)
	var once bitcoin.Hash
	return sha256.Sum256(h.Sum(once[:0]))
}
