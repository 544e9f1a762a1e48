package node

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/srs"
)

// srsKeyFile holds the secrets of rewritten senders, the newest first, one in hex on each line. To
// change them put a new line on top, and remove the old one after three weeks: bounces may come
// back so long.
const srsKeyFile = "srs.key"

// openSRS returns who rewrites the senders of forwarded mail; the secret is made on the first
// start.
func openSRS(cfg Config) (*srs.Rewriter, error) {
	path := filepath.Join(cfg.DataDir, srsKeyFile)
	secrets, err := readSRSKeys(path)
	if errors.Is(err, fs.ErrNotExist) {
		secrets, err = makeSRSKey(path)
	}
	if err != nil {
		return nil, err
	}
	ours := make(map[mail.Domain]bool)
	for _, s := range cfg.Domains {
		d, err := mail.ParseDomain(s)
		if err != nil {
			return nil, err
		}
		ours[d] = true
	}
	domain, err := mail.ParseDomain(cfg.Domains[0])
	if err != nil {
		return nil, err
	}
	return srs.New(srs.Config{Domain: domain, Secrets: secrets,
		Ours: func(d mail.Domain) bool { return ours[d] }})
}

func readSRSKeys(path string) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var secrets [][]byte
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		b, err := hex.DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("%s: line %d is not hex: %w", path, n, err)
		}
		secrets = append(secrets, b)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("%s: no key in it; remove the file to have one made", path)
	}
	return secrets, nil
}

// makeSRSKey writes the file beside its place, syncs it and moves it there: there is all of it or
// none.
func makeSRSKey(path string) ([][]byte, error) {
	secret := make([]byte, 32)
	rand.Read(secret)
	f, err := os.CreateTemp(filepath.Dir(path), srsKeyFile+".new*") // mode 0600
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(f, "# secrets of rewritten senders (SRS), the newest first\n%x\n", secret)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return [][]byte{secret}, errors.Join(dir.Sync(), dir.Close())
}
