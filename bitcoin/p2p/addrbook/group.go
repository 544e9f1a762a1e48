package addrbook

import (
	"encoding/binary"
	"fmt"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

// hash is Core's GetCheapHash: the first 64 bits of the double hash of the key and what follows.
func (b *Book) hash(parts ...[]byte) uint64 {
	buf := append(make([]byte, 0, 128), b.key[:]...)
	for _, p := range parts {
		buf = append(buf, p...)
	}
	h := bitcoin.DoubleHash(buf)
	return binary.LittleEndian.Uint64(h[:])
}

func vector(b []byte) []byte {
	return append(bitcoin.AppendCompactSize(nil, uint64(len(b))), b...)
}

func le64(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// addrBytes returns the octets that Core hashes of an address: 16 in the form of IPv6 where the message
// addr can carry it.
func addrBytes(a wire.Addr) []byte {
	b := a.Bytes()
	switch a.Net {
	case wire.NetIPv4:
		return append([]byte{10: 0xff, 11: 0xff}, b...)
	case wire.NetInternal:
		return append([]byte{0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24}, b...)
	}
	return b
}

func addrKey(ap wire.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(append([]byte(nil), addrBytes(ap.Addr)...), ap.Port)
}

// class is Core's number for the kind of an address (GetNetClass).
func class(a wire.Addr) byte {
	if _, ok := a.LinkedIPv4(); ok {
		return 1
	}
	switch {
	case a.Net == wire.NetInternal:
		return 6
	case !a.Routable():
		return 0
	case a.Net == wire.NetTorV3:
		return 3
	case a.Net == wire.NetI2P:
		return 4
	case a.Net == wire.NetCJDNS:
		return 5
	case a.Net == wire.NetIPv6:
		return 2
	}
	return 1
}

// Group returns the neighbourhood of an address: those who share it are likely in one hand (Bitcoin Core
// netgroup.cpp, GetGroup). It is the autonomous system, where the book has a map and that knows it.
func (b *Book) Group(a wire.Addr) []byte {
	if system := b.cfg.Map.System(a); system != 0 {
		return binary.LittleEndian.AppendUint32([]byte{2}, system) // of IPv4 and IPv6 alike
	}
	return prefixGroup(a)
}

// System returns the number of the autonomous system of an address, 0 where it is not known. The book's
// owner has given a map where Mapped says so.
func (b *Book) System(a wire.Addr) uint32 { return b.cfg.Map.System(a) }

// mapped names the autonomous system of an address, for the log.
func (b *Book) mapped(a wire.Addr) string {
	if system := b.System(a); system != 0 {
		return fmt.Sprintf(" mapped to AS%d", system)
	}
	return ""
}

// Mapped reports whether neighbourhoods are autonomous systems.
func (b *Book) Mapped() bool { return b.cfg.Map != nil }

// prefixGroup is the neighbourhood by the leading bits of an address.
func prefixGroup(a wire.Addr) []byte {
	out := []byte{class(a)}
	b := addrBytes(a)
	bits := 0
	if ip, ok := a.LinkedIPv4(); ok && !a.Local() {
		return append(out, ip[0], ip[1])
	}
	switch {
	case a.Local():
	case a.Net == wire.NetInternal:
		b, bits = b[6:], 80
	case !a.Routable():
	case a.Net == wire.NetTorV3, a.Net == wire.NetI2P:
		bits = 4
	case a.Net == wire.NetCJDNS:
		bits = 12 // the first octet is the same for all
	case len(b) == 16 && b[0] == 0x20 && b[1] == 0x01 && b[2] == 0x04 && b[3] == 0x70:
		bits = 36 // he.net gives its customers these
	default:
		bits = 32
	}
	out = append(out, b[:bits/8]...)
	if rest := bits % 8; rest > 0 {
		out = append(out, b[bits/8]|byte(1<<(8-rest)-1))
	}
	return out
}
