// Package durable keeps records so that what was committed is still there after a crash, whenever
// it comes: an append-only log in segments, many writers, one sync for all who wait. Beside it are
// single files that are replaced whole, and a file system with faults for tests.
//
// # Format
//
// A log is a directory of segments, files of one size. The name of a segment is only a slot: slots
// are used again, and the header says which segment of the log a slot holds. All numbers are
// little-endian.
//
//	segment  = header record*
//	header   = "TALLYSEG" version[4]=1 number[4] size[4] prevEnd[4] salt[8] crc[4] zero[4]
//	record   = hcrc[4] pcrc[4] len[4] kind[1] zero[3] payload[len] zero[0..7]
//	payload  = octets                                    of kind 1, data
//	         | seq[8] synced[8] parts[4] zero[4] octets  of kind 2, commit
//	         | number[4] zero[4] octets                  of kind 3, part
//
// crc and pcrc are CRC-32C of what stands before, and of the payload. hcrc is that of salt,
// position and the header from pcrc on: a record is valid at its own place in its own segment only,
// so what an earlier use of the slot left behind, or what a sender of mail forged, is never taken
// for a record. prevEnd is where the segment before ended: it had been synced that far before its
// successor was begun.
//
// Records begin at multiples of 8.
//
// A data record means nothing until a commit record behind it is on stable storage. A commit record
// has the next sequence number, and says up to where the log had been synced when it was written.
// What is too long for one record begins in that many parts, numbered from 0, before it; parts
// whose commit was given up are followed by a part 0, or by a commit without parts.
//
// # After a crash
//
// Open reads from a position the caller kept on. An invalid record ends the log, if nothing that
// was synced can lie behind it; but if a later segment, or a later commit record that says synced,
// knows better, stored data was damaged and Open refuses. The records of the last sync are written
// and synced once more before they are relied upon, because after a sync that failed the page cache
// holds octets that the disk does not ("fsyncgate"; Linux marks such pages clean).
//
// The package does not know what records mean, keeps no index and never deletes by itself.
package durable

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Errors that callers branch on.
var (
	// ErrFull: there is no room on the disk. Nothing was lost, and it may work later.
	ErrFull = errors.New("no room on the disk")
	// ErrBroken: a write or a sync failed, or the log was closed. It does nothing more; only
	// opening it again tells what it has.
	ErrBroken = errors.New("log is broken")
	// ErrCorrupt: data that had reached stable storage is damaged.
	ErrCorrupt = errors.New("log is corrupt")
)

// Pos is a place in a log: the number of a segment in the upper 32 bits, the offset in it in the
// lower. Later places are greater.
type Pos uint64

func at(segment, offset uint32) Pos { return Pos(segment)<<32 | Pos(offset) }

// Segment is the number of the segment; the first is 1.
func (p Pos) Segment() uint32 { return uint32(p >> 32) }

// Offset is the offset in the segment.
func (p Pos) Offset() uint32 { return uint32(p) }

// String returns "segment:offset".
func (p Pos) String() string { return fmt.Sprintf("%d:%d", p.Segment(), p.Offset()) }

// Extent is where a data record lies, and the length of its payload.
type Extent struct {
	Pos Pos
	Len uint32
}

// Mark is a point up to which a caller has taken in the log: after the commit of that sequence
// number, which ends at that position. The zero Mark is the beginning.
type Mark struct {
	Pos Pos
	Seq uint64
}

// Config of a log. Dir is needed; the rest has defaults.
type Config struct {
	FS  vfs.FS // nil: the machine's
	Dir string
	// SegmentBytes is the size of new segments. 0: 32 MiB. A record takes at most half a segment.
	SegmentBytes int
	// KeepFree is how many unused slots are kept for reuse; writing to blocks that were written
	// before is faster to sync than fresh ones. 0: 4. At least 2 are always prepared: one is a
	// reserve for commits when the disk is full.
	KeepFree int
	Log      *slog.Logger // nil: none
}

func (c *Config) fill() {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 32 << 20
	}
	if c.KeepFree == 0 {
		c.KeepFree = 4
	}
	c.KeepFree = max(c.KeepFree, readySlots)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// IsFull reports whether an error of the file system says that the disk or a quota is full.
func IsFull(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, syscall.ENOSPC) ||
		errors.Is(err, syscall.EDQUOT)
}
