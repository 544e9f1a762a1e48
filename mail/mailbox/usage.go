package mailbox

import (
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// recount is how long a count of a mailbox's size is believed: readers delete mail behind our back.
const recount = time.Minute

// usage remembers how many octets each mailbox holds.
type usage struct {
	mu    sync.Mutex
	sizes map[string]*boxUsage // guarded by mu
}

type boxUsage struct {
	bytes    int64
	counted  time.Time
	reserved int64 // for messages that are being written; a new count does not change it
}

// box returns what is known of a mailbox, counted anew where that is old. mu is held.
func (u *usage) box(dir string, now time.Time) *boxUsage {
	b := u.sizes[dir]
	if b == nil {
		b = new(boxUsage)
		u.sizes[dir] = b
	}
	if b.counted.IsZero() || now.Sub(b.counted) > recount {
		b.bytes, b.counted = count(dir), now
	}
	return b
}

// fits reports whether size more octets stay within the quota.
func (u *usage) fits(dir string, size, quota int64, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := u.box(dir, now)
	return b.bytes+b.reserved+size <= quota
}

// reserve takes room for a message of size octets, if there is any: of many that come together only those
// that fit are written. settle gives it back.
func (u *usage) reserve(dir string, size, quota int64, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := u.box(dir, now)
	if b.bytes+b.reserved+size > quota {
		return false
	}
	b.reserved += size
	return true
}

// settle gives back what was reserved, and counts what was written in its place.
func (u *usage) settle(dir string, reserved, written int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := u.sizes[dir]
	b.reserved -= reserved
	b.bytes += written
}

// count adds up the messages of a Maildir and its folders, by their names where these tell the size.
func count(dir string) int64 {
	var total int64
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // a file that a reader has just moved counts when it is seen next
		}
		if _, rest, ok := strings.Cut(d.Name(), ",S="); ok {
			digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
			if digits < 0 {
				digits = len(rest)
			}
			if n, err := strconv.ParseInt(rest[:digits], 10, 64); err == nil {
				total += n
				return nil
			}
		}
		if fi, err := d.Info(); err == nil {
			total += fi.Size()
		}
		return nil
	})
	return total
}
