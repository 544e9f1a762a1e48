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
	"sync"
	"time"
)

// certificates shows the certificate of two PEM files and reads them anew when they have changed, so that
// whoever renews them need not restart the node.
type certificates struct {
	cert, key string
	acme      *acmeCert // nil: no ACME

	mu      sync.Mutex
	current *tls.Certificate // guarded by mu, and what follows
	read    [2]time.Time     // modification times
	checked time.Time
}

// recheckCert is how often at most the files are looked at.
const recheckCert = 10 * time.Second

// openCertificates reads the files of cfg, or those of a certificate signed by itself that is made in the
// data directory: mail servers encrypt to anyone, so even that keeps listeners out.
//
// With ACME the self-made certificate serves until the authority's has come.
func openCertificates(cfg Config, log *slog.Logger) (*certificates, error) {
	c := &certificates{cert: cfg.TLS.Cert, key: cfg.TLS.Key}
	if cfg.TLS.ACME.Enabled {
		var err error
		if c.acme, err = newACME(cfg, log); err != nil {
			return nil, fmt.Errorf("tls.acme: %w", err)
		}
	}
	if c.cert == "" {
		c.cert = filepath.Join(cfg.DataDir, "tls-cert.pem")
		c.key = filepath.Join(cfg.DataDir, "tls-key.pem")
		if _, err := os.Stat(c.cert); errors.Is(err, os.ErrNotExist) {
			if err := selfSigned(cfg.Hostname, c.cert, c.key); err != nil {
				return nil, err
			}
		}
	}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return c, nil
}

func (c *certificates) load() error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.cert, c.key, err)
	}
	c.read = c.times()
	c.current = &pair
	return nil
}

func (c *certificates) times() (t [2]time.Time) {
	for i, name := range []string{c.cert, c.key} {
		if fi, err := os.Stat(name); err == nil {
			t[i] = fi.ModTime()
		}
	}
	return t
}

// get is a tls.Config's GetCertificate. Files that do not fit together, as between the two renames of a
// renewal, leave the last good pair in use.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.acme != nil {
		if cert := c.acme.current.Load(); cert != nil {
			return cert, nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= recheckCert {
		c.checked = now
		if c.times() != c.read {
			_ = c.load()
		}
	}
	return c.current, nil
}

// serverTLS returns the settings for listeners. Session tickets are off: with them Microsoft's servers
// break off TLS 1.3 with Go's, and a mail server has little use for them.
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
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}
