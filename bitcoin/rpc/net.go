package rpc

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/mempool"
	"github.com/tallypost/tallypost/bitcoin/p2p"
	"github.com/tallypost/tallypost/bitcoin/p2p/addrbook"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/bitcoin/wire"
)

func peerID(n int64) p2p.PeerID { return p2p.PeerID(n) }

func (a *API) netMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "network", Name: "getpeerinfo", Run: run(a.getPeerInfo),
			Doc: peerInfoHelp},
		{Category: "network", Name: "getnetworkinfo", Run: run(a.getNetworkInfo),
			Doc: networkInfoHelp},
		{Category: "network", Name: "getconnectioncount", Run: run(func(call) (any, error) {
			in, out := a.p2p.Counts()
			return in + out, nil
		}), Doc: "Returns the number of connections to other nodes."},
		{Category: "network", Name: "getnettotals", Run: run(a.getNetTotals),
			Doc: "Returns information about network traffic, including bytes in, bytes out."},
		{Category: "network", Name: "ping", Run: run(func(call) (any, error) {
			a.p2p.Ping()
			return nil, nil
		}), Doc: "Requests that a ping be sent to all other nodes, to measure ping time."},
		{Category: "network", Name: "addnode", Params: "node:s command:s v2transport:b?", Run: a.addNode,
			Doc: "Attempts to add or remove a node from the addnode list, or try a connection once."},
		{Category: "network", Name: "getaddednodeinfo", Params: "node:s?", Run: run(a.getAddedNodeInfo),
			Doc: "Returns information about the given added node, or all added nodes."},
		{Category: "network", Name: "disconnectnode", Params: "address:s? nodeid:i?",
			Run: run(a.disconnectNode), Doc: "Immediately disconnects from the specified peer node."},
		{Category: "network", Name: "setnetworkactive", Params: "state:b", Run: run(func(c call) (any, error) {
			a.p2p.SetActive(c.Bool(0, true))
			return a.p2p.Active(), nil
		}), Doc: "Disable/enable all p2p network activity."},
		{Category: "network", Name: "setban", Params: "subnet:s command:s bantime:i? absolute:b?",
			Run: run(a.setBan), Doc: "Attempts to add or remove an IP/Subnet from the banned list."},
		{Category: "network", Name: "listbanned", Run: run(a.listBanned),
			Doc: "List all manually banned IPs/Subnets."},
		{Category: "network", Name: "clearbanned", Run: run(func(call) (any, error) {
			return nil, a.p2p.Bans().Clear(a.now())
		}), Doc: "Clear all banned IPs."},
		{Category: "network", Name: "getnodeaddresses", Params: "count:I? network:s?",
			Run: run(a.getNodeAddresses),
			Doc: "Return known addresses, after filtering for quality and recency."},
		{Category: "network", Name: "getaddrmaninfo", Run: run(a.getAddrmanInfo),
			Doc: "Provides information about the node's address manager."},
		{Category: "hidden", Name: "getrawaddrman", Run: run(a.getRawAddrman),
			Doc: "Returns information on all address manager entries."},
		{Category: "hidden", Name: "addpeeraddress", Params: "address:s port:i tried:b?",
			Run: run(a.addPeerAddress), Doc: "Add the address of a potential peer to an address manager " +
				"table. This RPC is for testing only."},
		{Category: "hidden", Name: "addconnection", Params: "address:s connection_type:s v2transport:b",
			Run: a.addConnection, Doc: "Open an outbound connection to a specified node. This RPC is for " +
				"testing only."},
		{Category: "hidden", Name: "sendmsgtopeer", Params: "peer_id:i msg_type:s msg:s",
			Run: run(a.sendMsgToPeer), Doc: "Send a p2p message to a peer specified by id."},
	}
}

var serviceNames = []struct {
	bit  wire.Services
	name string
}{{wire.ServiceNetwork, "NETWORK"}, {wire.ServiceBloom, "BLOOM"}, {wire.ServiceWitness, "WITNESS"},
	{wire.ServiceCompactFilters, "COMPACT_FILTERS"}, {wire.ServiceNetworkLimited, "NETWORK_LIMITED"},
	{wire.ServiceP2PV2, "P2P_V2"}}

func servicesNames(s wire.Services) []string {
	out := []string{}
next:
	for i := range 64 {
		bit := wire.Services(1) << i
		if s&bit == 0 {
			continue
		}
		for _, n := range serviceNames {
			if n.bit == bit {
				out = append(out, n.name)
				continue next
			}
		}
		out = append(out, fmt.Sprintf("UNKNOWN[2^%d]", i))
	}
	return out
}

func unixOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func (a *API) getPeerInfo(call) (any, error) {
	out := []any{}
	for _, p := range a.p2p.Peers() {
		out = append(out, peerJSON(&p))
	}
	return out, nil
}

func peerJSON(p *p2p.PeerInfo) object {
	o := object{{"id", int64(p.ID)}, {"addr", p.Addr}, {"addrbind", p.AddrBind}}
	if p.AddrLocal != "" {
		o.Set("addrlocal", p.AddrLocal)
	}
	o = append(o, object{{"network", p.Network.String()}, {"services", fmt.Sprintf("%016x", uint64(p.Services))},
		{"servicesnames", servicesNames(p.Services)}, {"relaytxes", p.RelayTxs},
		{"last_inv_sequence", p.LastInvSequence}, {"inv_to_send", p.InvToSend},
		{"lastsend", unixOrZero(p.LastSend)}, {"lastrecv", unixOrZero(p.LastRecv)},
		{"last_transaction", unixOrZero(p.LastTx)}, {"last_block", unixOrZero(p.LastBlock)},
		{"bytessent", p.BytesSent}, {"bytesrecv", p.BytesRecv}, {"conntime", p.Connected.Unix()},
		{"timeoffset", int64(p.TimeOffset / time.Second)}}...)
	for _, t := range []struct {
		name string
		d    time.Duration
	}{{"pingtime", p.Ping}, {"minping", p.MinPing}, {"pingwait", p.PingWait}} {
		if t.d > 0 {
			o.Set(t.name, t.d.Seconds())
		}
	}
	heights := []any{}
	for _, h := range p.InFlight {
		heights = append(heights, h)
	}
	session := ""
	if p.V2 {
		session = hex.EncodeToString(p.Session[:])
	}
	if p.System != 0 {
		o.Set("mapped_as", int64(p.System))
	}
	return append(o, object{{"version", int64(p.Version)}, {"subver", p.UserAgent},
		{"inbound", p.Type == p2p.Inbound}, {"bip152_hb_to", p.HighBandwidthTo},
		{"bip152_hb_from", p.HighBandwidthFrom}, {"startingheight", int64(p.StartHeight)},
		{"presynced_headers", p.PresyncHeight}, {"synced_headers", p.SyncedHeaders},
		{"synced_blocks", p.SyncedBlocks}, {"inflight", heights}, {"addr_relay_enabled", p.AddrRelay},
		{"addr_processed", p.AddrProcessed}, {"addr_rate_limited", p.AddrLimited},
		{"permissions", p.Permissions.Names()}, {"minfeefilter", p.FeeFilter},
		{"bytessent_per_msg", countJSON(p.SentPer)}, {"bytesrecv_per_msg", countJSON(p.RecvPer)},
		{"connection_type", p.Type.String()}, {"transport_protocol_type", p.Transport},
		{"session_id", session}}...)
}

func countJSON(m p2p.MsgCount) object {
	o := object{}
	for k, v := range m {
		o.Set(k, v)
	}
	slices.SortFunc(o, func(x, y jsonrpc.Member) int { return cmp.Compare(x.Name, y.Name) })
	return o
}

var allNets = []wire.Net{wire.NetIPv4, wire.NetIPv6, wire.NetTorV3, wire.NetI2P, wire.NetCJDNS}

func (a *API) getNetworkInfo(call) (any, error) {
	in, out := a.p2p.Counts()
	networks := []any{}
	for _, n := range allNets {
		proxy := a.p2p.Proxy(n)
		reachable := a.p2p.Reachable(n)
		networks = append(networks, object{{"name", n.String()}, {"limited", !reachable},
			{"reachable", reachable}, {"proxy", proxy}, {"proxy_randomize_credentials", a.p2p.Isolates(n)}})
	}
	locals := []any{}
	for ap, score := range a.p2p.Locals() {
		locals = append(locals, object{{"address", ap.Addr.String()}, {"port", int(ap.Port)}, {"score", score}})
	}
	var relay, incremental mempool.FeeRate
	a.withPool(func(p *mempool.Pool) {
		relay, incremental = p.Config().MinRelayFee, p.Config().IncrementalFee
	})
	return object{{"version", Version}, {"subversion", a.p2p.UserAgent()},
		{"protocolversion", wire.ProtocolVersion},
		{"localservices", fmt.Sprintf("%016x", uint64(a.p2p.Services()))},
		{"localservicesnames", servicesNames(a.p2p.Services())}, {"localrelay", a.p2p.RelaysTxs()},
		{"timeoffset", a.timeOffset()}, {"networkactive", a.p2p.Active()}, {"connections", in + out},
		{"connections_in", in}, {"connections_out", out}, {"networks", networks},
		{"relayfee", bitcoin.Amount(max(relay, 0))}, {"incrementalfee", bitcoin.Amount(max(incremental, 0))},
		{"localaddresses", locals}, {"warnings", a.warnings()}}, nil
}

// timeOffset is the median of what the peers that we chose differ from our clock, in seconds.
func (a *API) timeOffset() int64 {
	var list []int64
	for _, p := range a.p2p.Peers() {
		if p.Type != p2p.Inbound && p.Version != 0 {
			list = append(list, int64(p.TimeOffset/time.Second))
		}
	}
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

func (a *API) getNetTotals(call) (any, error) {
	received, sent := a.p2p.Totals()
	u := a.p2p.UploadTarget()
	return object{{"totalbytesrecv", received}, {"totalbytessent", sent},
		{"timemillis", a.now().UnixMilli()}, {"uploadtarget", object{
			{"timeframe", int64(u.Frame / time.Second)}, {"target", u.Target}, {"target_reached", u.Reached},
			{"serve_historical_blocks", u.ServesOld}, {"bytes_left_in_cycle", u.OctetsLeft},
			{"time_left_in_cycle", int64(u.TimeLeft / time.Second)}}}}, nil
}

func (a *API) addNode(ctx context.Context, c call) (any, error) {
	name, v2 := c.String(0, ""), c.Bool(2, a.cfg.V2)
	command := c.String(1, "")
	if command != "add" && command != "remove" && command != "onetry" {
		return nil, c.Usage()
	}
	if v2 && !a.cfg.V2 {
		return nil, fail(jsonrpc.InvalidParameter,
			"Error: v2transport requested but not enabled (see -v2transport)")
	}
	switch command {
	case "onetry":
		a.p2p.TryNode(ctx, name, v2)
	case "add":
		if a.p2p.AddNode(name, v2) != nil {
			return nil, fail(jsonrpc.NodeAlreadyAdded, "Error: Node already added")
		}
	case "remove":
		if a.p2p.RemoveNode(name) != nil {
			return nil, fail(jsonrpc.NodeNotAdded,
				"Error: Node could not be removed. It has not been added previously.")
		}
	}
	return nil, nil
}

func (a *API) getAddedNodeInfo(c call) (any, error) {
	out := []any{}
	for _, n := range a.p2p.AddedNodes() {
		if c.Has(0) && n.Name != c.String(0, "") {
			continue
		}
		addresses := []any{}
		if n.Connected {
			dir := "outbound"
			if n.Inbound {
				dir = "inbound"
			}
			addresses = append(addresses, object{{"address", n.Addr}, {"connected", dir}})
		}
		out = append(out, object{{"addednode", n.Name}, {"connected", n.Connected}, {"addresses", addresses}})
	}
	if c.Has(0) && len(out) == 0 {
		return nil, fail(jsonrpc.NodeNotAdded, "Error: Node has not been added.")
	}
	return out, nil
}

func (a *API) disconnectNode(c call) (any, error) {
	var err error
	switch {
	case c.Has(0) && !c.Has(1):
		err = a.p2p.Disconnect(c.String(0, ""))
	case c.Has(1) && c.String(0, "") == "":
		err = a.p2p.DisconnectID(peerID(c.Int(1, -1)))
	default:
		return nil, fail(-32602, "Only one of address and nodeid should be provided.")
	}
	if err != nil {
		return nil, fail(jsonrpc.NodeNotConnected, "Node not found in connected nodes")
	}
	return nil, nil
}

func (a *API) setBan(c call) (any, error) {
	subnet, command := c.String(0, ""), c.String(1, "")
	if command != "add" && command != "remove" {
		return nil, c.Usage()
	}
	bans, now := a.p2p.Bans(), a.now()
	if command == "remove" {
		found, err := bans.Remove(subnet, now)
		if err != nil {
			return nil, fail(jsonrpc.InvalidIPOrSubnet, "Error: Invalid IP/Subnet")
		}
		if !found {
			return nil, fail(jsonrpc.InvalidIPOrSubnet, "Error: Unban failed. Requested address/subnet was "+
				"not previously manually banned.")
		}
		return nil, nil
	}
	already := bans.HasSubnet(subnet, now)
	if !strings.Contains(subnet, "/") {
		if addr, err := wire.ParseAddr(subnet); err == nil {
			already = bans.Banned(addr, now)
		}
	}
	if already {
		return nil, fail(jsonrpc.NodeAlreadyAdded, "Error: IP/Subnet already banned")
	}
	seconds, absolute := c.Int(2, 0), c.Bool(3, false)
	if absolute && seconds < now.Unix() {
		return nil, fail(jsonrpc.InvalidParameter, "Error: Absolute timestamp is in the past")
	}
	until := now.Add(time.Duration(seconds) * time.Second)
	switch {
	case absolute:
		until = time.Unix(seconds, 0)
	case seconds <= 0:
		until = now.Add(cmp.Or(a.cfg.BanTime, 24*time.Hour))
	}
	if _, err := bans.Add(subnet, until, now); err != nil {
		return nil, fail(jsonrpc.InvalidIPOrSubnet, "Error: Invalid IP/Subnet")
	}
	a.p2p.DisconnectBanned()
	return nil, nil
}

func (a *API) listBanned(call) (any, error) {
	out := []any{}
	now := a.now()
	for _, b := range a.p2p.Bans().List(now) {
		created, until := b.Created.Unix(), b.Until.Unix()
		out = append(out, object{{"address", b.Subnet}, {"ban_created", created}, {"banned_until", until},
			{"ban_duration", until - created}, {"time_remaining", until - now.Unix()}})
	}
	return out, nil
}

func (a *API) getNodeAddresses(c call) (any, error) {
	count := c.Int(0, 1)
	if count < 0 {
		return nil, fail(jsonrpc.InvalidParameter, "Address count out of range")
	}
	network := wire.NetNone
	if c.Has(1) {
		for _, n := range allNets {
			if n.String() == c.String(1, "") {
				network = n
			}
		}
		if network == wire.NetNone {
			return nil, fail(jsonrpc.InvalidParameter, "Network not recognized: %s", c.String(1, ""))
		}
	}
	out := []any{}
	for _, k := range a.p2p.Book().Addrs(int(count), 0, network, false, a.now()) {
		out = append(out, object{{"time", k.Time}, {"services", uint64(k.Services)},
			{"address", k.Addr.String()}, {"port", int(k.Port)}, {"network", k.Net.String()}})
	}
	return out, nil
}

func (a *API) getAddrmanInfo(call) (any, error) {
	counts := a.p2p.Book().Counts()
	var out object
	var all addrbook.Counts
	for _, n := range allNets {
		c := counts[n]
		all.New, all.Tried = all.New+c.New, all.Tried+c.Tried
		out.Set(n.String(), object{{"new", c.New}, {"tried", c.Tried}, {"total", c.New + c.Tried}})
	}
	out.Set("all_networks", object{{"new", all.New}, {"tried", all.Tried}, {"total", all.New + all.Tried}})
	return out, nil
}

func (a *API) getRawAddrman(call) (any, error) {
	var out object
	for _, tried := range []bool{false, true} {
		table := object{}
		for _, p := range a.p2p.Book().Table(tried) {
			e := &p.Entry
			o := object{{"address", e.Addr.String()}}
			if system := a.p2p.Book().System(e.Addr); system != 0 {
				o.Set("mapped_as", int64(system))
			}
			o = append(o, object{{"port", int(e.Port)}, {"network", e.Net.String()},
				{"services", uint64(e.Services)}, {"time", e.Time}, {"source", e.Source.String()},
				{"source_network", e.Source.Net.String()}}...)
			if system := a.p2p.Book().System(e.Source); system != 0 {
				o.Set("source_mapped_as", int64(system))
			}
			table.Set(fmt.Sprintf("%d/%d", p.Bucket, p.Position), o)
		}
		name := "new"
		if tried {
			name = "tried"
		}
		out.Set(name, table)
	}
	return out, nil
}

func (a *API) addPeerAddress(c call) (any, error) {
	port := c.Int(1, 0)
	if port < 0 || port > 65535 {
		return nil, fail(jsonrpc.MiscError, "JSON integer out of range")
	}
	addr, err := wire.ParseAddr(c.String(0, ""))
	if err != nil {
		return nil, fail(jsonrpc.InvalidIPOrSubnet, "Invalid IP address")
	}
	addr = a.p2p.Flip(addr)
	now := a.now()
	at := wire.KnownAddr{Time: uint32(now.Unix()), Services: wire.ServiceNetwork | wire.ServiceWitness,
		AddrPort: wire.AddrPort{Addr: addr, Port: uint16(port)}}
	book := a.p2p.Book()
	if !book.Add([]wire.KnownAddr{at}, addr, 0, now) {
		return object{{"success", false}, {"error", "failed-adding-to-new"}}, nil
	}
	if c.Bool(2, false) && !book.Good(at.AddrPort, now) {
		return object{{"success", false}, {"error", "failed-adding-to-tried"}}, nil
	}
	return object{{"success", true}}, nil
}

func (a *API) addConnection(ctx context.Context, c call) (any, error) {
	if !a.net.MockableTime {
		return nil, fail(jsonrpc.MiscError, "addconnection is for regression testing (-regtest mode) only.")
	}
	typ, ok := p2p.ConnTypeByName(c.String(1, ""))
	if !ok || typ == p2p.Inbound || typ == p2p.Manual {
		return nil, fail(jsonrpc.InvalidParameter, "%s", c.Usage().Error())
	}
	v2 := c.Bool(2, false)
	if v2 && !a.cfg.V2 {
		return nil, fail(jsonrpc.InvalidParameter,
			"Error: Adding v2transport connections requires -v2transport init flag to be set.")
	}
	if err := a.p2p.AddConnection(ctx, c.String(0, ""), typ, v2); errors.Is(err, p2p.ErrFull) {
		return nil, fail(jsonrpc.NodeCapacityReached,
			"Error: Already at capacity for specified connection type.")
	}
	return object{{"address", c.String(0, "")}, {"connection_type", c.String(1, "")}}, nil
}

func (a *API) sendMsgToPeer(c call) (any, error) {
	name := c.String(1, "")
	if len(name) > 12 {
		return nil, fail(jsonrpc.InvalidParameter, "Error: msg_type too long, max length is 12")
	}
	b, err := hex.DecodeString(c.String(2, ""))
	if err != nil {
		return nil, fail(jsonrpc.InvalidParameter, "Error parsing input for msg")
	}
	if !a.p2p.SendRaw(peerID(c.Int(0, -1)), name, b) {
		return nil, fail(jsonrpc.MiscError, "Error: Could not send message to peer")
	}
	return object{}, nil
}
