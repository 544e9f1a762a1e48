package smtp

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

// logins accepts user "alice" with password "secret", over plaintext.
func logins(c *Config, rec *recorder) {
	c.PlaintextAuth = true
	c.Password = func(_ context.Context, _ *Conn, user, password string) (string, error) {
		rec.note("password %q %q", user, password)
		switch {
		case user == "alice" && password == "secret":
			return "alice@example.com", nil
		case user == "locked":
			return "", &Reply{Code: 454, Enhanced: "4.7.0", Text: "try again later"}
		case user == "empty":
			return "", nil
		}
		return "", errors.New("secret reason")
	}
	c.OnAuth = func(_ context.Context, _ *Conn, a AuthAttempt) {
		rec.note("attempt %s %q %q %v", a.Mechanism, a.User, a.Account, a.Err != nil)
	}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// TestAuthDialogue is RFC 4954 with PLAIN and LOGIN.
func TestAuthDialogue(t *testing.T) {
	runDialogues(t, []dialogue{
		{"offered", logins, `
			s: 220 *
			c: EHLO x
			` + strings.Repeat("s: 250-*\n", 8) + `
			s: 250-AUTH PLAIN LOGIN
			s: 250 ENHANCEDSTATUSCODES`},
		{"PLAIN with initial response", logins, hello + `
			c: AUTH plain ` + b64("\x00alice\x00secret") + `
			s: 235 2.7.0 authenticated
			= password "alice" "secret"
			= attempt PLAIN "alice" "alice@example.com" false
			c: AUTH PLAIN
			s: 503 5.5.1 *
			c: EHLO x
			` + strings.Repeat("s: 250-*\n", 8) + `
			s: 250 ENHANCEDSTATUSCODES`},
		{"PLAIN without", logins, hello + `
			c: AUTH PLAIN
			s: 334 
			c: ` + b64("alice\x00alice\x00secret") + `
			s: 235 *`},
		{"LOGIN", logins, hello + `
			c: AUTH LOGIN
			s: 334 VXNlcm5hbWU6
			c: ` + b64("alice") + `
			s: 334 UGFzc3dvcmQ6
			c: ` + b64("secret") + `
			s: 235 *`},
		{"LOGIN with the name at once", logins, hello + `
			c: AUTH LOGIN ` + b64("alice") + `
			s: 334 UGFzc3dvcmQ6
			c: ` + b64("secret") + `
			s: 235 *`},
		{"CVE-2023-27582: the authorization identity counts for nothing", logins, hello + `
			c: AUTH PLAIN ` + b64("admin\x00alice\x00secret") + `
			s: 535 5.7.8 *
			= attempt PLAIN "alice" "" true`},
		{"wrong password", logins, hello + `
			c: AUTH PLAIN ` + b64("\x00alice\x00wrong") + `
			s: 535 5.7.8 authentication failed
			= password "alice" "wrong"
			= attempt PLAIN "alice" "" true
			c: AUTH PLAIN ` + b64("\x00alice\x00wrong") + `
			s: 535 *
			c: AUTH PLAIN ` + b64("\x00alice\x00wrong") + `
			s: 535 *
			s: 421 4.7.0 *
			s: EOF`},
		{"an account with an empty name is no account", logins, hello + `
			c: AUTH PLAIN ` + b64("\x00empty\x00x") + `
			s: 535 *`},
		{"a reply of the policy's own", logins, hello + `
			c: AUTH PLAIN ` + b64("\x00locked\x00x") + `
			s: 454 4.7.0 try again later`},
		{"cancelled", logins, hello + `
			c: AUTH LOGIN
			s: 334 *
			c: *
			s: 501 5.0.0 *`},
		{"malformed", logins, hello + `
			c: AUTH
			s: 501 5.5.4 *
			c: AUTH CRAM-MD5
			s: 504 5.5.4 *
			c: AUTH PLAIN =
			s: 501 5.5.2 *
			c: AUTH PLAIN ****
			s: 501 5.5.2 *
			c: AUTH PLAIN ` + b64("alice") + `
			s: 501 5.5.2 *
			c: AUTH PLAIN ` + b64("\x00\x00secret") + `
			s: 501 5.5.2 *
			c: AUTH SCRAM-SHA-256 ` + b64("n,,n=alice,r=x") + `
			s: 504 *`},
		{"needs EHLO", logins, `
			s: 220 *
			c: AUTH PLAIN
			s: 503 *`},
		{"not in a transaction", logins, begin + `
			c: AUTH PLAIN ` + b64("\x00alice\x00secret") + `
			s: 503 5.5.1 *`},
		{"needs TLS", func(c *Config, rec *recorder) {
			logins(c, rec)
			c.PlaintextAuth, c.TLS = false, serverTLS
		}, hello + `
			c: AUTH PLAIN ` + b64("\x00alice\x00secret") + `
			s: 538 5.7.11 *
			c: STARTTLS
			s: 220 *
			tls
			c: EHLO x
			s: ...
			c: AUTH PLAIN ` + b64("\x00alice\x00secret") + `
			s: 235 *`},
		{"not offered", nil, hello + `
			c: AUTH PLAIN ` + b64("\x00alice\x00secret") + `
			s: 502 5.5.1 *`},
		{"RFC 4954, section 4: lines of 12,288 octets", logins, hello + `
			c: AUTH PLAIN ` + b64("\x00alice\x00"+strings.Repeat("x", 9000)) + `
			s: 535 *
			c: AUTH PLAIN ` + b64("\x00alice\x00"+strings.Repeat("x", 9300)) + `
			s: 500 5.5.6 *
			c: NOOP
			s: 250 *`},
		{"an answer that is too long", logins, hello + `
			c: AUTH PLAIN
			s: 334 
			c: ` + strings.Repeat("x", 13000) + `
			s: 500 5.5.6 *
			s: EOF`},
	})
}

func scramLogins(c *Config, rec *recorder) {
	c.PlaintextAuth = true
	c.Scram = func(_ context.Context, _ *Conn, user string) (ScramKeys, error) {
		switch user {
		case "alice":
			return keysOf("secret"), nil
		case "broken":
			return ScramKeys{}, errors.New("secret detail")
		}
		return ScramKeys{}, ErrNoUser
	}
}

// TestScramDialogue is about clients that do not keep RFC 5802.
func TestScramDialogue(t *testing.T) {
	runDialogues(t, []dialogue{
		{"mandatory extensions are not known", scramLogins, hello + `
			c: AUTH SCRAM-SHA-256 ` + b64("n,,m=x,n=alice,r=nonce") + `
			s: 501 5.5.2 *`},
		{"another's identity", scramLogins, hello + `
			c: AUTH SCRAM-SHA-256 ` + b64("n,a=admin,n=alice,r=nonce") + `
			s: 535 *`},
		{"binding without -PLUS", scramLogins, hello + `
			c: AUTH SCRAM-SHA-256 ` + b64("p=tls-exporter,,n=alice,r=nonce") + `
			s: 501 *`},
		{"-PLUS without TLS", scramLogins, hello + `
			c: AUTH SCRAM-SHA-256-PLUS ` + b64("p=tls-exporter,,n=alice,r=nonce") + `
			s: 504 *`},
		{"a nonce with a comma, or none", scramLogins, hello + `
			c: AUTH SCRAM-SHA-256 ` + b64("n,,n=alice,r=") + `
			s: 501 *
			c: AUTH SCRAM-SHA-256 ` + b64("n,,n=al=ice,r=x") + `
			s: 501 *`},
		{"a user whom nobody knows gets a salt too", scramLogins, hello + `
			c: AUTH SCRAM-SHA-256 ` + b64("n,,n=mallory,r=nonce") + `
			s: 334 *
			c: ` + b64("c=biws,r=nonce,p="+b64(strings.Repeat("x", 32))) + `
			s: 535 *`},
		{"a nonce that is not ours", scramLogins, hello + `
			c: AUTH SCRAM-SHA-256 ` + b64("n,,n=alice,r=nonce") + `
			s: 334 *
			c: ` + b64("c=biws,r=nonce,p="+b64(strings.Repeat("x", 32))) + `
			s: 535 *`},
		{"store out of order", scramLogins, hello + `
			c: AUTH SCRAM-SHA-256 ` + b64("n,,n=broken,r=nonce") + `
			s: 535 5.7.8 authentication failed`},
		{"a client that thinks we cannot bind", func(c *Config, rec *recorder) {
			scramLogins(c, rec)
			c.TLS, c.ImplicitTLS = serverTLS, true
		}, "tls\n" + hello + `
			c: AUTH SCRAM-SHA-256 ` + b64("y,,n=alice,r=nonce") + `
			s: 535 *`},
	})
}
