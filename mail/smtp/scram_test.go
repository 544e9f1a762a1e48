package smtp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"strings"
	"testing"
)

// keysOf returns what a server keeps of a password.
func keysOf(password string) ScramKeys {
	return keysWith(password, []byte("salt and pepper!"), 4096)
}

func keysWith(password string, salt []byte, iterations int) ScramKeys {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		panic(err)
	}
	stored := sha256.Sum256(sum(salted, "Client Key"))
	return ScramKeys{Account: "account", Salt: salt, Iterations: iterations, StoredKey: stored[:],
		ServerKey: sum(salted, "Server Key")}
}

// TestRFC7677 is the example of RFC 7677, section 3.
func TestRFC7677(t *testing.T) {
	const (
		nonce       = "rOprNGfwEbeRWgbNEkqO"
		bare        = "n=user,r=" + nonce
		serverFirst = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
		clientFinal = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0," +
			"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
		verifier = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	)
	salt, iterations, full, err := parseServerFirst(serverFirst, nonce)
	if err != nil || iterations != 4096 {
		t.Fatalf("%d iterations, %v", iterations, err)
	}
	salted, err := pbkdf2.Key(sha256.New, "pencil", salt, iterations, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	message := bare + "," + serverFirst + ",c=biws,r=" + full
	got := base64.StdEncoding.EncodeToString(clientProof(salted, message))
	if !strings.HasSuffix(clientFinal, ",p="+got) {
		t.Errorf("proof %s", got)
	}
	proof, withoutProof, err := parseClientFinal(clientFinal, full, "n,,")
	if err != nil {
		t.Fatal(err)
	}
	keys := keysWith("pencil", salt, 4096)
	if !provesKey(keys.StoredKey, bare+","+serverFirst+","+withoutProof, proof) {
		t.Error("proof not accepted")
	}
	got = base64.StdEncoding.EncodeToString(sum(keys.ServerKey, message))
	if got != verifier {
		t.Errorf("verifier %s", got)
	}
}

// TestChannelBinding authenticates with both types of channel binding, and fails to over two TLS
// connections with somebody in between.
func TestChannelBinding(t *testing.T) {
	cfg := config(&recorder{})
	scramLogins(&cfg, nil)
	cfg.TLS, cfg.ImplicitTLS = serverTLS, true
	addr := start(t, cfg)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if err := authOver(t, addr, version, nil); err != nil {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		var r *Reply
		if err := authOver(t, addr, version, func(s *tls.ConnectionState) {
			*s = otherConnection(t, addr, version)
			s.PeerCertificates = []*x509.Certificate{
				{SignatureAlgorithm: x509.ECDSAWithSHA256, Raw: []byte("other")}}
		}); !errors.As(err, &r) || r.Code != 535 {
			t.Errorf("%s with another's binding: %v", tls.VersionName(version), err)
		}
	}
}

// authOver authenticates after change has been made to what the client believes of its TLS.
func authOver(t *testing.T, addr string, version uint16, change func(*tls.ConnectionState)) error {
	cfg := clientTLS.Clone()
	cfg.MaxVersion = version
	conn, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(conn, ClientConfig{Hello: "client.example.org"})
	defer c.Close()
	if err := c.Hello(background(t)); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(c.state)
	}
	return c.Auth(background(t), "alice", "secret")
}

func otherConnection(t *testing.T, addr string, version uint16) tls.ConnectionState {
	cfg := clientTLS.Clone()
	cfg.MaxVersion = version
	conn, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.ConnectionState()
}

// TestServerMustProve hangs up on a server that lets us in without knowing the password.
func TestServerMustProve(t *testing.T) {
	for name, final := range map[string]string{
		"wrong verifier": "s: 334 " + b64("v="+b64("no idea")) + "\nc: *",
		"none":           "s: 235 2.7.0 welcome",
	} {
		conn := scripted(t, `
			s: 220 hello
			c: EHLO *
			s: 250-hello
			s: 250 AUTH SCRAM-SHA-256
			c: AUTH SCRAM-SHA-256 *
			s> "334 `+b64("r=%nonce%,s=c2FsdA==,i=4096")+`\r\n"
			c: *
			`+final)
		c := NewClient(conn, ClientConfig{Hello: "client.example.org", PlaintextAuth: true})
		defer c.Close()
		if err := c.Hello(background(t)); err != nil {
			t.Fatal(err)
		}
		if err := c.Auth(context.Background(), "alice", "secret"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestEndPointHash(t *testing.T) {
	for alg, want := range map[x509.SignatureAlgorithm]crypto.Hash{
		x509.SHA1WithRSA: crypto.SHA256, x509.MD5WithRSA: crypto.SHA256, x509.SHA256WithRSA: crypto.SHA256,
		x509.ECDSAWithSHA384: crypto.SHA384, x509.SHA512WithRSAPSS: crypto.SHA512, x509.PureEd25519: 0,
	} {
		if got := endPointHash(alg); got != want {
			t.Errorf("%v: got %v, want %v", alg, got, want)
		}
	}
}

// TestLeafIsNoted finds the certificate of a server with several, chosen by name or by a function.
func TestLeafIsNoted(t *testing.T) {
	for name, cfg := range map[string]*tls.Config{
		"list": serverTLS,
		"function": {GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &serverTLS.Certificates[0], nil
		}},
		"config": {GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return serverTLS, nil
		}},
	} {
		near, far := net.Pipe()
		go tls.Client(near, clientTLS).Handshake()
		x := &wire{}
		x.init(far, nil, nil)
		x.clk = stopped{}
		layer := func(under net.Conn) *tls.Conn { return tls.Server(under, noteLeaf(cfg)) }
		if err := x.handshake(background(t), layer); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := serverTLS.Certificates[0].Certificate[0]
		if leaf := x.ownLeaf(); leaf == nil || !bytes.Equal(leaf.Raw, want) {
			t.Errorf("%s: leaf not noted", name)
		}
		near.Close()
	}
}
