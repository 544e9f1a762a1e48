package smtp

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

// scramName is the mechanism of RFC 7677; with plusSuffix it is bound to the TLS under it (RFC
// 5802).
const (
	scramName  = "SCRAM-SHA-256"
	plusSuffix = "-PLUS"
)

// Iterations that are answered for a user who does not exist, and the most a server may ask of a
// client.
const (
	fakeIterations = 15000
	maxIterations  = 1 << 20
)

var errBinding = errors.New("channel binding failed")

// scram is the server's side of SCRAM-SHA-256 (RFC 5802, section 3).
func (x *exchange) scram(plus bool) (user, account string, err error) {
	first, err := x.ask(nil)
	if err != nil {
		return "", "", err
	}
	m, err := parseClientFirst(string(first))
	if err != nil {
		return "", "", err
	}
	if m.authz != "" && m.authz != m.user {
		return m.user, "", errAuthz
	}
	binding, err := x.binding(m, plus)
	if err != nil {
		return m.user, "", err
	}
	keys, known, err := x.keys(m.user)
	if err != nil {
		return m.user, "", err
	}
	nonce := m.nonce + newNonce()
	serverFirst := "r=" + nonce + ",s=" + base64.StdEncoding.EncodeToString(keys.Salt) +
		",i=" + strconv.Itoa(keys.Iterations)
	final, err := x.ask([]byte(serverFirst))
	if err != nil {
		return m.user, "", err
	}
	proof, withoutProof, err := parseClientFinal(string(final), nonce, m.gs2+binding)
	if err != nil {
		return m.user, "", err
	}
	message := m.bare + "," + serverFirst + "," + withoutProof
	if !provesKey(keys.StoredKey, message, proof) || !known {
		return m.user, "", errAuth
	}
	v := "v=" + base64.StdEncoding.EncodeToString(sum(keys.ServerKey, message))
	// RFC 4954, section 4: data that comes with success is sent as a challenge of its own.
	if _, err := x.ask([]byte(v)); err != nil {
		return m.user, "", err
	}
	return m.user, keys.Account, nil
}

// keys returns what is stored for a user. For one that does not exist it makes up a salt, always
// the same, so that the client cannot tell.
func (x *exchange) keys(user string) (keys ScramKeys, known bool, err error) {
	keys, err = x.c.v.cfg.Scram(x.c.v.ctx, x.c, user)
	if err == nil {
		return keys, true, nil
	}
	if !errors.Is(err, ErrNoUser) {
		return keys, false, err
	}
	salt := sum(x.c.v.secret[:], user)
	return ScramKeys{Salt: salt[:16], Iterations: fakeIterations, StoredKey: salt}, false, nil
}

// binding checks the client's choice of channel binding (RFC 5802, section 6) and returns the data
// of it.
func (x *exchange) binding(m clientFirst, plus bool) (string, error) {
	switch {
	case plus != (m.binding != ""):
		return "", errAuthSyn
	case m.couldBind && x.c.state != nil:
		// "y": the client thinks that we do not offer -PLUS. We do, so somebody is between us.
		return "", errBinding
	case !plus:
		return "", nil
	}
	data, err := channelBinding(m.binding, x.c.state, x.c.x.ownLeaf())
	return string(data), err
}

// channelBinding returns the data of a type of channel binding for a connection; leaf is the
// certificate of its server.
func channelBinding(kind string, state *tls.ConnectionState,
	leaf *x509.Certificate) ([]byte, error) {
	if state == nil {
		return nil, errBinding
	}
	switch kind {
	case "tls-exporter": // RFC 9266
		data, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		if err != nil {
			return nil, errBinding
		}
		return data, nil
	case "tls-server-end-point": // RFC 5929, section 4
		if leaf == nil {
			return nil, errBinding
		}
		h := endPointHash(leaf.SignatureAlgorithm)
		if !h.Available() {
			return nil, errBinding
		}
		sum := h.New()
		sum.Write(leaf.Raw)
		return sum.Sum(nil), nil
	}
	return nil, errBinding
}

// endPointHash is the hash of a certificate's signature, or SHA-256 where that is weaker; 0 for
// signatures with no hash of their own, for which RFC 5929 defines none.
func endPointHash(a x509.SignatureAlgorithm) crypto.Hash {
	switch a {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		return crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		return crypto.SHA512
	case x509.PureEd25519, x509.UnknownSignatureAlgorithm:
		return 0
	}
	return crypto.SHA256
}

// clientFirst is the first message of a client.
type clientFirst struct {
	gs2       string // header, as it must come back in the last message
	bare      string // the rest
	binding   string // type of channel binding; empty where there is none
	couldBind bool   // "y": the client could, and thinks that we cannot
	authz     string
	user      string
	nonce     string
}

func parseClientFirst(s string) (m clientFirst, err error) {
	flag, rest, ok := strings.Cut(s, ",")
	authz, bare, ok2 := strings.Cut(rest, ",")
	if !ok || !ok2 {
		return m, errAuthSyn
	}
	m.gs2, m.bare = s[:len(s)-len(bare)], bare
	switch {
	case flag == "y":
		m.couldBind = true
	case strings.HasPrefix(flag, "p=") && len(flag) > 2:
		m.binding = flag[2:]
	case flag != "n":
		return m, errAuthSyn
	}
	if authz != "" {
		a, found := strings.CutPrefix(authz, "a=")
		if m.authz, ok = unescapeName(a); !found || !ok {
			return m, errAuthSyn
		}
	}
	user, nonce, ok := strings.Cut(bare, ",")
	user, found := strings.CutPrefix(user, "n=")
	nonce, _, _ = strings.Cut(nonce, ",") // extensions that are not mandatory
	nonce, found2 := strings.CutPrefix(nonce, "r=")
	if !ok || !found || !found2 || user == "" || !isNonce(nonce) {
		return m, errAuthSyn
	}
	m.nonce = nonce
	if m.user, ok = unescapeName(user); !ok {
		return m, errAuthSyn
	}
	return m, nil
}

// parseClientFinal checks the last message of a client against what it must repeat.
func parseClientFinal(s, nonce, cbind string) (proof []byte, withoutProof string, err error) {
	at := strings.LastIndex(s, ",p=")
	if at < 0 {
		return nil, "", errAuthSyn
	}
	proof, err = base64.StdEncoding.DecodeString(s[at+3:])
	if err != nil || len(proof) != sha256.Size {
		return nil, "", errAuthSyn
	}
	withoutProof = s[:at]
	c, rest, _ := strings.Cut(withoutProof, ",")
	r, _, _ := strings.Cut(rest, ",")
	if r != "r="+nonce {
		return nil, "", errAuth
	}
	if c != "c="+base64.StdEncoding.EncodeToString([]byte(cbind)) {
		return nil, "", errBinding
	}
	return proof, withoutProof, nil
}

// provesKey reports whether the proof was made by somebody who has the client key of stored.
func provesKey(stored []byte, message string, proof []byte) bool {
	key := make([]byte, sha256.Size)
	subtle.XORBytes(key, proof, sum(stored, message))
	got := sha256.Sum256(key)
	return subtle.ConstantTimeCompare(got[:], stored) == 1
}

func sum(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func newNonce() string {
	var b [18]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// isNonce allows printable ASCII without commas, of a length that nobody needs to exceed.
func isNonce(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' || s[i] == ',' {
			return false
		}
	}
	return s != "" && len(s) <= 512
}

// unescapeName undoes "=2C" and "=3D" (RFC 5802, section 5.1, attribute n).
func unescapeName(s string) (string, bool) {
	s = strings.ReplaceAll(s, "=2C", ",")
	rest := strings.ReplaceAll(s, "=3D", "")
	return strings.ReplaceAll(s, "=3D", "="), !strings.ContainsAny(rest, "=\x00")
}

func escapeName(s string) string {
	return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s)
}
