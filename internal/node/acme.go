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
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/sync/errgroup"
)

// acmeCert obtains and renews a certificate for the host name. Handshakes never wait for it: they take what
// there is.
type acmeCert struct {
	cfg     ACME
	host    string
	manager *autocert.Manager
	current atomic.Pointer[tls.Certificate]
	log     *slog.Logger
}

func newACME(cfg Config, log *slog.Logger) (*acmeCert, error) {
	a := &acmeCert{cfg: cfg.TLS.ACME, host: cfg.Hostname, log: log}
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
		Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(a.host), Email: a.cfg.Email,
		Cache: autocert.DirCache(filepath.Join(cfg.DataDir, "acme")), Client: client,
	}
	return a, nil
}

// Times between looks at the certificate: autocert renews on its own 30 days before the end.
const (
	acmeRefresh  = 6 * time.Hour
	acmeRetry    = time.Minute // after a failure, doubling
	acmeMaxRetry = 6 * time.Hour
)

// run answers challenges and keeps the certificate fresh until ctx ends.
func (a *acmeCert) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	serve := func(addr string, srv *http.Server, do func(*http.Server, net.Listener) error) {
		g.Go(func() error {
			l, err := net.Listen("tcp", addr)
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
		serve(a.cfg.TLSListen, srv, func(s *http.Server, l net.Listener) error { return s.ServeTLS(l, "", "") })
	}
	g.Go(func() error { return a.refresh(ctx) })
	return g.Wait()
}

func challengeServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		MaxHeaderBytes: 16 << 10}
}

func (a *acmeCert) refresh(ctx context.Context) error {
	retry := acmeRetry
	for {
		wait := acmeRefresh
		// A hello as modern servers send it, so that the certificate is for ECDSA.
		cert, err := a.manager.GetCertificate(&tls.ClientHelloInfo{ServerName: a.host,
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
			SupportedCurves:  []tls.CurveID{tls.CurveP256}, SupportedVersions: []uint16{tls.VersionTLS13},
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
		if err != nil {
			a.log.Error("no certificate from the authority", "host", a.host, "err", err, "retry", retry)
			wait, retry = retry, min(2*retry, acmeMaxRetry)
		} else {
			if old := a.current.Swap(cert); old == nil || old.Leaf == nil || !old.Leaf.Equal(cert.Leaf) {
				a.log.Info("certificate", "host", a.host, "until", cert.Leaf.NotAfter)
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
