package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/sync/errgroup"
)

// acmeCert obtains and renews certificates, one for each name. Handshakes never wait for them:
// they take what there is.
type acmeCert struct {
	cfg     ACME
	names   []string // the host first
	manager *autocert.Manager
	current sync.Map // name to *tls.Certificate
	log     *slog.Logger
}

func newACME(cfg Config, log *slog.Logger) (*acmeCert, error) {
	a := &acmeCert{cfg: cfg.TLS.ACME, names: certificateNames(cfg), log: log}
	client := &acme.Client{DirectoryURL: a.cfg.Directory, UserAgent: "tallypost"}
	if a.cfg.RootCA != "" {
		pem, err := os.ReadFile(a.cfg.RootCA)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in it", a.cfg.RootCA)
		}
		client.HTTPClient = &http.Client{Timeout: time.Minute,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	}
	a.manager = &autocert.Manager{
		Prompt: autocert.AcceptTOS, HostPolicy: a.mayHave, Email: a.cfg.Email,
		Cache: autocert.DirCache(filepath.Join(cfg.DataDir, "acme")), Client: client,
	}
	return a, nil
}

// certificateNames are the names that others ask this node for by TLS.
func certificateNames(cfg Config) []string {
	names := []string{mustDomain(cfg.Hostname).ASCII()}
	if cfg.stsPolicy() != nil && len(cfg.Web.ListenTLS) > 0 {
		for _, d := range cfg.domains() {
			names = append(names, stsHost(d))
		}
	}
	return names
}

// mayHave is the manager's HostPolicy. Over HTTP it is asked with the port of an authority for
// tests, too.
func (a *acmeCert) mayHave(_ context.Context, host string) error {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if !slices.Contains(a.names, host) {
		return fmt.Errorf("no certificate for %q: it is none of %v", host, a.names)
	}
	return nil
}

// get returns the certificate for the name that a client asks for, that of the host for any other
// name, or nil as long as there is none.
func (a *acmeCert) get(hello *tls.ClientHelloInfo) *tls.Certificate {
	for _, name := range []string{strings.ToLower(hello.ServerName), a.names[0]} {
		if cert, ok := a.current.Load(name); ok {
			return cert.(*tls.Certificate)
		}
	}
	return nil
}

// Times between looks at the certificate: autocert renews on its own 30 days before the end.
const (
	acmeRefresh = 6 * time.Hour
	// acmeRetry is the wait after a failure, doubling: Let's Encrypt allows five an hour.
	acmeRetry    = 5 * time.Minute
	acmeMaxRetry = 6 * time.Hour
)

// run answers challenges and keeps the certificate fresh until ctx ends.
func (a *acmeCert) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	serve := func(addr string, srv *http.Server, do func(*http.Server, net.Listener) error) {
		g.Go(func() error {
			l, err := listen(addr)
			if err != nil {
				return fmt.Errorf("tls.acme: %w", err)
			}
			stop := context.AfterFunc(ctx, func() { srv.Close() })
			defer stop()
			if err := do(srv, l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	if a.cfg.HTTPListen != "" {
		srv := challengeServer(a.manager.HTTPHandler(http.NotFoundHandler()))
		serve(a.cfg.HTTPListen, srv, (*http.Server).Serve)
	}
	if a.cfg.TLSListen != "" {
		srv := challengeServer(http.NotFoundHandler())
		srv.TLSConfig = a.manager.TLSConfig()
		serve(a.cfg.TLSListen, srv, func(s *http.Server, l net.Listener) error {
			return s.ServeTLS(l, "", "")
		})
	}
	for _, name := range a.names {
		g.Go(func() error { return a.refresh(ctx, name) })
	}
	return g.Wait()
}

func challengeServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		MaxHeaderBytes: 16 << 10}
}

func (a *acmeCert) refresh(ctx context.Context, name string) error {
	retry := acmeRetry
	for {
		wait := acmeRefresh
		// A hello as modern servers send it, so that the certificate is for ECDSA.
		cert, err := a.manager.GetCertificate(&tls.ClientHelloInfo{ServerName: name,
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
			SupportedCurves:  []tls.CurveID{tls.CurveP256}, SupportedVersions: []uint16{tls.VersionTLS13},
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
		if err != nil {
			a.log.Error("no certificate from the authority", "host", name, "err", err, "retry", retry)
			wait, retry = retry, min(2*retry, acmeMaxRetry)
		} else {
			old, _ := a.current.Swap(name, cert)
			if old, ok := old.(*tls.Certificate); !ok || !old.Leaf.Equal(cert.Leaf) {
				a.log.Info("certificate", "host", name, "until", cert.Leaf.NotAfter)
			}
			retry = acmeRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}
