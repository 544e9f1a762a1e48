package p2p

import (
	"fmt"
	"net/netip"
	"strings"
)

// Permissions are what a peer may do beyond others (Bitcoin Core net_permissions.h).
type Permissions uint32

// The permissions.
const (
	PermBloom      Permissions = 1 << 1
	PermRelay      Permissions = 1 << 3
	PermForceRelay Permissions = 1<<2 | PermRelay
	PermDownload   Permissions = 1 << 6
	PermNoBan      Permissions = 1<<4 | PermDownload
	PermMempool    Permissions = 1 << 5
	PermAddr       Permissions = 1 << 7
	permImplicit   Permissions = 1 << 31
	PermAll        Permissions = PermBloom | PermForceRelay | PermNoBan | PermMempool | PermAddr
)

var permissionNames = []struct {
	name string
	perm Permissions
}{
	{"bloomfilter", PermBloom}, {"noban", PermNoBan}, {"forcerelay", PermForceRelay},
	{"relay", PermRelay}, {"mempool", PermMempool}, {"download", PermDownload}, {"addr", PermAddr},
}

// Has reports whether all of the permissions are given.
func (p Permissions) Has(q Permissions) bool { return p&q == q }

// Names returns the permissions by Core's names.
func (p Permissions) Names() []string {
	out := []string{}
	for _, n := range permissionNames {
		if p.Has(n.perm) {
			out = append(out, n.name)
		}
	}
	return out
}

// parsePermissions reads "perm,perm@rest"; without the sign the permissions are those that go without
// saying.
func parsePermissions(s string, bind bool) (p Permissions, in, out bool, rest string, err error) {
	list, rest, given := strings.Cut(s, "@")
	if !given {
		return permImplicit, true, false, s, nil
	}
next:
	for _, name := range strings.Split(list, ",") {
		switch name {
		case "":
			continue
		case "bloom":
			name = "bloomfilter"
		case "all":
			p |= PermAll
			continue
		case "in":
			in = true
			continue
		case "out":
			if bind {
				return 0, false, false, "", fmt.Errorf(
					`whitebind may only be used for incoming connections ("out" was passed)`)
			}
			out = true
			continue
		}
		for _, n := range permissionNames {
			if n.name == name {
				p |= n.perm
				continue next
			}
		}
		return 0, false, false, "", fmt.Errorf("Invalid P2P permission: '%s'", name)
	}
	if !in && !out {
		in = true
	} else if p == 0 {
		return 0, false, false, "", fmt.Errorf("Only direction was set, no permissions: '%s'", s)
	}
	return p, in, out, rest, nil
}

// Whitelisted are permissions of who has an address of a subnet.
type Whitelisted struct {
	Subnet      netip.Prefix
	Permissions Permissions
	In, Out     bool // connections that it holds for
}

// ParseWhitelist reads the argument of -whitelist. The errors are Core's.
func ParseWhitelist(s string) (w Whitelisted, err error) {
	var rest string
	if w.Permissions, w.In, w.Out, rest, err = parsePermissions(s, false); err != nil {
		return w, err
	}
	if w.Subnet, err = ParseSubnet(rest); err != nil {
		return w, fmt.Errorf("Invalid netmask specified in -whitelist: '%s'", rest)
	}
	return w, nil
}

// ParseWhitebind reads the argument of -whitebind: permissions of who connects to an address of ours.
func ParseWhitebind(s string) (Permissions, netip.AddrPort, error) {
	p, _, _, rest, err := parsePermissions(s, true)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	if ap, err := netip.ParseAddrPort(rest); err == nil && ap.Port() != 0 {
		return p, ap, nil
	}
	if ip, err := netip.ParseAddr(strings.Trim(rest, "[]")); err == nil && ip.IsValid() {
		return 0, netip.AddrPort{}, fmt.Errorf("Need to specify a port with -whitebind: '%s'", rest)
	}
	return 0, netip.AddrPort{}, fmt.Errorf("Cannot resolve -whitebind address: '%s'", rest)
}

// ParseSubnet reads an IP, or one with the length of a prefix or a netmask behind a slash.
func ParseSubnet(s string) (netip.Prefix, error) {
	host, mask, given := strings.Cut(s, "/")
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}, err
	}
	ip = ip.Unmap()
	if !given {
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	if p, err := netip.ParsePrefix(ip.String() + "/" + mask); err == nil {
		return p.Masked(), nil
	}
	m, err := netip.ParseAddr(mask)
	if err != nil || m.BitLen() != ip.BitLen() {
		return netip.Prefix{}, fmt.Errorf("invalid netmask %q", mask)
	}
	bits, ones := 0, true
	for _, b := range m.AsSlice() {
		for i := 7; i >= 0; i-- {
			set := b>>i&1 == 1
			if set && !ones {
				return netip.Prefix{}, fmt.Errorf("netmask %q has a hole", mask)
			}
			if ones = set; set {
				bits++
			}
		}
	}
	return netip.PrefixFrom(ip, bits).Masked(), nil
}
