package chainfile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"os"
	"strings"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/consensus"
	"github.com/tallypost/tallypost/bitcoin/script"
)

// maker writes blocks, each on the one before it.
type maker struct {
	net    *bitcoin.Network
	out    *os.File
	w      *bufio.Writer
	prev   bitcoin.Hash
	height bitcoin.Height
	file   File

	purse  []funds // coinbases that nobody has spent, the oldest first
	frame  []byte
	anyone []byte
}

// funds is an output that everybody may spend.
type funds struct {
	bitcoin.OutPoint
	value  bitcoin.Amount
	height bitcoin.Height
}

const (
	// begin is the time of the chain: after BIP 16, from which on btcd knows P2SH.
	begin = 1_400_000_000
	// spacing is the time between blocks, in seconds.
	spacing = 600
)

func newMaker(path string) (*maker, error) {
	m := &maker{net: bitcoin.Regtest(), anyone: anyoneScript(0), file: File{Path: path}}
	m.prev = m.net.Genesis.Hash()
	return m, m.open(path)
}

// open begins a file; the chain goes on in it.
func (m *maker) open(path string) (err error) {
	if m.out, err = os.Create(path); err != nil {
		return err
	}
	m.w = bufio.NewWriterSize(m.out, 1<<20)
	return nil
}

func (m *maker) close() error {
	return errors.Join(m.w.Flush(), m.out.Close())
}

// tail lets all further blocks go into a file of their own.
func (m *maker) tail() error {
	if err := m.close(); err != nil {
		return err
	}
	m.file.Tail = strings.TrimSuffix(m.file.Path, ".dat") + ".tail.dat"
	return m.open(m.file.Tail)
}

// anyoneScript returns a script that everybody can spend with nothing, as long as the common ones:
// <20 octets> OP_DROP OP_1.
func anyoneScript(n uint64) []byte {
	var tag [20]byte
	binary.LittleEndian.PutUint64(tag[:], n)
	return new(script.Builder).Push(tag[:]).Op(script.OpDrop, script.Op1).Script()
}

// empty adds blocks without transactions.
func (m *maker) empty(n int) error {
	for range n {
		if err := m.block(nil); err != nil {
			return err
		}
	}
	return nil
}

// assume notes that all blocks so far may be assumed valid, and buries them under the two weeks of
// work that this takes.
func (m *maker) assume() error {
	m.file.Assume, m.file.Height = m.prev.String(), int(m.height)
	return m.empty(14*24*3600/spacing + 10)
}

// block adds a block with transactions.
func (m *maker) block(txs []bitcoin.Tx) error {
	m.height++
	b := &bitcoin.Block{
		Header: bitcoin.Header{
			Version:   0x20000000,
			PrevBlock: m.prev,
			Time:      begin + spacing*uint32(m.height),
			Bits:      m.net.Genesis.Header.Bits,
		},
		Txs: append([]bitcoin.Tx{m.coinbase()}, txs...),
	}
	for i := range txs {
		m.file.Inputs += len(txs[i].In)
		m.file.Coins += len(txs[i].Out) - len(txs[i].In)
		if len(b.Txs[0].Out) == 1 && txs[i].HasWitness() {
			commit(b)
		}
	}
	b.Header.MerkleRoot, _ = b.MerkleRoot()
	for !bitcoin.MeetsTarget(b.Header.Hash(), b.Header.Bits, m.net.PowLimit) {
		b.Header.Nonce++
	}
	m.prev = b.Hash()
	if m.height == 1 {
		m.file.First = m.prev.String()
	}
	m.purse = append(m.purse, funds{bitcoin.OutPoint{TxID: b.Txs[0].TxID()},
		b.Txs[0].Out[0].Value, m.height})
	m.file.Blocks++
	m.file.Txs += len(b.Txs)
	m.file.Coins++
	return m.write(b)
}

func (m *maker) coinbase() bitcoin.Tx {
	return bitcoin.Tx{
		Version: 2,
		In: []bitcoin.TxIn{{
			PrevOut:  bitcoin.OutPoint{Index: 0xffffffff},
			Script:   script.AppendInt(script.AppendInt(nil, int64(m.height)), 1<<32),
			Sequence: 0xffffffff,
		}},
		Out: []bitcoin.TxOut{{Value: consensus.Subsidy(m.net, m.height), Script: m.anyone}},
	}
}

// commit adds the commitment to the witnesses (BIP 141).
func commit(b *bitcoin.Block) {
	var reserved [32]byte
	coinbase := &b.Txs[0]
	coinbase.In[0].Witness = [][]byte{reserved[:]}
	coinbase.Out = append(coinbase.Out, bitcoin.TxOut{
		Script: consensus.CommitmentScript(consensus.CommitmentHash(b, reserved)),
	})
}

func (m *maker) write(b *bitcoin.Block) error {
	m.frame = append(m.frame[:0], m.net.Magic[:]...)
	m.frame = binary.LittleEndian.AppendUint32(m.frame, uint32(b.Size()))
	m.frame = b.Append(m.frame)
	m.file.Bytes += int64(len(m.frame))
	_, err := m.w.Write(m.frame)
	return err
}

var errPoor = errors.New("the coinbases are spent: the chain is too short for what it shall hold")

// fund makes a transaction that spends as many coinbases as its outputs take; what is left over
// goes to another output, that the next one spends.
func (m *maker) fund(outs []bitcoin.TxOut) (*bitcoin.Tx, error) {
	need := bitcoin.Amount(1000)
	for i := range outs {
		need += outs[i].Value
	}
	tx := &bitcoin.Tx{Version: 2, Out: outs}
	for have := bitcoin.Amount(0); have < need; {
		if len(m.purse) == 0 || m.purse[0].height+100 > m.height {
			return nil, errPoor
		}
		from := m.purse[0]
		m.purse = m.purse[1:]
		tx.In = append(tx.In, bitcoin.TxIn{PrevOut: from.OutPoint, Sequence: 0xffffffff})
		if have += from.value; have >= need {
			tx.Out = append(tx.Out, bitcoin.TxOut{Value: have - need, Script: m.anyone})
			change := funds{bitcoin.OutPoint{Index: uint32(len(outs))}, have - need, 0}
			change.TxID = tx.TxID()
			m.purse = append([]funds{change}, m.purse...)
		}
	}
	return tx, nil
}
