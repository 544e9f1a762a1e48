package reputation

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/clock"
	"github.com/tallypost/tallypost/mail"
)

// Learner learns from what users do with their mail, by looking at the Maildirs:
//
//   - moved into Junk by somebody, or left there after it was read: not wanted;
//   - moved out of Junk: wanted after all, and what was learned before is taken back;
//   - answered or flagged, or read and a day later still in the inbox or in a folder of the user's own: wanted.
//
// What lies unread, or went to Trash, says nothing.
type Learner struct {
	History *History
	Root    string // of the tree <domain>/<local part>/Maildir
	File    string // where the History is kept
	ServID  string // our name in Authentication-Results
	// Every is the time between two looks. 0: 5 minutes.
	Every time.Duration
	Clock clock.Clock
	Log   *slog.Logger

	seen map[string]struct{} // files, with their flags, that have nothing more to say
}

const (
	keptFor   = 24 * time.Hour      // read and still there after this time: wanted
	forgetAt  = 90 * 24 * time.Hour // lessons; nobody moves older mail
	maxLetter = 256 << 10           // octets of a message that are looked at
)

// Run looks and saves until ctx ends.
func (l *Learner) Run(ctx context.Context) error {
	every := l.Every
	if every == 0 {
		every = 5 * time.Minute
	}
	for {
		if err := l.Look(ctx); err != nil && ctx.Err() == nil {
			l.Log.Warn("mailboxes cannot be looked at", "err", err)
		}
		if err := l.History.Save(l.File); err != nil {
			l.Log.Error("reputation cannot be saved", "file", l.File, "err", err)
		}
		if clock.Sleep(ctx, l.Clock, every) != nil {
			return l.History.Save(l.File)
		}
	}
}

// Look goes through all mailboxes once.
func (l *Learner) Look(ctx context.Context) error {
	boxes, err := filepath.Glob(filepath.Join(l.Root, "*", "*", "Maildir"))
	if err != nil {
		return err
	}
	now := l.Clock.Now()
	seen := make(map[string]struct{})
	for _, box := range boxes {
		err := filepath.WalkDir(box, func(path string, d fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil || !d.Type().IsRegular() {
				return nil // moved away while we looked
			}
			if _, old := l.seen[path]; old {
				seen[path] = struct{}{}
				return nil
			}
			if l.letter(path, now) {
				seen[path] = struct{}{}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	l.seen = seen
	l.History.forgetLessons(now.Add(-forgetAt))
	return nil
}

// letter learns from one file, and reports whether it has no more to say as long as it stays what it is.
func (l *Learner) letter(path string, now time.Time) (done bool) {
	sub := filepath.Base(filepath.Dir(path))
	folder := strings.TrimPrefix(filepath.Base(filepath.Dir(filepath.Dir(path))), ".")
	if sub != "cur" && sub != "new" {
		return true
	}
	fi, err := os.Lstat(path)
	if err != nil || now.Sub(fi.ModTime()) > forgetAt {
		return true
	}
	_, flags, _ := strings.Cut(filepath.Base(path), ":2,")
	if sub == "new" && folder != "Junk" {
		return true // nobody has seen it; once somebody has, its path is another
	}
	msg, err := readLetter(path)
	if err != nil {
		return false
	}
	h, _ := mail.ParseHeader(msg)
	sender, id, ok := SenderOf(h, l.ServID)
	if !ok {
		return true // from here, or from before there was a History
	}
	class, ok, wait := judgeFate(folder, flags, strings.HasPrefix(h.Get("X-Tallypost-Verdict"), "junk"),
		now.Sub(fi.ModTime()))
	if ok {
		l.History.lesson(id, sender, Tokens(h, msg), class, now)
	}
	return !wait
}

// judgeFate says what the place and the flags of a message mean; wait is true where time may tell.
func judgeFate(folder, flags string, wasJunk bool, age time.Duration) (c Class, ok, wait bool) {
	read := strings.Contains(flags, "S")
	switch folder {
	case "Trash", "Sent", "Drafts", "Deleted Items", "Deleted Messages":
		return 0, false, false
	case "Junk", "Spam":
		return Spam, !wasJunk || read, false
	}
	if strings.Contains(flags, "T") {
		return 0, false, false
	}
	if wasJunk || strings.ContainsAny(flags, "RF") {
		return Ham, true, false
	}
	return Ham, read && age >= keptFor, read && age < keptFor
}

func readLetter(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLetter))
	return b, errors.Join(err)
}

// lesson learns a message once, or anew where its class has changed.
func (h *History) lesson(id string, s Sender, tokens []Token, c Class, now time.Time) {
	h.mu.Lock()
	before, known := h.learned[id]
	h.learned[id] = lesson{c, now}
	h.mu.Unlock()
	if known && before.class == c {
		return
	}
	if known {
		h.Unlearn(s, tokens, before.class, now)
	}
	h.Learn(s, tokens, c, now)
}

func (h *History) forgetLessons(before time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, l := range h.learned {
		if l.at.Before(before) {
			delete(h.learned, id)
		}
	}
}
