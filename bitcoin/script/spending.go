package script

import (
	"encoding/binary"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
)

// Spending is a transaction with the outputs that its inputs spend and the hashes that its inputs
// share: each part of the transaction is hashed once, not once for each signature. After Init it is
// only read, and any number of Verifiers may verify its inputs at the same time. Init again uses
// its memory again.
type Spending struct {
	tx    *bitcoin.Tx
	spent []bitcoin.TxOut

	// BIP 341, "Common signature message": SHA-256 of what all inputs or outputs have.
	prevouts, sequences, outputs, amounts, scripts [32]byte

	// BIP 143: SHA-256 of the first three of them.
	doublePrevouts, doubleSequences, doubleOutputs [32]byte

	segwit, taproot bool // which of the hashes are there

	// blank is the encoding of the transaction with empty scripts, as it is hashed before BIP 143;
	// the first input begins at firstInput. It is empty where no input looks as if it needed it.
	blank      []byte
	firstInput int
	scratch    hasher
}

// inputSize is the number of octets of an input with an empty script.
const inputSize = 36 + 1 + 4

// Init prepares the inputs of tx for verification. spent holds the output that each input spends,
// in the order of the inputs; a wrong number of them is a fault of the caller, so Init panics.
func (s *Spending) Init(tx *bitcoin.Tx, spent []bitcoin.TxOut) {
	var segwit, taproot, legacy bool
	for i := range min(len(tx.In), len(spent)) {
		switch script := spent[i].Script; {
		case len(tx.In[i].Witness) == 0:
			legacy = true
		case IsPayToTaproot(script):
			taproot = true
		default: // a program of version 0, bare or within P2SH, or nothing that could succeed
			segwit = true
		}
	}
	s.init(tx, spent, segwit, taproot, legacy)
}

// InitForSigning prepares tx where its inputs do not show yet what signatures they will need.
func (s *Spending) InitForSigning(tx *bitcoin.Tx, spent []bitcoin.TxOut) {
	s.init(tx, spent, true, true, true)
}

// Tx returns the transaction.
func (s *Spending) Tx() *bitcoin.Tx { return s.tx }

// Spent returns the output that an input spends.
func (s *Spending) Spent(input int) *bitcoin.TxOut { return &s.spent[input] }

func (s *Spending) init(tx *bitcoin.Tx, spent []bitcoin.TxOut, segwit, taproot, legacy bool) {
	if len(spent) != len(tx.In) {
		panic(fmt.Sprintf("script: %d spent outputs for %d inputs", len(spent), len(tx.In)))
	}
	s.tx, s.spent = tx, spent
	s.segwit, s.taproot = segwit, taproot
	s.blank = s.blank[:0]
	if segwit || taproot {
		s.hashShared()
	}
	if segwit {
		s.doublePrevouts = sha256Sum(&s.prevouts)
		s.doubleSequences = sha256Sum(&s.sequences)
		s.doubleOutputs = sha256Sum(&s.outputs)
	}
	if taproot {
		s.hashSpent()
	}
	if legacy {
		s.buildBlank()
	}
}

// mustHave makes sure that hashes are there. Init makes them where a witness can lead to a signature
// that needs them, so they only lack where the witness was changed afterwards.
func (s *Spending) mustHave(hashes bool) {
	if !hashes {
		panic("script: the witness of a transaction was changed after Init")
	}
}

func (s *Spending) hashShared() {
	h := &s.scratch
	h.reset()
	for i := range s.tx.In {
		h.room()
		h.outPoint(&s.tx.In[i].PrevOut)
	}
	s.prevouts = h.sum()
	h.reset()
	for i := range s.tx.In {
		h.room()
		h.uint32(s.tx.In[i].Sequence)
	}
	s.sequences = h.sum()
	h.reset()
	for i := range s.tx.Out {
		h.output(&s.tx.Out[i])
	}
	s.outputs = h.sum()
}

func (s *Spending) hashSpent() {
	h := &s.scratch
	h.reset()
	for i := range s.spent {
		h.room()
		h.uint64(uint64(s.spent[i].Value))
	}
	s.amounts = h.sum()
	h.reset()
	for i := range s.spent {
		h.room()
		h.varBytes(s.spent[i].Script)
	}
	s.scripts = h.sum()
}

func (s *Spending) buildBlank() {
	b := binary.LittleEndian.AppendUint32(s.blank[:0], s.tx.Version)
	b = bitcoin.AppendCompactSize(b, uint64(len(s.tx.In)))
	s.firstInput = len(b)
	for i := range s.tx.In {
		in := &s.tx.In[i]
		b = append(b, in.PrevOut.TxID[:]...)
		b = binary.LittleEndian.AppendUint32(b, in.PrevOut.Index)
		b = append(b, 0)
		b = binary.LittleEndian.AppendUint32(b, in.Sequence)
	}
	b = bitcoin.AppendCompactSize(b, uint64(len(s.tx.Out)))
	for i := range s.tx.Out {
		out := &s.tx.Out[i]
		b = binary.LittleEndian.AppendUint64(b, uint64(out.Value))
		b = bitcoin.AppendCompactSize(b, uint64(len(out.Script)))
		b = append(b, out.Script...)
	}
	s.blank = binary.LittleEndian.AppendUint32(b, s.tx.LockTime)
}
