package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// certificates shows the certificates of PEM files and reads them anew when they have changed, so
// that whoever renews them need not restart the node. Of several, as one for ECDSA and one for
// clients that know RSA only, each client is shown the first that suits it.
type certificates struct {
	pairs [][2]string // files of certificate and key
	acme  *acmeCert   // nil: no ACME
	log   *slog.Logger

	mu      sync.Mutex
	current []tls.Certificate // guarded by mu, and what follows
	read    []time.Time       // modification times of the files, when they were read
	checked time.Time
}

// recheckCert is how often at most the files are looked at.
const recheckCert = 10 * time.Second

// openCertificates reads the files of cfg, or those of a certificate signed by itself that is
// made in the data directory: mail servers encrypt to anyone, so even that keeps listeners out.
//
// With ACME the self-made certificate serves until the authority's has come.
func openCertificates(cfg Config, log *slog.Logger) (*certificates, error) {
	c := &certificates{pairs: certificateFiles(cfg), log: log}
	if cfg.TLS.ACME.Enabled {
		var err error
		if c.acme, err = newACME(cfg, log); err != nil {
			return nil, fmt.Errorf("tls.acme: %w", err)
		}
	}
	if len(cfg.TLS.Cert) == 0 {
		if _, err := os.Stat(c.pairs[0][0]); errors.Is(err, os.ErrNotExist) {
			if err := selfSigned(cfg.Hostname, c.pairs[0][0], c.pairs[0][1]); err != nil {
				return nil, err
			}
		}
	}
	c.read = c.times()
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return c, nil
}

// certificateFiles are the files of cfg, or where the self-made ones are.
func certificateFiles(cfg Config) (pairs [][2]string) {
	if len(cfg.TLS.Cert) == 0 {
		return [][2]string{{filepath.Join(cfg.DataDir, "tls-cert.pem"),
			filepath.Join(cfg.DataDir, "tls-key.pem")}}
	}
	for i, cert := range cfg.TLS.Cert {
		pairs = append(pairs, [2]string{cert, cfg.TLS.Key[i]})
	}
	return pairs
}

// shownCertificates returns the leaves that the node that cfg describes would show now, without
// making or obtaining any.
func shownCertificates(cfg Config) (leaves []*x509.Certificate, err error) {
	var files []string
	if cfg.TLS.ACME.Enabled {
		files = []string{filepath.Join(cfg.DataDir, "acme", cfg.Hostname)}
	} else {
		for _, pair := range certificateFiles(cfg) {
			files = append(files, pair[0])
		}
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) && len(cfg.TLS.Cert) == 0 {
			continue // made, or obtained, when the node runs first
		}
		if err != nil {
			return nil, err
		}
		block, rest := pem.Decode(b)
		for block != nil && block.Type != "CERTIFICATE" { // ACME's files begin with the key
			block, rest = pem.Decode(rest)
		}
		if block == nil {
			return nil, fmt.Errorf("%s has no certificate in it", name)
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		leaves = append(leaves, leaf)
	}
	return leaves, nil
}

// load reads the files. mu is held, or nobody else knows c yet.
func (c *certificates) load() error {
	var list []tls.Certificate
	for _, pair := range c.pairs {
		cert, err := tls.LoadX509KeyPair(pair[0], pair[1])
		if err != nil {
			return fmt.Errorf("certificate %s with key %s: %w", pair[0], pair[1], err)
		}
		c.log.Info("certificate", "file", pair[0], "names", cert.Leaf.DNSNames,
			"until", cert.Leaf.NotAfter)
		list = append(list, cert)
	}
	c.current = list
	return nil
}

func (c *certificates) times() (out []time.Time) {
	for _, pair := range c.pairs {
		for _, name := range pair {
			t := time.Time{}
			if fi, err := os.Stat(name); err == nil {
				t = fi.ModTime()
			}
			out = append(out, t)
		}
	}
	return out
}

// get is a tls.Config's GetCertificate. Files that do not fit together, as between the two
// renames of a renewal, leave the last good ones in use.
func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.acme != nil {
		if cert := c.acme.get(hello); cert != nil {
			return cert, nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= recheckCert {
		c.checked = now
		if t := c.times(); !slices.Equal(t, c.read) {
			c.read = t
			if err := c.load(); err != nil {
				c.log.Warn("new certificate cannot be read, the last good one stays", "err", err)
			}
		}
	}
	return choose(c.current, hello), nil
}

// choose returns the first certificate for the name that the client asks for and that it can
// verify, else the first it can verify whatever the name: mail servers take a wrong one, and
// would do without TLS otherwise.
func choose(list []tls.Certificate, hello *tls.ClientHelloInfo) *tls.Certificate {
	nameless := *hello
	nameless.ServerName = ""
	for _, h := range []*tls.ClientHelloInfo{hello, &nameless} {
		for i := range list {
			if h.SupportsCertificate(&list[i]) == nil {
				return &list[i]
			}
		}
	}
	return &list[0]
}

// serverTLS returns the settings for listeners. Session tickets are off: with them Microsoft's
// servers break off TLS 1.3 with Go's, and a mail server has little use for them.
func (c *certificates) serverTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, SessionTicketsDisabled: true}
}

func selfSigned(hostname, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: hostname},
		DNSNames:     []string{hostname},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := os.WriteFile(keyFile, keyPEM, 0o600); err != nil {
		return err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return os.WriteFile(certFile, certPEM, 0o644)
}
