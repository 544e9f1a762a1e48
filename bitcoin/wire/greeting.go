package wire

import (
	"encoding/binary"

	"github.com/tallypost/tallypost/bitcoin"
)

// Services are the bits by which a node says what it offers.
type Services uint64

// The services that are in use.
const (
	ServiceNetwork        Services = 1 << 0  // all blocks
	ServiceBloom          Services = 1 << 2  // BIP 111
	ServiceWitness        Services = 1 << 3  // BIP 144
	ServiceCompactFilters Services = 1 << 6  // BIP 157
	ServiceNetworkLimited Services = 1 << 10 // the last 288 blocks; BIP 159
	ServiceP2PV2          Services = 1 << 11 // BIP 324
)

// Has reports whether all of the wanted services are offered.
func (s Services) Has(wanted Services) bool { return s&wanted == wanted }

// Version is the first message of each side.
type Version struct {
	Protocol    int32
	Services    Services
	Time        int64 // seconds since 1970, at the sender; not to be believed
	You         AddrPort
	YouServices Services
	Me          AddrPort
	MeServices  Services
	Nonce       uint64 // by which a node finds that it connected to itself
	UserAgent   string
	StartHeight int32
	Relay       bool // of transactions (BIP 37)
}

// Command returns "version".
func (*Version) Command() string { return "version" }

// Append appends the payload.
func (m *Version) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(m.Protocol))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.Services))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.Time))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.YouServices))
	dst = m.You.appendV1(dst)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.MeServices))
	dst = m.Me.appendV1(dst)
	dst = binary.LittleEndian.AppendUint64(dst, m.Nonce)
	dst = appendVarBytes(dst, []byte(m.UserAgent))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(m.StartHeight))
	return appendBool(dst, m.Relay)
}

// parseVersion reads what old and new peers send: each field from Me on may be missing with all
// behind it, and what stands behind Relay is passed over, for it is how the message grows.
func parseVersion(d *decoder) Message {
	m := &Version{
		Protocol: int32(d.uint32()),
		Services: Services(d.uint64()),
		Time:     int64(d.uint64()),
	}
	m.YouServices, m.You = Services(d.uint64()), d.addrV1()
	m.Nonce, m.StartHeight, m.Relay = 1, -1, true
	if len(d.b) > 0 {
		m.MeServices, m.Me = Services(d.uint64()), d.addrV1()
		m.Nonce = d.uint64()
	}
	if len(d.b) > 0 {
		agent := d.varBytes()
		if len(agent) > MaxUserAgent {
			d.fail(coreError("String length limit exceeded"))
		}
		m.UserAgent = string(agent)
	}
	if len(d.b) > 0 {
		m.StartHeight = int32(d.uint32())
	}
	if len(d.b) > 0 {
		m.Relay = d.bool()
	}
	d.b = nil
	return m
}

// VerAck accepts the other side's version.
type VerAck struct{}

// Command returns "verack".
func (*VerAck) Command() string { return "verack" }

// Append appends nothing.
func (*VerAck) Append(dst []byte) []byte { return dst }

// WTxIDRelay asks for transactions to be announced by wtxid (BIP 339). It stands between version
// and verack.
type WTxIDRelay struct{}

// Command returns "wtxidrelay".
func (*WTxIDRelay) Command() string { return "wtxidrelay" }

// Append appends nothing.
func (*WTxIDRelay) Append(dst []byte) []byte { return dst }

// SendAddrV2 asks for addrv2 instead of addr (BIP 155). It stands between version and verack.
type SendAddrV2 struct{}

// Command returns "sendaddrv2".
func (*SendAddrV2) Command() string { return "sendaddrv2" }

// Append appends nothing.
func (*SendAddrV2) Append(dst []byte) []byte { return dst }

// SendHeaders asks for blocks to be announced by their header (BIP 130).
type SendHeaders struct{}

// Command returns "sendheaders".
func (*SendHeaders) Command() string { return "sendheaders" }

// Append appends nothing.
func (*SendHeaders) Append(dst []byte) []byte { return dst }

// GetAddr asks for addresses of nodes.
type GetAddr struct{}

// Command returns "getaddr".
func (*GetAddr) Command() string { return "getaddr" }

// Append appends nothing.
func (*GetAddr) Append(dst []byte) []byte { return dst }

// MemPool asks for the ids of all transactions in the mempool (BIP 35).
type MemPool struct{}

// Command returns "mempool".
func (*MemPool) Command() string { return "mempool" }

// Append appends nothing.
func (*MemPool) Append(dst []byte) []byte { return dst }

// SendCmpct says that compact blocks may be sent (BIP 152).
type SendCmpct struct {
	Announce bool   // announce with cmpctblock: high bandwidth
	Version  uint64 // 2 is by wtxid; peers speak no other today
}

// Command returns "sendcmpct".
func (*SendCmpct) Command() string { return "sendcmpct" }

// Append appends the payload.
func (m *SendCmpct) Append(dst []byte) []byte {
	return binary.LittleEndian.AppendUint64(appendBool(dst, m.Announce), m.Version)
}

func parseSendCmpct(d *decoder) Message {
	return &SendCmpct{Announce: d.bool(), Version: d.uint64()}
}

// SendTxRcncl offers to reconcile sets of transactions (BIP 330). It stands between version and
// verack.
type SendTxRcncl struct {
	Version uint32
	Salt    uint64
}

// Command returns "sendtxrcncl".
func (*SendTxRcncl) Command() string { return "sendtxrcncl" }

// Append appends the payload.
func (m *SendTxRcncl) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, m.Version)
	return binary.LittleEndian.AppendUint64(dst, m.Salt)
}

func parseSendTxRcncl(d *decoder) Message {
	return &SendTxRcncl{Version: d.uint32(), Salt: d.uint64()}
}

// FeeFilter asks not to be told of transactions that pay less (BIP 133).
type FeeFilter struct {
	Rate bitcoin.Amount // satoshis per 1,000 virtual octets; may be no valid amount
}

// Command returns "feefilter".
func (*FeeFilter) Command() string { return "feefilter" }

// Append appends the payload.
func (m *FeeFilter) Append(dst []byte) []byte {
	return binary.LittleEndian.AppendUint64(dst, uint64(m.Rate))
}

func parseFeeFilter(d *decoder) Message { return &FeeFilter{bitcoin.Amount(d.uint64())} }

// Ping asks for a pong with the same nonce (BIP 31).
type Ping struct {
	Nonce uint64
	Old   bool // from before BIP 31: no nonce, and no answer is due
}

// Command returns "ping".
func (*Ping) Command() string { return "ping" }

// Append appends the payload.
func (m *Ping) Append(dst []byte) []byte {
	if m.Old {
		return dst
	}
	return binary.LittleEndian.AppendUint64(dst, m.Nonce)
}

func parsePing(d *decoder) Message {
	if len(d.b) == 0 {
		return &Ping{Old: true}
	}
	return &Ping{Nonce: d.uint64()}
}

// Pong answers a ping.
type Pong struct {
	Nonce uint64
	Short bool // the payload was shorter than a nonce: a fault after which Core forgets its ping
}

// Command returns "pong".
func (*Pong) Command() string { return "pong" }

// Append appends the payload.
func (m *Pong) Append(dst []byte) []byte {
	if m.Short {
		return dst
	}
	return binary.LittleEndian.AppendUint64(dst, m.Nonce)
}

func parsePong(d *decoder) Message {
	if len(d.b) < 8 {
		d.b = nil
		return &Pong{Short: true}
	}
	return &Pong{Nonce: d.uint64()}
}
