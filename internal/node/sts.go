package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/tallypost/tallypost/mail"
)

// stsHost is the name under which the MTA-STS policy of a domain is asked for (RFC 8461, section
// 3.3).
func stsHost(d mail.Domain) string { return "mta-sts." + d.ASCII() }

// stsPath is where it is.
const stsPath = "/.well-known/mta-sts.txt"

// maxPolicyConns bounds those who ask for the policy at a time.
const maxPolicyConns = 256

// policySite serves the MTA-STS policy of our domains by HTTPS, and nothing else.
type policySite struct {
	listeners []net.Listener
	server    *http.Server
}

// openPolicySite opens the listeners of [web]; nil where there are none.
func openPolicySite(cfg Config, certs *certificates, log *slog.Logger) (*policySite, error) {
	if len(cfg.Web.ListenTLS) == 0 {
		return nil, nil
	}
	s := &policySite{server: &http.Server{Handler: policyHandler(cfg), ReadTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}}
	s.server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certs.get}
	if certs.acme != nil {
		s.server.TLSConfig.NextProtos = []string{"h2", "http/1.1", acme.ALPNProto}
		s.server.TLSConfig.GetCertificate = certs.acme.orChallenge(certs.get)
	}
	for _, addr := range cfg.Web.ListenTLS {
		l, err := listen(addr)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("web.listen_tls: %w", err), s.close())
		}
		s.listeners = append(s.listeners, netutil.LimitListener(l, maxPolicyConns))
	}
	return s, nil
}

// orChallenge answers TLS-ALPN-01 (RFC 8737); all else is next's.
func (a *acmeCert) orChallenge(next func(*tls.ClientHelloInfo) (*tls.Certificate, error),
) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) {
			return a.manager.GetCertificate(hello)
		}
		return next(hello)
	}
}

// policyHandler answers for the policy's one path, under the names it is asked for by.
func policyHandler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	policy := cfg.stsPolicy()
	if policy == nil {
		return mux
	}
	text := []byte(policy.Text())
	for _, d := range cfg.domains() {
		mux.HandleFunc("GET "+stsHost(d)+stsPath, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Write(text)
		})
	}
	return mux
}

// serve answers until ctx ends.
func (s *policySite) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.server.Close() })
	defer stop()
	g, _ := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		g.Go(func() error {
			if err := s.server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	return g.Wait()
}

func (s *policySite) close() error {
	var errs []error
	for _, l := range s.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
