package keyring

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/durable"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/dkim"
)

// Limits on what a folder of keys may hold.
const (
	maxKeyFile = 64 << 10 // octets
	maxKeys    = 100      // of one domain
)

const (
	suffix    = ".pem"
	stateFile = "state.json"
)

// loaded is a key with what its file looked like, so that it is read once.
type loaded struct {
	Key
	stamp stamp
}

type stamp struct {
	modified int64
	size     int64
}

// created is the line in front of the PEM that says when a key was made.
const created = "Created: "

func (r *Ring) folder(d mail.Domain) string { return filepath.Join(r.cfg.Dir, d.ASCII()) }

// load reads the keys of a domain, newest first. Those of known whose files are as they were are
// taken over; where known is nil, what an earlier run found out is read too. A key that cannot be
// used is an error: else its domain's mail would go out without a signature and nobody would know
// why.
func (r *Ring) load(d mail.Domain, known []loaded) ([]loaded, error) {
	dir := r.folder(d)
	names, err := filepath.Glob(filepath.Join(escape(dir), "*"+suffix))
	if err != nil {
		return nil, err
	}
	if len(names) > maxKeys {
		return nil, fmt.Errorf("%s: more than %d keys: remove old ones", dir, maxKeys)
	}
	var states map[string]State
	if known == nil {
		if states, err = readStates(filepath.Join(dir, stateFile)); err != nil {
			return nil, err
		}
	}
	keys := make([]loaded, 0, len(names))
	for _, name := range names {
		fi, err := os.Stat(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		s := stamp{fi.ModTime().UnixNano(), fi.Size()}
		selector := strings.TrimSuffix(filepath.Base(name), suffix)
		i := slices.IndexFunc(known, func(k loaded) bool {
			return k.Selector == selector && k.stamp == s
		})
		if i >= 0 {
			keys = append(keys, known[i])
			continue
		}
		k, err := readKey(name, fi)
		if err != nil {
			return nil, err
		}
		k.Domain, k.Selector, k.State = d, selector, states[selector]
		if _, err := dkim.NewSigner(dkim.SignConfig{Keys: []dkim.Key{k.Key}}); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		keys = append(keys, loaded{k, s})
	}
	slices.SortFunc(keys, func(a, b loaded) int {
		return -cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Selector, b.Selector))
	})
	return keys, nil
}

// escape keeps filepath.Glob from reading a folder's own name as a pattern.
func escape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

func readKey(name string, fi os.FileInfo) (Key, error) {
	if fi.Size() > maxKeyFile {
		return Key{}, fmt.Errorf("%s: larger than %d octets, which no key is", name, maxKeyFile)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return Key{}, err
	}
	private, err := dkim.ParseKey(b)
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", name, err)
	}
	k := Key{Key: dkim.Key{Private: private}, Algorithm: "ed25519", Created: fi.ModTime()}
	if _, ok := private.(*rsa.PrivateKey); ok {
		k.Algorithm = "rsa"
	}
	before, _, _ := bytes.Cut(b, []byte("-----BEGIN"))
	for line := range strings.Lines(string(before)) {
		if at, found := strings.CutPrefix(line, created); found {
			if t, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(at)); err == nil {
				k.Created = t
			}
		}
	}
	return k, nil
}

func readStates(path string) (map[string]State, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var file states
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("%s: %w: it may be deleted, then every record is looked for anew", path,
			err)
	}
	if file.Version != stateVersion {
		return nil, fmt.Errorf("%s: version %d; this program reads version %d", path, file.Version,
			stateVersion)
	}
	return file.Keys, nil
}

// stateVersion is that of the file's format.
const stateVersion = 1

// states is the content of state.json.
type states struct {
	Version int              `json:"version"`
	Keys    map[string]State `json:"keys"` // by selector
}

// save writes down what is known of a domain's keys, where that is new. mu is held.
func (r *Ring) save(d mail.Domain) error {
	keys := r.keys[d]
	if len(keys) == 0 {
		return nil
	}
	file := states{Version: stateVersion, Keys: make(map[string]State)}
	for _, k := range keys {
		file.Keys[k.Selector] = k.State
	}
	b, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	if bytes.Equal(b, r.saved[d]) {
		return nil
	}
	if err := durable.ReplaceFile(filepath.Join(r.folder(d), stateFile), append(b, '\n')); err != nil {
		return err
	}
	r.saved[d] = b
	return nil
}

// Ensure makes a domain's first keys if it has none, and reports whether it did.
func (r *Ring) Ensure(d mail.Domain) (made bool, err error) {
	if len(r.Keys(d)) > 0 {
		return false, nil
	}
	_, err = r.Create(d)
	return err == nil, err
}

// Create makes a new pair of keys, RSA-2048 and Ed25519, and returns them. A node that runs finds
// them by itself.
func (r *Ring) Create(d mail.Domain) ([]Key, error) {
	if !slices.Contains(r.cfg.Domains, d) {
		return nil, fmt.Errorf("%s is not a domain of this server", d)
	}
	if err := os.MkdirAll(r.folder(d), 0o700); err != nil {
		return nil, err
	}
	now := r.clock.Now().UTC()
	var out []Key
	for _, make := range []struct {
		algorithm string
		generate  func() (crypto.Signer, error)
	}{{"rsa", dkim.GenerateRSA}, {"ed25519", dkim.GenerateEd25519}} {
		private, err := make.generate()
		if err != nil {
			return nil, err
		}
		k := Key{Key: dkim.Key{Domain: d, Private: private}, Algorithm: make.algorithm, Created: now}
		if k.Selector, err = r.write(k); err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	keys, err := r.load(d, nil)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.keys[d] = keys
	r.mu.Unlock()
	return out, r.choose()
}

// write puts a key into a new file, whole or not at all, and returns its selector: the day, a
// letter where there was a key that day already, and the algorithm.
func (r *Ring) write(k Key) (selector string, err error) {
	pem, err := dkim.MarshalKey(k.Private)
	if err != nil {
		return "", err
	}
	dir := r.folder(k.Domain)
	draft := filepath.Join(dir, ".draft-"+rand.Text())
	text := fmt.Appendf(nil, "%s%s\n%s", created, k.Created.Format(time.RFC3339Nano), pem)
	if err := durable.ReplaceFile(draft, text); err != nil {
		return "", err
	}
	defer os.Remove(draft)
	for letter := 'a'; letter <= 'z'; letter++ {
		selector = k.Created.Format("t20060102")
		if letter > 'a' {
			selector += string(letter)
		}
		selector += "-" + k.Algorithm
		err := os.Link(draft, filepath.Join(dir, selector+suffix)) // fails where there is one
		if err == nil {
			return selector, durable.SyncDir(dir)
		}
		if !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("%s: 26 keys in one day are enough", dir)
}

// Remove deletes a key that signs no more.
func (r *Ring) Remove(d mail.Domain, selector string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.keys[d], func(k loaded) bool { return k.Selector == selector })
	if i < 0 {
		return fmt.Errorf("%s has no key %q", d, selector)
	}
	if r.keys[d][i].Signs {
		return fmt.Errorf("key %s of %s signs: make another with `tallypost dkim rotate %[2]s`, publish "+
			"it, and remove this one when it has retired", selector, d)
	}
	if err := os.Remove(filepath.Join(r.folder(d), selector+suffix)); err != nil {
		return err
	}
	r.keys[d] = slices.Delete(r.keys[d], i, i+1)
	return durable.SyncDir(r.folder(d))
}

// Line returns what to publish for a key, as a line of a zone file.
func (k Key) Line() (string, error) {
	record, err := dkim.Record(k.Private.Public())
	if err != nil {
		return "", err
	}
	return dkim.ZoneLine(k.Domain, k.Selector, record), nil
}
