package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
)

// KnownAddr is an address that a node tells another.
type KnownAddr struct {
	Time     uint32 // seconds since 1970 when the sender last heard of the node, it says
	Services Services
	AddrPort
}

// AddrMsg tells addresses of the old networks. An address that another network hides in IPv6 comes
// as no address.
type AddrMsg struct{ Addrs []KnownAddr }

// Command returns "addr".
func (*AddrMsg) Command() string { return "addr" }

// Append appends the payload.
func (m *AddrMsg) Append(dst []byte) []byte {
	dst = bitcoin.AppendCompactSize(dst, uint64(len(m.Addrs)))
	for i := range m.Addrs {
		a := &m.Addrs[i]
		dst = binary.LittleEndian.AppendUint32(dst, a.Time)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(a.Services))
		dst = a.appendV1(dst)
	}
	return dst
}

func parseAddr(d *decoder) Message {
	m := &AddrMsg{}
	if n := d.countAtMost(30, MaxAddrs, "addr message size = %d"); n > 0 {
		m.Addrs = make([]KnownAddr, n)
	}
	for i := range m.Addrs {
		a := &m.Addrs[i]
		a.Time, a.Services, a.AddrPort = d.uint32(), Services(d.uint64()), d.addrV1()
	}
	return m
}

// AddrV2Msg tells addresses of all networks (BIP 155). An address of a network that is not known
// comes as no address.
type AddrV2Msg struct{ Addrs []KnownAddr }

// Command returns "addrv2".
func (*AddrV2Msg) Command() string { return "addrv2" }

// Append appends the payload. An address that BIP 155 has no id for is sent as the IPv6 address ::,
// which nobody believes.
func (m *AddrV2Msg) Append(dst []byte) []byte {
	dst = bitcoin.AppendCompactSize(dst, uint64(len(m.Addrs)))
	for i := range m.Addrs {
		a := &m.Addrs[i]
		dst = binary.LittleEndian.AppendUint32(dst, a.Time)
		dst = bitcoin.AppendCompactSize(dst, uint64(a.Services))
		if a.Net == NetNone || a.Net == NetInternal {
			b := a.v1Bytes()
			dst = appendVarBytes(append(dst, byte(NetIPv6)), b[:])
		} else {
			dst = appendVarBytes(append(dst, byte(a.Net)), a.Bytes())
		}
		dst = binary.BigEndian.AppendUint16(dst, a.Port)
	}
	return dst
}

func parseAddrV2(d *decoder) Message {
	m := &AddrV2Msg{}
	if n := d.countAtMost(9, MaxAddrs, "addrv2 message size = %d"); n > 0 {
		m.Addrs = make([]KnownAddr, n)
	}
	for i := range m.Addrs {
		a := &m.Addrs[i]
		a.Time, a.Services, a.Addr = d.uint32(), Services(d.number()), d.addrV2()
		a.Port = d.port()
	}
	return m
}

// ParseAddrs reads addresses and ports one after another, in the form of BIP 155 without times and services.
// Those of networks that are not known are left out.
func ParseAddrs(b []byte) ([]AddrPort, error) {
	d := &decoder{b: b}
	var list []AddrPort
	for d.err == nil && len(d.b) > 0 {
		a := AddrPort{Addr: d.addrV2()}
		if a.Port = d.port(); a.Net != NetNone {
			list = append(list, a)
		}
	}
	return list, d.err
}

// mostAddr is the longest address, in octets, that BIP 155 allows any network.
const mostAddr = 512

// addrV2 reads network, length and address. The length must be right for a network that is known;
// one that is not known is passed over, for it may be from the future (Core netaddress.h,
// UnserializeV2Stream).
func (d *decoder) addrV2() Addr {
	network := Net(d.uint8())
	size := d.size()
	if size > mostAddr {
		d.fail(coreError("Address too long: %d > %d", size, mostAddr))
		return Addr{}
	}
	known := network != NetInternal && network.size() != 0
	if known && size != network.size() {
		d.fail(fmt.Errorf("BIP155 %s address with length %d (should be %d)",
			bip155Name(network), size, network.size()))
		return Addr{}
	}
	b := d.take(size)
	if !known {
		return Addr{}
	}
	a, _ := NewAddr(network, b)
	if network == NetIPv6 {
		return addrInIPv6(a)
	}
	return a
}

// addrInIPv6 returns an IPv6 address of addrv2, or none where it hides one of another network: each
// has an id of its own now.
func addrInIPv6(a Addr) Addr {
	if hidden := addrFromIPv6(a.Bytes()); hidden.Net == NetIPv6 || hidden.Net == NetInternal {
		return hidden
	}
	return Addr{}
}

func bip155Name(n Net) string {
	return map[Net]string{
		NetIPv4: "IPv4", NetIPv6: "IPv6", NetTorV3: "TORv3", NetI2P: "I2P", NetCJDNS: "CJDNS",
	}[n]
}
