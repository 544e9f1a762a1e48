package smtp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync/atomic"
)

var errNoCertificate = errors.New("no certificate is configured")

// noteLeaf returns a copy of a server's configuration that writes down, in the wire of each
// connection, which certificate was shown: channel binding to the end point needs to know (RFC
// 5929, section 4), and crypto/tls does not tell a server.
func noteLeaf(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		return nil
	}
	out := cfg.Clone()
	out.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := choose(cfg, hello)
		if s, ok := hello.Conn.(socket); ok && err == nil {
			s.x.leaf = cert
		}
		return cert, err
	}
	if forClient := cfg.GetConfigForClient; forClient != nil {
		// A copy for each connection would have session ticket keys of its own.
		type pair struct{ in, out *tls.Config }
		var last atomic.Pointer[pair]
		out.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			special, err := forClient(hello)
			if special == nil || err != nil {
				return nil, err
			}
			if p := last.Load(); p != nil && p.in == special {
				return p.out, nil
			}
			p := &pair{special, noteLeaf(special)}
			last.Store(p)
			return p.out, nil
		}
	}
	return out
}

// choose does as crypto/tls would with cfg.
func choose(cfg *tls.Config, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cfg.GetCertificate != nil {
		if cert, err := cfg.GetCertificate(hello); cert != nil || err != nil {
			return cert, err
		}
	}
	for i := range cfg.Certificates {
		if hello.SupportsCertificate(&cfg.Certificates[i]) == nil {
			return &cfg.Certificates[i], nil
		}
	}
	if len(cfg.Certificates) == 0 {
		return nil, errNoCertificate
	}
	return &cfg.Certificates[0], nil
}

// ownLeaf returns the certificate that this end showed; nil where it is not known, as in a session
// that was resumed.
func (x *wire) ownLeaf() *x509.Certificate {
	if x.leaf == nil || len(x.leaf.Certificate) == 0 {
		return nil
	}
	if x.leaf.Leaf != nil {
		return x.leaf.Leaf
	}
	leaf, err := x509.ParseCertificate(x.leaf.Certificate[0])
	if err != nil {
		return nil
	}
	return leaf
}
