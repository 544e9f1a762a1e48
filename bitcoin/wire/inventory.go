package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
)

// InvType says what an inventory item names. The bit WitnessFlag, in getdata, asks for it with
// witnesses (BIP 144).
type InvType uint32

// The types that are in use.
const (
	InvTx            InvType = 1 // by txid
	InvBlock         InvType = 2
	InvFilteredBlock InvType = 3 // as merkleblock (BIP 37); only in getdata
	InvCmpctBlock    InvType = 4 // as cmpctblock (BIP 152); only in getdata
	InvWTx           InvType = 5 // by wtxid (BIP 339)

	WitnessFlag     InvType = 1 << 30
	InvWitnessTx            = InvTx | WitnessFlag
	InvWitnessBlock         = InvBlock | WitnessFlag
)

// Inventory names a transaction or block.
type Inventory struct {
	Type InvType
	Hash bitcoin.Hash
}

const inventorySize = 36

// IsTx reports whether a transaction is named, by either hash.
func (i Inventory) IsTx() bool {
	return i.Type == InvTx || i.Type == InvWTx || i.Type == InvWitnessTx
}

// IsBlock reports whether a block is named, in whatever form.
func (i Inventory) IsBlock() bool {
	return i.Type >= InvBlock && i.Type <= InvCmpctBlock || i.Type == InvWitnessBlock
}

// String names the item as Core's log does.
func (i Inventory) String() string {
	prefix := ""
	if i.Type&WitnessFlag != 0 {
		prefix = "witness-"
	}
	switch i.Type & 0x3fffffff {
	case InvTx:
		return prefix + "tx " + i.Hash.String()
	case InvBlock:
		return prefix + "block " + i.Hash.String()
	case InvFilteredBlock:
		return prefix + "merkleblock " + i.Hash.String()
	case InvCmpctBlock:
		return prefix + "cmpctblock " + i.Hash.String()
	case InvWTx:
		return prefix + "wtx " + i.Hash.String()
	}
	return fmt.Sprintf("0x%08x %v", uint32(i.Type), i.Hash)
}

// Inv says what the sender has.
type Inv struct{ Items []Inventory }

// Command returns "inv".
func (*Inv) Command() string { return "inv" }

// Append appends the payload.
func (m *Inv) Append(dst []byte) []byte { return appendInventory(dst, m.Items) }

func parseInv(d *decoder) Message {
	return &Inv{d.inventory(d.countAtMost(inventorySize, MaxInv, "inv message size = %d"))}
}

// GetData asks for what the receiver has.
type GetData struct{ Items []Inventory }

// Command returns "getdata".
func (*GetData) Command() string { return "getdata" }

// Append appends the payload.
func (m *GetData) Append(dst []byte) []byte { return appendInventory(dst, m.Items) }

func parseGetData(d *decoder) Message {
	return &GetData{d.inventory(d.countAtMost(inventorySize, MaxInv, "getdata message size = %d"))}
}

// NotFound says what of a getdata the sender does not have. Core sets no limit to it but the
// payload's.
type NotFound struct{ Items []Inventory }

// Command returns "notfound".
func (*NotFound) Command() string { return "notfound" }

// Append appends the payload.
func (m *NotFound) Append(dst []byte) []byte { return appendInventory(dst, m.Items) }

func parseNotFound(d *decoder) Message { return &NotFound{d.inventory(d.count(inventorySize))} }

func (d *decoder) inventory(n int) []Inventory {
	if n == 0 {
		return nil
	}
	items := make([]Inventory, n)
	b := d.take(n * inventorySize)
	for i := range items {
		item := b[i*inventorySize:][:inventorySize]
		items[i].Type = InvType(binary.LittleEndian.Uint32(item))
		items[i].Hash = bitcoin.Hash(item[4:])
	}
	return items
}

func appendInventory(dst []byte, items []Inventory) []byte {
	dst = bitcoin.AppendCompactSize(dst, uint64(len(items)))
	for i := range items {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(items[i].Type))
		dst = append(dst, items[i].Hash[:]...)
	}
	return dst
}

// Locator describes a chain by hashes that grow sparser towards its beginning, so that the receiver
// finds the last block that both have.
type Locator struct {
	Version uint32 // the sender's; nobody reads it
	Hashes  []bitcoin.Hash
	Stop    bitcoin.Hash // the last to be sent; zero for as many as fit
}

func (l *Locator) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, l.Version)
	dst = appendHashes(dst, l.Hashes)
	return append(dst, l.Stop[:]...)
}

func (d *decoder) locator(command string) (l Locator) {
	l.Version = d.uint32()
	text := command + " locator size %d > 101"
	l.Hashes = d.hashList(d.countAtMost(len(bitcoin.Hash{}), MaxLocator, text))
	l.Stop = d.hash()
	return l
}

// GetBlocks asks for an inv of the blocks behind a locator.
type GetBlocks struct{ Locator }

// Command returns "getblocks".
func (*GetBlocks) Command() string { return "getblocks" }

// Append appends the payload.
func (m *GetBlocks) Append(dst []byte) []byte { return m.Locator.append(dst) }

func parseGetBlocks(d *decoder) Message { return &GetBlocks{d.locator("getblocks")} }

// GetHeaders asks for the headers behind a locator.
type GetHeaders struct{ Locator }

// Command returns "getheaders".
func (*GetHeaders) Command() string { return "getheaders" }

// Append appends the payload.
func (m *GetHeaders) Append(dst []byte) []byte { return m.Locator.append(dst) }

func parseGetHeaders(d *decoder) Message { return &GetHeaders{d.locator("getheaders")} }

// Headers carries block headers, each following the one before.
type Headers struct{ Headers []bitcoin.Header }

// Command returns "headers".
func (*Headers) Command() string { return "headers" }

// Append appends the payload: behind each header stands the number of its transactions, which is
// sent as 0.
func (m *Headers) Append(dst []byte) []byte {
	dst = bitcoin.AppendCompactSize(dst, uint64(len(m.Headers)))
	for i := range m.Headers {
		dst = append(m.Headers[i].Append(dst), 0)
	}
	return dst
}

func parseHeaders(d *decoder) Message {
	n := d.countAtMost(bitcoin.HeaderSize+1, MaxHeaders, "headers message size = %d")
	m := &Headers{}
	if n > 0 {
		m.Headers = make([]bitcoin.Header, n)
	}
	for i := range m.Headers {
		m.Headers[i] = d.header()
		d.size() // of transactions: passed over, as in Core
	}
	return m
}
