// Package account knows who has mail here: accounts with their passwords and addresses, aliases,
// catch-alls, and the domains these belong to.
//
// All of it is one JSON file, replaced as a whole and synced, so that the command line can change it while
// the server runs; the server reads it anew when it has changed. A password is kept as its SCRAM-SHA-256
// credentials (RFC 5802, RFC 7677), from which neither the password nor a log-in elsewhere can be had. The
// package delivers nothing and speaks to no client.
package account

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tallypost/tallypost/mail"
)

// version of the file's format.
const version = 1

// Errors that callers tell apart.
var (
	ErrUnknown = errors.New("no such account or alias")
	ErrExists  = errors.New("address is in use already")
)

// Account is a person or program with a mailbox.
type Account struct {
	Address mail.Address `json:"address"` // mailbox, and name to log in with
	// Also are further addresses whose mail goes to this mailbox and that the account may send from.
	Also       []mail.Address `json:"also,omitempty"`
	Credential Credential     `json:"credential"`
	Quota      int64          `json:"quota,omitempty"` // octets; 0 is no limit
	// Disabled accounts keep their mail and receive more, but cannot log in.
	Disabled bool `json:"disabled,omitempty"`
}

// Alias sends mail for an address elsewhere: to mailboxes here or to other servers. With an empty local
// part it catches all mail of its domain that nothing else takes.
type Alias struct {
	Address mail.Address   `json:"address"`
	Targets []mail.Address `json:"targets"`
}

// catchAll is how the local part of a catch-all is written.
const catchAll = "*"

// directory is the content of the file.
type directory struct {
	Version  int       `json:"version"`
	Accounts []Account `json:"accounts"`
	Aliases  []Alias   `json:"aliases,omitempty"`

	byAddress map[string]int // key of each account's addresses -> index in Accounts
	aliases   map[string]int // key -> index in Aliases
}

// key folds the local part's case: RFC 5321 leaves it to the host, and no sane host tells Ada from ada.
func key(a mail.Address) string { return strings.ToLower(a.Local) + "@" + string(a.Domain) }

func (d *directory) index() error {
	d.byAddress, d.aliases = make(map[string]int), make(map[string]int)
	for i, a := range d.Accounts {
		for _, addr := range append([]mail.Address{a.Address}, a.Also...) {
			if _, dup := d.byAddress[key(addr)]; dup {
				return fmt.Errorf("%w: %s", ErrExists, addr)
			}
			d.byAddress[key(addr)] = i
		}
	}
	for i, a := range d.Aliases {
		k := key(a.Address)
		_, dup := d.aliases[k]
		_, taken := d.byAddress[k]
		if dup || taken {
			return fmt.Errorf("%w: %s", ErrExists, a.Address)
		}
		d.aliases[k] = i
	}
	return nil
}

// Accounts is the file and what it said when it was last read. Methods may be called from several
// goroutines.
type Accounts struct {
	path string

	mu      sync.Mutex
	dir     *directory // guarded by mu; replaced as a whole, never changed
	read    os.FileInfo
	checked time.Time
}

// Open reads the file; one that does not exist is a directory without accounts.
func Open(path string) (*Accounts, error) {
	a := &Accounts{path: path}
	dir, fi, err := load(path)
	if err != nil {
		return nil, err
	}
	a.dir, a.read = dir, fi
	return a, nil
}

func load(path string) (*directory, os.FileInfo, error) {
	dir := &directory{Version: version}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return dir, nil, dir.index()
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	dec := json.NewDecoder(f)
	dec.DisallowUnknownFields()
	if err := dec.Decode(dir); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if dir.Version != version {
		return nil, nil, fmt.Errorf("%s: version %d of the accounts file; this program reads version %d",
			path, dir.Version, version)
	}
	if err := dir.index(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return dir, fi, nil
}

// recheck is how often at most the file is looked at for changes.
const recheck = time.Second

// current returns the directory, read anew where the file has changed. A file that has become unreadable
// leaves the last good one in force: one typing error must not bounce everybody's mail.
func (a *Accounts) current() *directory {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := time.Now(); now.Sub(a.checked) >= recheck {
		a.checked = now
		a.refresh()
	}
	return a.dir
}

func (a *Accounts) refresh() {
	fi, err := os.Stat(a.path)
	if err != nil || a.read != nil && os.SameFile(fi, a.read) && fi.ModTime().Equal(a.read.ModTime()) {
		return
	}
	if dir, fi, err := load(a.path); err == nil {
		a.dir, a.read = dir, fi
	}
}

// List returns all accounts and aliases.
func (a *Accounts) List() ([]Account, []Alias) {
	d := a.current()
	return slices.Clone(d.Accounts), slices.Clone(d.Aliases)
}

// Add makes an account.
func (a *Accounts) Add(acc Account) error {
	return a.update(func(d *directory) error {
		d.Accounts = append(d.Accounts, acc)
		return nil
	})
}

// Change replaces an account with what change makes of it.
func (a *Accounts) Change(addr mail.Address, change func(*Account) error) error {
	return a.update(func(d *directory) error {
		i := slices.IndexFunc(d.Accounts, func(x Account) bool { return key(x.Address) == key(addr) })
		if i < 0 {
			return fmt.Errorf("%w: %s", ErrUnknown, addr)
		}
		return change(&d.Accounts[i])
	})
}

// Remove forgets an account. Its mailbox stays where it is.
func (a *Accounts) Remove(addr mail.Address) error {
	return a.update(func(d *directory) error {
		n := len(d.Accounts)
		d.Accounts = slices.DeleteFunc(d.Accounts, func(x Account) bool { return key(x.Address) == key(addr) })
		if len(d.Accounts) == n {
			return fmt.Errorf("%w: %s", ErrUnknown, addr)
		}
		return nil
	})
}

// AddAlias makes an alias, or a catch-all where the local part is "*".
func (a *Accounts) AddAlias(al Alias) error {
	if len(al.Targets) == 0 {
		return fmt.Errorf("alias %s has no target", al.Address)
	}
	return a.update(func(d *directory) error {
		d.Aliases = append(d.Aliases, al)
		return nil
	})
}

// RemoveAlias forgets an alias.
func (a *Accounts) RemoveAlias(addr mail.Address) error {
	return a.update(func(d *directory) error {
		n := len(d.Aliases)
		d.Aliases = slices.DeleteFunc(d.Aliases, func(x Alias) bool { return key(x.Address) == key(addr) })
		if len(d.Aliases) == n {
			return fmt.Errorf("%w: %s", ErrUnknown, addr)
		}
		return nil
	})
}

// update changes a copy of what the file says and replaces the file with it, under a lock that keeps
// other processes from doing so at the same time.
func (a *Accounts) update(change func(*directory) error) error {
	unlock, err := lockFile(a.path + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	dir, _, err := load(a.path)
	if err != nil {
		return err
	}
	if err := change(dir); err != nil {
		return err
	}
	if err := dir.index(); err != nil {
		return err
	}
	if err := replaceFile(a.path, dir); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refresh()
	return nil
}

// replaceFile writes beside the file, syncs, renames and syncs the folder: after a crash there is the old
// file or the new, whole.
func replaceFile(path string, dir *directory) error {
	b, err := json.MarshalIndent(dir, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
