package p2p

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
)

// Ban keeps addresses of a subnet, or one that is no IP, from connecting.
type Ban struct {
	Subnet  string // in the form that Core writes
	Created time.Time
	Until   time.Time
}

const (
	// maxDiscouraged bounds the addresses that are remembered as those of misbehaving peers (Core has a
	// rolling bloom filter of this size).
	maxDiscouraged = 50_000
	// dumpBansInterval is how often changed bans are written.
	dumpBansInterval = 15 * time.Minute
)

// Bans are the subnets that an operator has banned, and the addresses that misbehaved. The former are kept
// in a file of Core's form, banlist.json; the latter are forgotten on restart and may connect while there
// is room. It may be used by many goroutines.
type Bans struct {
	mu          sync.Mutex // guards what follows
	file        string
	bans        map[string]Ban
	prefixes    map[string]netip.Prefix
	until       map[netip.Prefix]time.Time // of the prefixes
	lengths     map[int]int                // prefixes of each length
	dirty       bool
	discouraged map[wire.Addr]bool
	previous    map[wire.Addr]bool // the older half of the discouraged
}

// LoadBans reads the bans of a file; an absent file is an empty one. Where the error is not nil, the bans
// are empty and good to use.
func LoadBans(file string, now time.Time) (*Bans, error) {
	b := &Bans{file: file, discouraged: map[wire.Addr]bool{}}
	b.reset()
	if file == "" {
		return b, nil
	}
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		b.dirty = true
		return b, nil
	}
	if err != nil {
		return b, err
	}
	var list struct {
		Nets []struct {
			Version int    `json:"version"`
			Created int64  `json:"ban_created"`
			Until   int64  `json:"banned_until"`
			Address string `json:"address"`
		} `json:"banned_nets"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		b.dirty = true
		return b, fmt.Errorf("Cannot parse banlist %s: %w", file, err)
	}
	for _, n := range list.Nets {
		key, prefix, err := subnetKey(n.Address)
		if n.Version == 1 && err == nil {
			b.put(prefix, Ban{key, time.Unix(n.Created, 0), time.Unix(n.Until, 0)})
		}
	}
	b.sweep(now)
	return b, nil
}

// subnetKey returns the form in which Core writes a subnet, and the prefix; the latter is not valid for an
// address that is no IP.
func subnetKey(s string) (string, netip.Prefix, error) {
	if p, err := ParseSubnet(s); err == nil {
		return p.String(), p, nil
	}
	a, err := wire.ParseAddr(s)
	if err != nil {
		return "", netip.Prefix{}, err
	}
	return a.String(), netip.Prefix{}, nil
}

// Add bans a subnet until a time, unless it is banned for longer; changed is false then.
func (b *Bans) Add(subnet string, until, now time.Time) (changed bool, err error) {
	key, prefix, err := subnetKey(subnet)
	if err != nil {
		return false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.bans[key]; ok && !old.Until.Before(until) {
		return false, nil
	}
	b.put(prefix, Ban{key, now, until})
	b.dirty = true
	return true, b.flush(now)
}

// Remove takes a ban back; found is false where there is none of exactly this subnet.
func (b *Bans) Remove(subnet string, now time.Time) (found bool, err error) {
	key, _, err := subnetKey(subnet)
	if err != nil {
		return false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.bans[key]; !ok {
		return false, nil
	}
	b.drop(key)
	b.dirty = true
	return true, b.flush(now)
}

// Clear takes all bans back.
func (b *Bans) Clear(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reset()
	b.dirty = true
	return b.flush(now)
}

// List returns the bans in force, sorted.
func (b *Bans) List(now time.Time) []Ban {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep(now)
	out := make([]Ban, 0, len(b.bans))
	for _, ban := range b.bans {
		out = append(out, ban)
	}
	slices.SortFunc(out, func(x, y Ban) int { return compareSubnets(x.Subnet, y.Subnet) })
	return out
}

// compareSubnets orders IPs by their octets, and other addresses behind them.
func compareSubnets(x, y string) int {
	p, errP := netip.ParsePrefix(x)
	q, errQ := netip.ParsePrefix(y)
	switch {
	case errP == nil && errQ == nil:
		if c := p.Addr().Compare(q.Addr()); c != 0 {
			return c
		}
		return p.Bits() - q.Bits()
	case errP == nil:
		return -1
	case errQ == nil:
		return 1
	}
	return slices.Compare([]byte(x), []byte(y))
}

// HasSubnet reports whether exactly this subnet is banned.
func (b *Bans) HasSubnet(subnet string, now time.Time) bool {
	key, _, err := subnetKey(subnet)
	b.mu.Lock()
	defer b.mu.Unlock()
	ban, ok := b.bans[key]
	return err == nil && ok && now.Before(ban.Until)
}

// Banned reports whether an address lies in a banned subnet.
func (b *Bans) Banned(a wire.Addr, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	ip, isIP := a.IP()
	if !isIP {
		ban, ok := b.bans[a.String()]
		return ok && now.Before(ban.Until)
	}
	// As many look-ups as there are lengths, however many bans: an addr message asks a thousand times.
	ip = ip.Unmap()
	for length := range b.lengths {
		p, err := ip.Prefix(length)
		if err == nil && now.Before(b.until[p]) {
			return true
		}
	}
	return false
}

func (b *Bans) reset() {
	b.bans, b.prefixes = map[string]Ban{}, map[string]netip.Prefix{}
	b.until, b.lengths = map[netip.Prefix]time.Time{}, map[int]int{}
}

// put takes a ban in; with mu held.
func (b *Bans) put(prefix netip.Prefix, ban Ban) {
	b.drop(ban.Subnet)
	b.bans[ban.Subnet] = ban
	if prefix.IsValid() {
		b.prefixes[ban.Subnet] = prefix
		b.until[prefix] = ban.Until
		b.lengths[prefix.Bits()]++
	}
}

// drop takes a ban away, if there is one; with mu held.
func (b *Bans) drop(key string) {
	delete(b.bans, key)
	if p, ok := b.prefixes[key]; ok {
		delete(b.prefixes, key)
		delete(b.until, p)
		if b.lengths[p.Bits()]--; b.lengths[p.Bits()] == 0 {
			delete(b.lengths, p.Bits())
		}
	}
}

// Discourage remembers that a peer with this address misbehaved.
func (b *Bans) Discourage(a wire.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.discouraged) >= maxDiscouraged/2 {
		b.previous, b.discouraged = b.discouraged, map[wire.Addr]bool{}
	}
	b.discouraged[a] = true
}

// Discouraged reports whether a peer with this address misbehaved lately.
func (b *Bans) Discouraged(a wire.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.discouraged[a] || b.previous[a]
}

// sweep forgets bans whose time is over.
func (b *Bans) sweep(now time.Time) {
	for key, ban := range b.bans {
		if !now.Before(ban.Until) {
			b.drop(key)
			b.dirty = true
		}
	}
}

// Flush writes what has changed since it was written.
func (b *Bans) Flush(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.flush(now)
}

func (b *Bans) flush(now time.Time) error {
	b.sweep(now)
	if !b.dirty || b.file == "" {
		return nil
	}
	type net struct {
		Version int    `json:"version"`
		Created int64  `json:"ban_created"`
		Until   int64  `json:"banned_until"`
		Address string `json:"address"`
	}
	nets := []net{}
	for _, ban := range b.bans {
		nets = append(nets, net{1, ban.Created.Unix(), ban.Until.Unix(), ban.Subnet})
	}
	slices.SortFunc(nets, func(x, y net) int { return compareSubnets(x.Address, y.Address) })
	data, err := json.MarshalIndent(map[string]any{"banned_nets": nets}, "", "    ")
	if err != nil {
		return err
	}
	if err := writeFile(b.file, append(data, '\n')); err != nil {
		return err
	}
	b.dirty = false
	return nil
}

// writeFile replaces a file so that it is whole whatever happens.
func writeFile(file string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
