package consensus

import (
	"bytes"
	"slices"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// Skip leaves out checks that a block which is still to be mined cannot pass.
type Skip uint8

// What can be left out of CheckBlock.
const (
	SkipProofOfWork Skip = 1 << iota // of a signet block its solution, too
	SkipMerkleRoot
)

// CheckBlock judges what can be said of a block by itself (Bitcoin Core validation.cpp,
// CheckBlock). The witnesses are not looked at, for what they must be is known only where the block
// stands in a chain: see CheckBlockAt. Who takes blocks from strangers asks IsMutated first: a copy
// of a signet block that was tampered with has no solution, which would count as its miner's fault.
func CheckBlock(net *bitcoin.Network, b *bitcoin.Block, skip Skip) error {
	return checkBlock(net, b, b.Hash(), skip, make([]uint32, len(b.Txs)))
}

// checkBlock is CheckBlock, and sets sigOps to the legacy signature operations of each transaction.
// What could be the fault of whoever passed the block on comes before the transactions, which are
// the fault of its miner: else a block could be made to look invalid by tampering with a copy.
func checkBlock(
	net *bitcoin.Network, b *bitcoin.Block, hash bitcoin.Hash, skip Skip, sigOps []uint32,
) error {
	if skip&SkipProofOfWork == 0 {
		if err := checkProofOfWork(net, &b.Header, hash); err != nil {
			return err
		}
		if net.SignetChallenge != nil && hash != net.Genesis.Hash() && !solvesSignet(net, b) {
			return invalid("bad-signet-blksig", "signet block signature validation failure")
		}
	}
	if skip&SkipMerkleRoot == 0 {
		if err := checkMerkleRoot(b); err != nil {
			return err
		}
	}
	if err := checkForm(b); err != nil {
		return err
	}
	for i := range b.Txs {
		if err := CheckTransaction(&b.Txs[i]); err != nil {
			e := err.(*Error)
			return invalid(e.Reason, "Transaction check failed (tx hash %v) %s",
				b.Txs[i].TxID(), e.Debug)
		}
	}
	return checkLegacySigOps(b, sigOps)
}

// checkMerkleRoot tells a block whose transactions are not those of its header, be it that its list
// ends in a repetition (CVE-2012-2459).
func checkMerkleRoot(b *bitcoin.Block) error {
	root, mutated := b.MerkleRoot()
	if root != b.Header.MerkleRoot {
		return &Error{KindMutated, "bad-txnmrklroot", "hashMerkleRoot mismatch"}
	}
	if mutated {
		return &Error{KindMutated, "bad-txns-duplicate", "duplicate transaction"}
	}
	return nil
}

// checkForm judges the size without witnesses and the place of the coinbase.
func checkForm(b *bitcoin.Block) error {
	const limit = MaxBlockWeight / bitcoin.WitnessScale
	if len(b.Txs) == 0 || b.BaseSize() > limit {
		return invalid("bad-blk-length", "size limits failed")
	}
	if !b.Txs[0].IsCoinbase() {
		return invalid("bad-cb-missing", "first tx is not coinbase")
	}
	for i := range b.Txs[1:] {
		if b.Txs[i+1].IsCoinbase() {
			return invalid("bad-cb-multiple", "more than one coinbase")
		}
	}
	return nil
}

// checkLegacySigOps counts the signature operations that show without looking at coins or
// witnesses; Connect counts all.
func checkLegacySigOps(b *bitcoin.Block, sigOps []uint32) error {
	total := 0
	for i := range b.Txs {
		n := script.LegacySigOps(&b.Txs[i])
		sigOps[i] = uint32(n)
		total += n
	}
	if total*bitcoin.WitnessScale > MaxBlockSigOpsCost {
		return invalid("bad-blk-sigops", "out-of-bounds SigOpCount")
	}
	return nil
}

// CheckBlockAt judges what a block that has passed CheckBlock owes to its place as the successor of
// a State, coins apart (Bitcoin Core validation.cpp, ContextualCheckBlock).
func CheckBlockAt(s State, b *bitcoin.Block) error {
	net, height := s.Network, s.Height+1
	now := int64(b.Header.Time)
	if height >= net.CSVHeight { // BIP 113
		now = int64(s.MedianTimePast())
	}
	for i := range b.Txs {
		if !IsFinal(&b.Txs[i], height, now) {
			return invalid("bad-txns-nonfinal", "non-final transaction")
		}
	}
	if height >= net.BIP34Height {
		want := script.AppendInt(nil, int64(height))
		if !bytes.HasPrefix(b.Txs[0].In[0].Script, want) {
			return invalid("bad-cb-height", "block height mismatch in coinbase")
		}
	}
	if err := checkWitness(b, height >= net.SegwitHeight); err != nil {
		return err
	}
	// Only now, for before it was not certain that the witnesses, which weigh, are the miner's.
	if b.Weight() > MaxBlockWeight {
		return invalid("bad-blk-weight", "ContextualCheckBlock : weight limit failed")
	}
	return nil
}

// commitmentHeader begins the script of the coinbase output that commits to the witnesses (BIP 141,
// "Commitment structure"); 32 octets follow, and whatever else.
var commitmentHeader = []byte{byte(script.OpReturn), 0x24, 0xaa, 0x21, 0xa9, 0xed}

// WitnessCommitment returns the number of the coinbase output that commits to the witnesses, the
// last one of that form, or -1.
func WitnessCommitment(coinbase *bitcoin.Tx) int {
	const size = 6 + 32
	for i, out := range slices.Backward(coinbase.Out) {
		if len(out.Script) >= size && bytes.HasPrefix(out.Script, commitmentHeader) {
			return i
		}
	}
	return -1
}

// checkWitness tells a block whose witnesses are not those that its coinbase commits to, or that
// has witnesses nothing commits to (Bitcoin Core validation.cpp, CheckWitnessMalleation).
func checkWitness(b *bitcoin.Block, segwit bool) error {
	if segwit && len(b.Txs) > 0 {
		if out := WitnessCommitment(&b.Txs[0]); out >= 0 {
			return checkCommitment(b, b.Txs[0].Out[out].Script[len(commitmentHeader):][:32])
		}
	}
	for i := range b.Txs {
		if b.Txs[i].HasWitness() {
			return &Error{KindMutated, "unexpected-witness",
				"CheckWitnessMalleation : unexpected witness data found"}
		}
	}
	return nil
}

func checkCommitment(b *bitcoin.Block, commitment []byte) error {
	reserved := b.Txs[0].In[0].Witness
	if len(reserved) != 1 || len(reserved[0]) != 32 {
		return &Error{KindMutated, "bad-witness-nonce-size",
			"CheckWitnessMalleation : invalid witness reserved value size"}
	}
	if hash := CommitmentHash(b, [32]byte(reserved[0])); !bytes.Equal(hash[:], commitment) {
		return &Error{KindMutated, "bad-witness-merkle-match",
			"CheckWitnessMalleation : witness merkle commitment mismatch"}
	}
	return nil
}

// CommitmentHash returns what the coinbase must commit to, given the reserved value in its witness.
func CommitmentHash(b *bitcoin.Block, reserved [32]byte) bitcoin.Hash {
	root := b.WitnessMerkleRoot()
	return bitcoin.DoubleHash(append(root[:], reserved[:]...))
}

// CommitmentScript returns the script of the output that commits to the hash.
func CommitmentScript(hash bitcoin.Hash) []byte {
	return slices.Concat(commitmentHeader, hash[:])
}

// IsMutated reports whether the transactions of a block are certainly not those that its miner put
// into it, so that the block is not worth storing and says nothing about its header (Bitcoin Core
// validation.cpp, IsBlockMutated). Where segwit is false only the Merkle root counts and no witness
// may be there.
func IsMutated(b *bitcoin.Block, segwit bool) bool {
	if checkMerkleRoot(b) != nil {
		return true
	}
	if len(b.Txs) == 0 || !b.Txs[0].IsCoinbase() {
		// A transaction of 64 octets can stand for a node of the tree, which gives two lists the
		// same root. The rules allow such a transaction, but no block without a coinbase.
		return slices.ContainsFunc(b.Txs, func(tx bitcoin.Tx) bool { return tx.BaseSize() == 64 })
	}
	return checkWitness(b, segwit) != nil
}
