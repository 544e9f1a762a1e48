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
	bytes   int64
	counted time.Time
}

// fits reports whether size more octets stay within the quota.
func (u *usage) fits(dir string, size, quota int64, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := u.sizes[dir]
	if b == nil || now.Sub(b.counted) > recount {
		b = &boxUsage{bytes: count(dir), counted: now}
		u.sizes[dir] = b
	}
	return b.bytes+size <= quota
}

// add counts a delivered message, where the mailbox is counted at all.
func (u *usage) add(dir string, size int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if b := u.sizes[dir]; b != nil {
		b.bytes += size
	}
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
