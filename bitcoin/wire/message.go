package wire

import (
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
)

// ProtocolVersion is the version that this package speaks; peers below MinPeerVersion are refused.
const (
	ProtocolVersion = 70016
	MinPeerVersion  = 31800
)

// The versions from which on a peer understands something that must not be sent to an older one.
const (
	PongVersion        = 60001 // BIP 31: greater than 60000
	SendHeadersVersion = 70012 // BIP 130
	FeeFilterVersion   = 70013 // BIP 133
	ShortIDsVersion    = 70014 // BIP 152
	InvalidCBNoBan     = 70015
	WTxIDRelayVersion  = 70016 // BIP 339
)

// The limits of Bitcoin Core (net.h, net_processing.cpp).
const (
	MaxPayload      = 4_000_000 // octets of a message
	MaxInv          = 50_000    // items of inv and getdata
	MaxHeaders      = 2_000     // of a headers message
	MaxLocator      = 101       // hashes of getblocks and getheaders
	MaxAddrs        = 1_000     // of addr and addrv2
	MaxUserAgent    = 256       // octets
	MaxFilterAdd    = 520       // octets of an element
	MaxBloom        = 36_000    // octets of a bloom filter
	MaxBloomHashes  = 50        // hash functions of a bloom filter
	MaxCFilters     = 1_000     // filters that one getcfilters may ask for
	MaxCFHeaders    = 2_000     // filter hashes that one getcfheaders may ask for
	CFCheckInterval = 1_000     // blocks between the headers of cfcheckpt
)

// Message is a message between peers.
type Message interface {
	// Command returns the name in the frame.
	Command() string
	// Append appends the payload to dst.
	Append(dst []byte) []byte
}

// ExcessError says, in Core's words, which limit a message broke. Core counts it as misbehaviour,
// or disconnects.
type ExcessError struct{ Text string }

func (e *ExcessError) Error() string { return e.Text }

// coreText is an error in Core's words, which begin with a capital letter: tests look for them in
// the log.
type coreText string

func (e coreText) Error() string { return string(e) }

func coreError(format string, args ...any) error { return coreText(fmt.Sprintf(format, args...)) }

// Unknown is a message that this package does not know, or one that is no longer used: alert,
// reject.
type Unknown struct {
	Name    string
	Payload []byte
}

// Command returns the name that stood in the frame.
func (m *Unknown) Command() string { return m.Name }

// Append appends the payload as it came.
func (m *Unknown) Append(dst []byte) []byte { return append(dst, m.Payload...) }

// parsers has the messages that are known, by their command.
var parsers = map[string]func(d *decoder) Message{
	"version":      parseVersion,
	"verack":       func(*decoder) Message { return &VerAck{} },
	"wtxidrelay":   func(*decoder) Message { return &WTxIDRelay{} },
	"sendaddrv2":   func(*decoder) Message { return &SendAddrV2{} },
	"sendheaders":  func(*decoder) Message { return &SendHeaders{} },
	"getaddr":      func(*decoder) Message { return &GetAddr{} },
	"mempool":      func(*decoder) Message { return &MemPool{} },
	"filterclear":  func(*decoder) Message { return &FilterClear{} },
	"sendcmpct":    parseSendCmpct,
	"sendtxrcncl":  parseSendTxRcncl,
	"feefilter":    parseFeeFilter,
	"ping":         parsePing,
	"pong":         parsePong,
	"addr":         parseAddr,
	"addrv2":       parseAddrV2,
	"inv":          parseInv,
	"getdata":      parseGetData,
	"notfound":     parseNotFound,
	"getblocks":    parseGetBlocks,
	"getheaders":   parseGetHeaders,
	"headers":      parseHeaders,
	"block":        parseBlock,
	"tx":           parseTx,
	"cmpctblock":   parseCmpctBlock,
	"getblocktxn":  parseGetBlockTxn,
	"blocktxn":     parseBlockTxn,
	"filterload":   parseFilterLoad,
	"filteradd":    parseFilterAdd,
	"merkleblock":  parseMerkleBlock,
	"getcfilters":  parseGetCFilters,
	"cfilter":      parseCFilter,
	"getcfheaders": parseGetCFHeaders,
	"cfheaders":    parseCFHeaders,
	"getcfcheckpt": parseGetCFCheckpt,
	"cfcheckpt":    parseCFCheckpt,
}

// Known reports whether Parse knows the command.
func Known(command string) bool {
	_, ok := parsers[command]
	return ok
}

// Parse reads the payload of a message, which keeps it: it must not change. One with a command that
// is not known comes back as *Unknown.
func Parse(command string, payload []byte) (Message, error) {
	parse, ok := parsers[command]
	if !ok {
		return &Unknown{Name: command, Payload: payload}, nil
	}
	d := &decoder{b: payload}
	m := parse(d)
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("%s message: %w", command, err)
	}
	return m, nil
}

// Raw is a message whose payload is already encoded, as a block that comes from disk.
type Raw = Unknown

// Block carries a block.
type Block struct{ *bitcoin.Block }

// Command returns "block".
func (*Block) Command() string { return "block" }

// Append appends the block with its witnesses.
func (m *Block) Append(dst []byte) []byte { return m.Block.Append(dst) }

func parseBlock(d *decoder) Message {
	block, n, err := bitcoin.ParseBlockPrefix(d.b)
	if err != nil {
		d.fail(err)
		return nil
	}
	d.b = d.b[n:]
	return &Block{block}
}

// Tx carries a transaction.
type Tx struct {
	*bitcoin.Tx
	NoWitness bool // encode without witnesses: for a peer that asked so
}

// Command returns "tx".
func (*Tx) Command() string { return "tx" }

// Append appends the transaction.
func (m *Tx) Append(dst []byte) []byte {
	if m.NoWitness {
		return m.Tx.AppendBase(dst)
	}
	return m.Tx.Append(dst)
}

func parseTx(d *decoder) Message { return &Tx{Tx: d.tx()} }
