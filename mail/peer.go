package mail

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
)

// SetTLS notes what a connection's TLS shows of the peer.
func (p *Peer) SetTLS(state tls.ConnectionState) {
	p.TLSVersion = tls.VersionName(state.Version)
	p.Cipher = tls.CipherSuiteName(state.CipherSuite)
	if len(state.PeerCertificates) > 0 {
		sum := sha256.Sum256(state.PeerCertificates[0].Raw)
		p.CertSHA256 = hex.EncodeToString(sum[:])
	}
}
