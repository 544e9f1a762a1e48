package rpc

// What stands in the answers of the methods about the network.
const (
	peerInfoHelp = `Returns data about each connected network peer as a json array of objects.

Result: a list of objects with
  "id" : n                      Peer index
  "addr" : "str"                (host:port) The IP address/hostname optionally followed by :port of the peer
  "addrbind" : "str"            (ip:port) Bind address of the connection to the peer
  "addrlocal" : "str"           (ip:port) Local address as reported by the peer
  "network" : "str"             Network (ipv4, ipv6, onion, i2p, cjdns, not_publicly_routable)
  "mapped_as" : n               Mapped AS (Autonomous System) number; only with -asmap
  "services", "servicesnames"   What the peer offers, as a number and by name
  "relaytxes" : bool            Whether we relay transactions to this peer
  "last_inv_sequence" : n       Mempool sequence number of this peer's last INV
  "inv_to_send" : n             How many transactions are queued to be announced
  "lastsend", "lastrecv", "last_transaction", "last_block", "conntime"
                                UNIX times of the last send and receive, of the last valid transaction and
                                block received from the peer, and of the connection; 0: never
  "bytessent", "bytesrecv", "bytessent_per_msg", "bytesrecv_per_msg"
                                Octets in all, and by the type of messages
  "timeoffset" : n              The time offset in seconds
  "pingtime", "minping", "pingwait"
                                The last and the shortest round trip and the time waited so far, in seconds
  "version", "subver"           The peer version and what it calls itself
  "inbound" : bool              Inbound (true) or Outbound (false)
  "bip152_hb_to", "bip152_hb_from"
                                Whether we selected the peer, and it us, as (compact blocks) high-bandwidth
  "startingheight", "presynced_headers", "synced_headers", "synced_blocks", "inflight"
                                Heights: at the start of the connection, of headers in pre-sync, of the last
                                header and block in common, of the blocks asked for
  "addr_relay_enabled", "addr_processed", "addr_rate_limited"
                                Whether addresses are exchanged, and how many were taken and dropped
  "permissions" : [...]         Any special permissions that have been granted to this peer
  "minfeefilter" : n            The minimum fee rate for transactions this peer accepts
  "connection_type" : "str"     outbound-full-relay, block-relay-only, inbound, manual, addr-fetch or feeler
  "transport_protocol_type" : "str"
                                detecting, v1 or v2
  "session_id" : "str"          The session ID for this connection, or "" if there is none`

	networkInfoHelp = `Returns an object containing various state info regarding P2P networking.

Result: an object with
  "version", "subversion", "protocolversion"
                                The server version, its name and the protocol version
  "localservices", "localservicesnames"
                                The services we offer to the network, as a number and by name
  "localrelay" : bool           True if transaction relay is requested from peers
  "timeoffset" : n              The time offset in seconds
  "connections", "connections_in", "connections_out"
                                The number of connections
  "networkactive" : bool        Whether p2p networking is enabled
  "networks" : [...]            For each network: "name" (ipv4, ipv6, onion, i2p, cjdns), "limited",
                                "reachable", "proxy", "proxy_randomize_credentials"
  "relayfee", "incrementalfee"  Minimum fee rates for relay and for replacement
  "localaddresses" : [...]      "address", "port" and relative "score" of each address of ours
  "warnings"                    Any network and blockchain warnings`
)
