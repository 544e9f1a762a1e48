package queue

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"github.com/tallypost/tallypost/mail"
)

// The first octet of a key says whose it is. Numbers in keys are big-endian, so that keys sort as
// they do.
const (
	spaceJournal   = 'j' // the Journal's section
	spaceHistory   = 'h' // id seq[4] -> head (seq 0) or historyEntry
	spaceStates    = 'm' // id page[2] -> states of recipients; gone when the message is done
	spaceDue       = 'd' // len[2] route due[8] id -> nothing: what is to be tried when
	spaceMessageID = 'x' // hash[8] id -> nothing: messages by Message-ID
	spaceAddress   = 'a' // hash[8] id -> nothing: messages by address of sender or recipient
	spaceVersion   = 'v' // recordVersion

	// Of Disk, which shows them to nobody.
	spaceBody = 'b' // id -> extents
	spaceDisk = 'z' // its own affairs
)

// routeReports is a route that no recipient has: under it the due index has messages of which a
// report is owed.
const routeReports Route = ""

var keyVersion = []byte{spaceVersion}

// present is the value of keys that have nothing to say.
var present = []byte{}

func idKey(space byte, id mail.ID) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 13), space), uint64(id))
}

// keyID returns the id that follows the first octet of a key.
func keyID(key []byte) mail.ID { return mail.ID(binary.BigEndian.Uint64(key[1:])) }

func historyKey(id mail.ID, seq uint32) []byte {
	return binary.BigEndian.AppendUint32(idKey(spaceHistory, id), seq)
}

func statesKey(id mail.ID, page int) []byte {
	return binary.BigEndian.AppendUint16(idKey(spaceStates, id), uint16(page))
}

// moment is a place in the due index of one route.
type moment struct {
	due int64 // microseconds since 1970
	id  mail.ID
}

func (m moment) before(n moment) bool { return m.due < n.due || m.due == n.due && m.id < n.id }

func dueKey(r Route, m moment) []byte {
	key := make([]byte, 0, 3+len(r)+16)
	key = append(key, spaceDue)
	key = binary.BigEndian.AppendUint16(key, uint16(len(r)))
	key = append(key, r...)
	key = binary.BigEndian.AppendUint64(key, uint64(m.due))
	return binary.BigEndian.AppendUint64(key, uint64(m.id))
}

// dueMoment returns the place that a key of the due index stands for.
func dueMoment(key []byte) moment {
	tail := key[len(key)-16:]
	return moment{
		due: int64(binary.BigEndian.Uint64(tail)),
		id:  mail.ID(binary.BigEndian.Uint64(tail[8:])),
	}
}

// dueEnd is the first key behind the due index of a route.
func dueEnd(r Route) []byte {
	key := dueKey(r, moment{})
	return prefixEnd(key[:len(key)-16])
}

// hashKey is the key of an index by hash, or its prefix without the id. Whoever finds something by
// it has to compare: hashes are short.
func hashKey(space byte, s string) []byte {
	sum := sha256.Sum256([]byte(strings.ToLower(s)))
	return append(append(make([]byte, 0, 17), space), sum[:8]...)
}

func hashIDKey(space byte, s string, id mail.ID) []byte {
	return binary.BigEndian.AppendUint64(hashKey(space, s), uint64(id))
}

func addressKey(a mail.Address, id mail.ID) []byte {
	return hashIDKey(spaceAddress, a.String(), id)
}
