package bitcoincli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxLevel is the greatest level of detail of -netinfo.
const maxLevel = 4

// networkNames are the networks, and how they are called where there is little room (Bitcoin Core
// bitcoin-cli.cpp, NETWORKS and NETWORK_SHORT_NAMES). The first and the last are of addresses that nobody
// outside can reach.
var networkNames = [...]struct{ name, short string }{{"not_publicly_routable", "npr"}, {"ipv4", "ipv4"},
	{"ipv6", "ipv6"}, {"onion", "onion"}, {"i2p", "i2p"}, {"cjdns", "cjdns"}, {"internal", "int"}}

func networkID(name string) int {
	for i := range networkNames {
		if networkNames[i].name == name {
			return i
		}
	}
	return -1
}

// peerInfo is what the dashboard shows of a peer.
type peerInfo struct {
	ID             int
	Addr           string
	Network        string
	Inbound        bool
	RelayTxes      *bool
	ConnectionType string   `json:"connection_type"`
	Services       []string `json:"servicesnames"`
	Transport      *string  `json:"transport_protocol_type"`
	MinPing        *float64
	PingTime       *float64
	ConnTime       int64
	LastSend       int64
	LastRecv       int64
	LastTx         int64 `json:"last_transaction"`
	LastBlock      int64 `json:"last_block"`
	HBTo           bool  `json:"bip152_hb_to"`
	HBFrom         bool  `json:"bip152_hb_from"`
	AddrProcessed  int64 `json:"addr_processed"`
	AddrLimited    int64 `json:"addr_rate_limited"`
	AddrRelay      bool  `json:"addr_relay_enabled"`
	MappedAS       int   `json:"mapped_as"`
	Version        int
	Subver         string
}

// dashboard is what -netinfo shows.
type dashboard struct {
	level    int
	outbound bool // list the peers of our own choice only
	now      int64
	counts   [3][len(networkNames) + 1]int // in, out, total, of each network and of all
	relay    int                           // block-relay-only peers
	manual   int
	peers    []peerInfo
}

// netInfo shows the node's peers.
func (c *cli) netInfo(ctx context.Context) (string, error) {
	if len(c.args) > 0 && (c.args[0] == "h" || c.args[0] == "help") {
		return netinfoHelp, nil
	}
	d := dashboard{now: time.Now().Unix()}
	if err := d.configure(c.args); err != nil {
		return "", err
	}
	replies, err := c.several(ctx, c.wallet(), "getpeerinfo", "getnetworkinfo")
	if err != nil {
		return "", err
	}
	var peers []peerInfo
	var network networkInfo
	for i, into := range []any{&peers, &network} {
		if replies[i].err != nil {
			return "", replies[i].err
		}
		if err := decode(replies[i].result, into); err != nil {
			return "", err
		}
	}
	if v, err := network.Version.Int64(); err != nil || v < 209900 {
		return "", errors.New("-netinfo requires bitcoind server to be running v0.21.0 and up")
	}
	d.count(peers)
	var b strings.Builder
	services, chain := "", ""
	if d.level > 0 {
		services = " - services " + serviceLetters(network.LocalServicesNames)
	}
	if name := c.net.Name; name == "test" {
		chain = " testnet"
	} else if name != "main" {
		chain = " " + name
	}
	fmt.Fprintf(&b, "%s client %s%s - server %d%s%s\n\n", clientName, version, chain, network.ProtocolVersion,
		network.Subversion, services)
	if len(d.peers) > 0 {
		d.list(&b)
	}
	d.totals(&b, &network)
	if d.level == 0 {
		list := strings.ToLower(strings.Join(network.LocalServicesNames, ", "))
		b.WriteString("\n\nLocal services: " + strings.ReplaceAll(list, "_", " "))
	}
	network.local(&b)
	return b.String(), nil
}

// configure reads the arguments.
func (d *dashboard) configure(args []string) error {
	if len(args) == 0 {
		return nil
	}
	n, err := strconv.ParseUint(args[0], 10, 8)
	if err != nil {
		return fmt.Errorf("invalid -netinfo level argument: %s\nFor more information, run: bitcoin-cli -netinfo help",
			args[0])
	}
	d.level = min(int(n), maxLevel)
	if len(args) == 1 {
		return nil
	}
	switch s := args[1]; {
	case n > 0 && (s == "o" || s == "outonly"):
		d.outbound = true
	case n > 0:
		return fmt.Errorf("invalid -netinfo outonly argument: %s\nFor more information, run: bitcoin-cli -netinfo help", s)
	default:
		return fmt.Errorf("invalid -netinfo outonly argument: %s\nThe outonly argument is only valid for a level "+
			"greater than 0 (the first argument). For more information, run: bitcoin-cli -netinfo help", s)
	}
	return nil
}

// count counts peers and keeps those that are to be listed.
func (d *dashboard) count(peers []peerInfo) {
	const all = len(networkNames)
	for _, p := range peers {
		id := networkID(p.Network)
		if id < 0 {
			continue
		}
		row := 1
		if p.Inbound {
			row = 0
		}
		for _, r := range []int{row, 2} {
			d.counts[r][id]++
			d.counts[r][all]++
		}
		switch p.ConnectionType {
		case "block-relay-only":
			d.relay++
		case "manual":
			d.manual++
		}
		if d.level > 0 && !(d.outbound && p.Inbound) {
			d.peers = append(d.peers, p)
		}
	}
	slices.SortStableFunc(d.peers, func(a, b peerInfo) int {
		if a.Inbound != b.Inbound {
			if a.Inbound {
				return -1
			}
			return 1
		}
		return cmp.Compare(ping(a.MinPing), ping(b.MinPing))
	})
}

func ping(p *float64) float64 {
	if p == nil {
		return -1
	}
	return *p
}

// list writes a line for each peer.
func (d *dashboard) list(b *strings.Builder) {
	addr, processed, limited, age, id, services := 0, 5, 6, 5, 2, 6
	mapped := false
	for i := range d.peers {
		p := &d.peers[i]
		addr = max(addr, len(p.Addr)+1)
		processed = max(processed, len(strconv.FormatInt(p.AddrProcessed, 10)))
		limited = max(limited, len(strconv.FormatInt(p.AddrLimited, 10)))
		age = max(age, len(d.age(p)))
		id = max(id, len(strconv.Itoa(p.ID)))
		services = max(services, len(serviceLetters(p.Services)))
		mapped = mapped || p.MappedAS != 0
	}
	showAddr, showVersion := d.level == 2 || d.level == 4, d.level == 3 || d.level == 4
	if !showAddr {
		addr = 0
	}
	head := func(on bool, s string) string {
		if on {
			return s
		}
		return ""
	}
	fmt.Fprintf(b, "<->   type   net %*s  v  mping   ping send recv  txn  blk  hb %*s%*s%*s ", services, "serv",
		processed, "addrp", limited, "addrl", age, "age")
	as := 0
	if mapped {
		b.WriteString(" asmap ")
		as = 7
	}
	fmt.Fprintf(b, "%*s %-*s%s\n", id, "id", addr, head(showAddr, "address"), head(showVersion, "version"))
	for i := range d.peers {
		p := &d.peers[i]
		direction, hb := "out", " "
		if p.Inbound {
			direction = "in"
		}
		if p.HBTo {
			hb = "."
		}
		if hb += " "; p.HBFrom {
			hb = hb[:1] + "*"
		}
		fmt.Fprintf(b, "%3s %6s %5s %*s %2s%7s%7s%5s%5s%5s%5s  %2s %*s%*s%*s%*s %*d %-*s%s\n", direction,
			connectionName(p.ConnectionType), networkNames[networkID(p.Network)].short, services,
			serviceLetters(p.Services), transportLetter(p.Transport), pingText(p.MinPing), pingText(p.PingTime),
			d.since(p.LastSend, 1, ""), d.since(p.LastRecv, 1, ""), d.since(p.LastTx, 60, head(!p.relaysTxs(), "*")),
			d.since(p.LastBlock, 60, ""), hb, processed, unless0(p.AddrProcessed, head(!p.AddrRelay, ".")),
			limited, unless0(p.AddrLimited, ""), age, d.age(p), as, head(mapped, unless0(int64(p.MappedAS), "")),
			id, p.ID, addr, head(showAddr, p.Addr),
			head(showVersion && (p.Version != 0 || p.Subver != ""), strconv.Itoa(p.Version)+p.Subver))
	}
	fmt.Fprintf(b, "                %*s         ms     ms  sec  sec  min  min                %*s\n\n", services, "", age,
		"min")
}

func (p *peerInfo) relaysTxs() bool { return p.RelayTxes == nil || *p.RelayTxes }

// age is how many minutes a connection lasts.
func (d *dashboard) age(p *peerInfo) string { return d.since(p.ConnTime, 60, "") }

// since is how many units have passed since a time, or a text if that never was.
func (d *dashboard) since(t, unit int64, never string) string {
	if t == 0 {
		return never
	}
	return strconv.FormatInt((d.now-t)/unit, 10)
}

func unless0(n int64, zero string) string {
	if n == 0 {
		return zero
	}
	return strconv.FormatInt(n, 10)
}

func pingText(p *float64) string {
	if p == nil || *p < 0 {
		return ""
	}
	if ms := math.Round(1000 * *p); ms <= 999999 {
		return strconv.FormatFloat(ms, 'f', -1, 64)
	}
	return "-"
}

func transportLetter(t *string) string {
	switch {
	case t == nil:
		return "1"
	case len(*t) == 2 && (*t)[0] == 'v':
		return (*t)[1:]
	}
	return " "
}

func connectionName(typ string) string {
	switch typ {
	case "outbound-full-relay":
		return "full"
	case "block-relay-only":
		return "block"
	case "manual", "feeler":
		return typ
	case "addr-fetch":
		return "addr"
	}
	return ""
}

// serviceLetters are the services with a letter each.
func serviceLetters(names []string) string {
	var b strings.Builder
	for _, s := range names {
		switch {
		case s == "NETWORK_LIMITED":
			b.WriteByte('l')
		case s == "P2P_V2":
			b.WriteByte('2')
		case s != "":
			b.WriteString(strings.ToLower(s[:1]))
		}
	}
	return b.String()
}

// totals writes the table of how many peers there are.
func (d *dashboard) totals(b *strings.Builder, network *networkInfo) {
	b.WriteString("     ")
	var columns []int
	for _, n := range network.Networks {
		if id := networkID(n.Name); n.Reachable && id >= 0 {
			fmt.Fprintf(b, "%8s", n.Name)
			columns = append(columns, id)
		}
	}
	for _, id := range []int{0, len(networkNames) - 1} {
		if d.counts[2][id] > 0 {
			fmt.Fprintf(b, "%8s", networkNames[id].short)
			columns = append(columns, id)
		}
	}
	b.WriteString("   total   block")
	if d.manual > 0 {
		b.WriteString("  manual")
	}
	for i, row := range []string{"in", "out", "total"} {
		fmt.Fprintf(b, "\n%-5s", row)
		for _, id := range columns {
			fmt.Fprintf(b, "%8d", d.counts[i][id])
		}
		fmt.Fprintf(b, "   %5d", d.counts[i][len(networkNames)])
		if i == 1 {
			fmt.Fprintf(b, "   %5d", d.relay)
			if d.manual > 0 {
				fmt.Fprintf(b, "   %5d", d.manual)
			}
		}
	}
}

// local writes our own addresses.
func (n *networkInfo) local(b *strings.Builder) {
	b.WriteString("\n\nLocal addresses")
	if len(n.LocalAddresses) == 0 {
		b.WriteString(": n/a\n")
		return
	}
	width := 0
	for _, a := range n.LocalAddresses {
		width = max(width, len(a.Address)+1)
	}
	for _, a := range n.LocalAddresses {
		fmt.Fprintf(b, "\n%-*s    port %6d    score %6d", width, a.Address, a.Port, a.Score)
	}
}

// netinfoHelp explains the columns.
const netinfoHelp = `-netinfo (level [outonly]) | help

A dashboard of the node's peers, made of the results of getpeerinfo and getnetworkinfo. It is for people and may
change with any version. For a live view: watch --interval 1 --no-title bitcoin-cli -netinfo 4

Arguments:
1. level (0-4, default 0; up to 255 is 4)
     0 - how many peers there are in each network, by block relay and by hand; local addresses
     1 - a line for each peer before that
     2 - with its address   3 - with its version   4 - with both
2. outonly, or o: list the peers of our own choice only

Columns:
  <->      in: the peer connected to us; out: we to it
  type     full, block (no transactions, no addresses), manual, feeler, addr (asked for addresses once)
  net      ipv4, ipv6, onion, i2p, cjdns, or npr: not publicly routable
  serv     services of the peer: n NETWORK, b BLOOM, w WITNESS, c COMPACT_FILTERS, l NETWORK_LIMITED, 2 P2P_V2,
           u unknown
  v        version of the transport
  mping    shortest round trip so far, in milliseconds
  ping     last round trip, in milliseconds
  send     seconds since something was sent, recv since something was received
  txn      minutes since a transaction of the peer entered our mempool; *: it has none from us
  blk      minutes since a block that was new came from the peer
  hb       compact blocks at once: "." we asked the peer for it, "*" the peer asked us
  addrp    addresses taken from the peer; ".": none are exchanged with it
  addrl    addresses dropped because there were too many
  age      minutes since the connection was made
  asmap    autonomous system of the peer, with -asmap
  id       number of the peer
  address  address and port
  version  protocol version and name of the program
`
