// Package tlog is the arithmetic of the log that proves what happened to a mail: entries, the
// Merkle tree over them, the tiles the tree is kept in, signed checkpoints and the proofs that hold
// under one.
//
// # The entry
//
// One event is one entry, a text of three or four lines:
//
//	tallypost/event/v1
//	ReceivedFromNonERDS
//	9Y9jT2yxQF1q2ltNxLPFIwUEsNsFsRSV3UgvaQ1ZJ3c=
//	after 912095 00000000000000000001b8a7c5c2f1c4b2b9b6a3f1d0e2c3a4b5968778695a4b
//
// The second line is the kind of the event (mail.EventKind). The third is a commitment to
// everything else, in base 64: HMAC-SHA-256 with a random salt of 32 octets as its key over the
// canonical octets of the event (mail.Event.Canonical). Whoever has salt and event can show that
// the entry means them; once both are erased the entry is a random string, which is what data
// protection law asks of a log that cannot forget. The optional fourth line names a block that
// existed when the entry was made, height and hash as explorers write it: the entry is no older
// than that block.
//
// # The tree
//
// The tree is that of RFC 6962, section 2.1: leaf hash SHA-256(0x00 || entry), node hash
// SHA-256(0x01 || left || right). It is stored as tiles of height 8 (C2SP tlog-tiles v0.1.0): a
// full tile is 256 hashes, 8,192 octets; tile/0 has leaf hashes, and each hash of tile/L+1 is the
// root of one full tile of tile/L. Edge keeps the tiles that are not yet full, at most 255 hashes
// for each level, and grows the tree by a leaf at a time without reading anything.
//
// # The checkpoint
//
// A checkpoint is a signed note (C2SP signed-note v1.0.0, tlog-checkpoint v1.0.0) of the log's
// origin, size and root, signed with Ed25519 (type 0x01) by a key whose name is the origin. It has
// no extension lines. A proof travels as a .tlog-proof file (C2SP tlog-proof, draft of 2026-07-22,
// "c2sp.org/tlog-proof@v1").
//
// Everything read from outside is read strictly: what is accepted has one spelling, the one this
// package writes, so that no octet of a proof can be changed unnoticed.
//
// The package does not store, sequence, serve or ask anybody: bridge/eventlog does.
package tlog

import (
	"crypto/sha256"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// HashSize is the size of a hash in octets.
const HashSize = sha256.Size

// MaxSize is the greatest number of leaves a tree may have. The arithmetic of x/mod is done in
// int64 and does not end for sizes near 2^62; a log with 10,000 mails a second reaches 2^60 in four
// million years.
const MaxSize = 1 << 60

// Hash is a leaf, node or root hash of the tree.
type Hash = tlog.Hash

// EmptyRoot is the root of the tree without leaves: the hash of nothing (RFC 6962, section 2.1).
func EmptyRoot() Hash { return sha256.Sum256(nil) }

// LeafHash returns the hash of an entry as a leaf, SHA-256(0x00 || entry).
func LeafHash(entry []byte) Hash {
	var buf [1 + MaxEntry]byte // on the stack: our own entries all fit
	if len(entry) > MaxEntry {
		return tlog.RecordHash(entry)
	}
	n := copy(buf[1:], entry)
	return sha256.Sum256(buf[:1+n])
}

// NodeHash returns the hash of an inner node, SHA-256(0x01 || left || right).
func NodeHash(left, right Hash) Hash { return tlog.NodeHash(left, right) }

// checkSize guards every call into x/mod, which trusts its arguments.
func checkSize(size uint64) error {
	if size > MaxSize {
		return fmt.Errorf("tree size %d is over the limit of %d", size, uint64(MaxSize))
	}
	return nil
}
