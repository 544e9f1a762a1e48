package smtp

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/text/secure/precis"
)

// Auth authenticates with the strongest mechanism that the server offers: SCRAM-SHA-256-PLUS,
// SCRAM-SHA-256, PLAIN, LOGIN. A refusal is a *Reply among the errors. It does nothing without TLS,
// unless ClientConfig.PlaintextAuth allows it.
func (c *Client) Auth(ctx context.Context, user, password string) error {
	if c.dead != nil {
		return c.dead
	}
	if c.state == nil && !c.cfg.PlaintextAuth {
		return fmt.Errorf("%w: the connection is not encrypted", ErrNoAuth)
	}
	defer c.heed(ctx)()
	e := &c.ext
	switch {
	case c.state != nil && e.offersAuth(scramName+plusSuffix):
		return c.authScram(ctx, user, password, true)
	case e.offersAuth(scramName):
		return c.authScram(ctx, user, password, false)
	case e.offersAuth("PLAIN"):
		return c.authPlain(ctx, user, password)
	case e.offersAuth("LOGIN"):
		return c.authLogin(ctx, user, password)
	}
	return ErrNoAuth
}

func (c *Client) authPlain(ctx context.Context, user, password string) error {
	if strings.IndexByte(user+password, 0) >= 0 {
		return errors.New("NUL in user name or password")
	}
	return c.authDone(c.ask(ctx, "AUTH PLAIN "+toBase64("\x00"+user+"\x00"+password)))
}

func (c *Client) authLogin(ctx context.Context, user, password string) error {
	r, err := c.ask(ctx, "AUTH LOGIN")
	for _, answer := range [...]string{user, password} {
		if err != nil || r.Code != 334 {
			return c.authDone(r, err)
		}
		r, err = c.ask(ctx, toBase64(answer))
	}
	return c.authDone(r, err)
}

// authDone turns the last reply of an exchange into an error.
func (c *Client) authDone(r Reply, err error) error {
	if err == nil && r.Code != 235 {
		err = &r
	}
	if err != nil {
		return fmt.Errorf("AUTH: %w", err)
	}
	return nil
}

// authScram is the client's side of SCRAM-SHA-256 (RFC 5802, section 3).
func (c *Client) authScram(ctx context.Context, user, password string, plus bool) error {
	mech, gs2, binding := scramName, "n,,", []byte(nil)
	if c.state != nil {
		gs2 = "y,," // we could bind; the server does not offer it
	}
	if plus {
		kind, data, err := clientBinding(c.state)
		if err != nil {
			return fmt.Errorf("AUTH: %w", err)
		}
		mech, gs2, binding = scramName+plusSuffix, "p="+kind+",,", data
	}
	nonce := newNonce()
	bare := "n=" + escapeName(user) + ",r=" + nonce
	serverFirst, err := c.scramStep(ctx, "AUTH "+mech+" "+toBase64(gs2+bare))
	if err != nil {
		return err
	}
	salt, iterations, fullNonce, err := parseServerFirst(serverFirst, nonce)
	if err != nil {
		return c.authAbort(ctx, err)
	}
	salted, err := pbkdf2.Key(sha256.New, preparePassword(password), salt, iterations, sha256.Size)
	if err != nil {
		return c.authAbort(ctx, err)
	}
	withoutProof := "c=" + toBase64(gs2+string(binding)) + ",r=" + fullNonce
	message := bare + "," + serverFirst + "," + withoutProof
	final := withoutProof + ",p=" + toBase64(string(clientProof(salted, message)))
	verifier, err := c.scramStep(ctx, toBase64(final))
	if err != nil {
		return err
	}
	want := "v=" + toBase64(string(sum(sum(salted, "Server Key"), message)))
	if !hmac.Equal([]byte(verifier), []byte(want)) {
		return c.authAbort(ctx, errors.New("the server does not know the password"))
	}
	return c.authDone(c.ask(ctx, ""))
}

// scramStep sends a line and returns the challenge that answers it.
func (c *Client) scramStep(ctx context.Context, line string) (string, error) {
	r, err := c.ask(ctx, line)
	if err != nil || r.Code != 334 {
		if err == nil && r.Positive() {
			// Success before the server has shown that it knows the password too.
			err = c.broken(errReply)
		}
		return "", c.authDone(r, err)
	}
	b, err := base64.StdEncoding.DecodeString(r.Text)
	if err != nil {
		return "", c.authAbort(ctx, errReply)
	}
	return string(b), nil
}

// authAbort gives up an exchange (RFC 4954, section 4: "*").
func (c *Client) authAbort(ctx context.Context, err error) error {
	c.ask(ctx, "*")
	return fmt.Errorf("AUTH: %w", err)
}

// clientBinding chooses the type of channel binding: RFC 9266 has tls-exporter as the default,
// which before TLS 1.3 depends on an extension that not every server has.
func clientBinding(state *tls.ConnectionState) (kind string, data []byte, err error) {
	kind = "tls-exporter"
	if state.Version < tls.VersionTLS13 && len(state.PeerCertificates) > 0 {
		kind = "tls-server-end-point"
		data, err = channelBinding(kind, state, state.PeerCertificates[0])
		return kind, data, err
	}
	data, err = channelBinding(kind, state, nil)
	return kind, data, err
}

// parseServerFirst reads the server's first message.
func parseServerFirst(s, nonce string) (salt []byte, iterations int, fullNonce string, err error) {
	parts := strings.SplitN(s, ",", 4)
	if len(parts) < 3 || !strings.HasPrefix(parts[0], "r="+nonce) || parts[0] == "r="+nonce ||
		!strings.HasPrefix(parts[1], "s=") || !strings.HasPrefix(parts[2], "i=") {
		return nil, 0, "", errors.New("malformed challenge")
	}
	salt, err = base64.StdEncoding.DecodeString(parts[1][2:])
	if err != nil || len(salt) == 0 {
		return nil, 0, "", errors.New("malformed salt")
	}
	iterations, err = strconv.Atoi(parts[2][2:])
	if err != nil || iterations < 1 || iterations > maxIterations {
		return nil, 0, "", fmt.Errorf("%s iterations", parts[2][2:])
	}
	return salt, iterations, parts[0][2:], nil
}

func toBase64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func clientProof(salted []byte, message string) []byte {
	key := sum(salted, "Client Key")
	stored := sha256.Sum256(key)
	subtle.XORBytes(key, key, sum(stored[:], message))
	return key
}

// preparePassword maps a password as the server did when it was set: RFC 7677 asks for SASLprep,
// its successor is the OpaqueString profile of RFC 8265.
func preparePassword(s string) string {
	if p, err := precis.OpaqueString.String(s); err == nil {
		return p
	}
	return s
}
