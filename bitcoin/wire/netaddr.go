package wire

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Net is a network that nodes are reached by. The values are the network ids of BIP 155.
type Net uint8

// The networks. NetNone is that of no address, and of one in a network that this package does not
// know.
const (
	NetNone     Net = 0
	NetIPv4     Net = 1
	NetIPv6     Net = 2
	NetTorV3    Net = 4
	NetI2P      Net = 5
	NetCJDNS    Net = 6
	NetInternal Net = 0xff // of a name that addresses were learnt from; never sent
)

// String names the network as Core's RPC does.
func (n Net) String() string {
	switch n {
	case NetIPv4:
		return "ipv4"
	case NetIPv6:
		return "ipv6"
	case NetTorV3:
		return "onion"
	case NetI2P:
		return "i2p"
	case NetCJDNS:
		return "cjdns"
	case NetInternal:
		return "internal"
	}
	return "not_publicly_routable"
}

// size returns the octets of an address, 0 where the network is not known.
func (n Net) size() int {
	switch n {
	case NetIPv4:
		return 4
	case NetIPv6, NetCJDNS:
		return 16
	case NetTorV3, NetI2P:
		return 32
	case NetInternal:
		return 10
	}
	return 0
}

// Addr is the address of a node in one of the networks. It is comparable; the zero Addr is no
// address.
type Addr struct {
	Net   Net
	bytes [32]byte // as many as the network's addresses have, then zeros
}

// AddrPort is an address with a port.
type AddrPort struct {
	Addr
	Port uint16
}

// NewAddr returns an address from its octets; ok is false where their number is not right.
func NewAddr(network Net, b []byte) (a Addr, ok bool) {
	if len(b) != network.size() || len(b) == 0 {
		return Addr{}, false
	}
	a.Net = network
	copy(a.bytes[:], b)
	return a, true
}

// Bytes returns the octets of the address.
func (a *Addr) Bytes() []byte { return a.bytes[:a.Net.size()] }

// Address ranges by which an IPv6 address says that it is something else.
var (
	mappedIPv4 = []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}
	onionCat   = []byte{0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43} // Tor v2, which is no more
	internal   = []byte{0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24}
)

// AddrFromIP returns the address of an IP; one of IPv4 inside IPv6 is of IPv4.
func AddrFromIP(ip netip.Addr) Addr {
	if !ip.IsValid() {
		return Addr{}
	}
	b := ip.As16()
	return addrFromIPv6(b[:])
}

// AddrPortFrom returns the address and port of an IP.
func AddrPortFrom(ap netip.AddrPort) AddrPort {
	return AddrPort{AddrFromIP(ap.Addr()), ap.Port()}
}

// addrFromIPv6 reads the 16 octets of the old encoding (Core's SetLegacyIPv6).
func addrFromIPv6(b []byte) (a Addr) {
	network := NetIPv6
	switch {
	case bytes.HasPrefix(b, mappedIPv4):
		network, b = NetIPv4, b[len(mappedIPv4):]
	case bytes.HasPrefix(b, onionCat), bytes.Equal(b, make([]byte, 16)):
		return Addr{}
	case bytes.HasPrefix(b, internal):
		network, b = NetInternal, b[len(internal):]
	}
	a, _ = NewAddr(network, b)
	return a
}

// InternalAddr returns the address that stands for a name, as that of a DNS seed from which
// addresses were learnt.
func InternalAddr(name string) Addr {
	sum := sha256.Sum256([]byte(name))
	a, _ := NewAddr(NetInternal, sum[:10])
	return a
}

// IP returns the address as an IP; ok is false outside IPv4, IPv6 and CJDNS.
func (a *Addr) IP() (ip netip.Addr, ok bool) {
	switch a.Net {
	case NetIPv4, NetIPv6, NetCJDNS:
		return netip.AddrFromSlice(a.Bytes())
	}
	return ip, false
}

// V1Compatible reports whether the message addr can carry the address.
func (a *Addr) V1Compatible() bool {
	return a.Net == NetIPv4 || a.Net == NetIPv6 || a.Net == NetInternal || a.Net == NetNone
}

// v1Bytes returns the 16 octets of the old encoding; zeros for what it cannot carry.
func (a *Addr) v1Bytes() (b [16]byte) {
	switch a.Net {
	case NetIPv4:
		copy(b[copy(b[:], mappedIPv4):], a.Bytes())
	case NetIPv6:
		copy(b[:], a.Bytes())
	case NetInternal:
		copy(b[copy(b[:], internal):], a.Bytes())
	}
	return b
}

func (ap *AddrPort) appendV1(dst []byte) []byte {
	b := ap.v1Bytes()
	return binary.BigEndian.AppendUint16(append(dst, b[:]...), ap.Port)
}

func (d *decoder) addrV1() (ap AddrPort) {
	if b := d.take(16); b != nil {
		ap.Addr = addrFromIPv6(b)
	}
	ap.Port = d.port()
	return ap
}

// onionBase32 is how Tor and I2P write addresses.
var onionBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").
	WithPadding(base32.NoPadding)

// onionSum returns the checksum in the name of an onion service of version 3 (Tor's rend-spec-v3,
// "Encoding onion addresses").
func onionSum(key []byte) []byte {
	h := sha3.New256()
	h.Write([]byte(".onion checksum"))
	h.Write(key)
	h.Write([]byte{3})
	return h.Sum(nil)[:2]
}

// String returns the address as Core writes it.
func (a Addr) String() string {
	switch b := a.Bytes(); a.Net {
	case NetIPv4, NetIPv6, NetCJDNS:
		ip, _ := a.IP()
		return ip.String()
	case NetTorV3:
		name := append(append(append([]byte(nil), b...), onionSum(b)...), 3)
		return onionBase32.EncodeToString(name) + ".onion"
	case NetI2P:
		return onionBase32.EncodeToString(b) + ".b32.i2p"
	case NetInternal:
		return onionBase32.EncodeToString(b) + ".internal"
	}
	return "::"
}

// String returns address and port as Core writes them: with brackets where the address has colons.
func (ap AddrPort) String() string {
	host := ap.Addr.String()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(ap.Port))
}

// ParseAddr reads an IP, or a name below .onion (version 3) or .b32.i2p. It resolves nothing.
func ParseAddr(s string) (Addr, error) {
	if name, ok := strings.CutSuffix(s, ".onion"); ok {
		b, err := onionBase32.DecodeString(strings.ToLower(name))
		if err != nil || len(b) != 35 || b[34] != 3 || !bytes.Equal(b[32:34], onionSum(b[:32])) {
			return Addr{}, fmt.Errorf("%q is no onion service of version 3", s)
		}
		a, _ := NewAddr(NetTorV3, b[:32])
		return a, nil
	}
	if lower := strings.ToLower(s); strings.HasSuffix(lower, ".b32.i2p") {
		b, err := onionBase32.DecodeString(strings.TrimSuffix(lower, ".b32.i2p"))
		a, ok := NewAddr(NetI2P, b)
		if err != nil || !ok {
			return Addr{}, fmt.Errorf("%q is no I2P address of 52 characters", s)
		}
		return a, nil
	}
	ip, err := netip.ParseAddr(s)
	if err != nil {
		return Addr{}, fmt.Errorf("address: %w", err)
	}
	return AddrFromIP(ip), nil
}

// hasPrefix reports whether an address of the network begins with these octets.
func (a *Addr) hasPrefix(network Net, prefix ...byte) bool {
	return a.Net == network && bytes.HasPrefix(a.bytes[:], prefix)
}

// Valid reports whether the address could be that of a node (Core's CNetAddr::IsValid).
func (a *Addr) Valid() bool {
	switch a.Net {
	case NetNone, NetInternal:
		return false
	case NetIPv4:
		b := a.bytes[:4]
		return !bytes.Equal(b, []byte{0, 0, 0, 0}) && !bytes.Equal(b, []byte{255, 255, 255, 255})
	case NetIPv6:
		return a.bytes != [32]byte{} && !a.hasPrefix(NetIPv6, 0x20, 0x01, 0x0d, 0xb8) // RFC 3849
	case NetCJDNS:
		return a.bytes[0] == 0xfc
	}
	return true
}

// Local reports whether the address is one of the machine itself.
func (a *Addr) Local() bool {
	return a.hasPrefix(NetIPv4, 127) || a.hasPrefix(NetIPv4, 0) ||
		a.Net == NetIPv6 && a.bytes == [32]byte{15: 1}
}

// Routable reports whether the address is reached from everywhere in its network (Core's
// CNetAddr::IsRoutable).
func (a *Addr) Routable() bool {
	if !a.Valid() || a.Local() {
		return false
	}
	b := a.bytes
	switch a.Net {
	case NetIPv4:
		return !(b[0] == 10 || b[0] == 192 && b[1] == 168 || // RFC 1918
			b[0] == 172 && b[1]&0xf0 == 16 ||
			b[0] == 198 && b[1]&0xfe == 18 || // RFC 2544
			b[0] == 169 && b[1] == 254 || // RFC 3927
			b[0] == 100 && b[1]&0xc0 == 64 || // RFC 6598
			a.hasPrefix(NetIPv4, 192, 0, 2) || a.hasPrefix(NetIPv4, 198, 51, 100) || // RFC 5737
			a.hasPrefix(NetIPv4, 203, 0, 113))
	case NetIPv6:
		return !(a.hasPrefix(NetIPv6, 0xfe, 0x80, 0, 0, 0, 0, 0, 0) || // RFC 4862
			b[0]&0xfe == 0xfc || // RFC 4193
			a.hasPrefix(NetIPv6, 0x20, 0x01, 0x00) && b[3]&0xf0 == 0x10 || // RFC 4843, ORCHID
			a.hasPrefix(NetIPv6, 0x20, 0x01, 0x00) && b[3]&0xf0 == 0x20) // RFC 7343, ORCHIDv2
	}
	return true
}

// LinkedIPv4 returns the IPv4 address that a routable address is, embeds or tunnels to (Core's
// GetLinkedIPv4): addresses that share it count as one neighbourhood.
func (a *Addr) LinkedIPv4() (ip [4]byte, ok bool) {
	if !a.Routable() {
		return ip, false
	}
	b := a.bytes
	switch {
	case a.Net == NetIPv4:
		return [4]byte(b[:4]), true
	case a.hasPrefix(NetIPv6, 0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0), // RFC 6052
		a.hasPrefix(NetIPv6, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0): // RFC 6145
		return [4]byte(b[12:16]), true
	case a.hasPrefix(NetIPv6, 0x20, 0x02): // RFC 3964, 6to4
		return [4]byte(b[2:6]), true
	case a.hasPrefix(NetIPv6, 0x20, 0x01, 0, 0): // RFC 4380, Teredo: the octets are inverted
		return [4]byte{^b[12], ^b[13], ^b[14], ^b[15]}, true
	}
	return ip, false
}
