// Package wire speaks the language of Bitcoin's peers: every message of protocol version 70016, the
// plain framing (v1) and the encrypted one (v2, BIP 324).
//
// A message is a struct with a Command, the name in its frame, and Append, which writes its
// payload; Parse reads one. Structs share the octets that they were parsed from. A payload must be
// used up to its last octet, a list may be as long as Bitcoin Core accepts and not longer, and
// nothing is allocated for items that the payload is too short to hold. Two kinds of error come
// from Parse: an *ExcessError where the peer broke a limit that no honest software breaks, and
// anything else where the payload is broken, which Core passes over.
//
// Conn reads and writes messages over a connection. Under it, V1 framing is a function of octets,
// and Handshake a state machine that neither knows sockets nor waits.
//
// Not here: which message a peer may send when, what to answer, and whom to trust. That is package
// p2p.
package wire
