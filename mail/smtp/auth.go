package smtp

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
)

// ErrNoUser is what Config.Scram returns where there is no such user. The client cannot tell it
// from a wrong password.
var ErrNoUser = errors.New("no such user")

// ScramKeys is what SCRAM-SHA-256 stores of a password (RFC 5802, section 3).
type ScramKeys struct {
	Account    string // what Conn.Account is to return
	Salt       []byte
	Iterations int
	StoredKey  []byte
	ServerKey  []byte
}

// AuthAttempt is one attempt to authenticate.
type AuthAttempt struct {
	Mechanism string // "PLAIN"
	User      string // as the client named it; a claim
	Account   string // what it opened; empty where it failed
	Err       error  // why it failed; nil where it did not
}

// maxAuthFails is how many failed attempts one connection has.
const maxAuthFails = 3

var (
	errAuth      = &Reply{Code: 535, Enhanced: "5.7.8", Text: "authentication failed"}
	errAuthz     = &Reply{Code: 535, Enhanced: "5.7.8", Text: "nobody may act for another here"}
	errAuthSyn   = &Reply{Code: 501, Enhanced: "5.5.2", Text: "malformed response"}
	errAuthGone  = &Reply{Code: 501, Enhanced: "5.0.0", Text: "authentication cancelled"}
	errAuthLong  = &Reply{Code: 500, Enhanced: "5.5.6", Text: "authentication line is too long"}
	errAuthState = errors.New("connection lost while authenticating")
)

// mayAuth reports whether AUTH can be used now.
func (c *Conn) mayAuth() bool {
	return c.state != nil || c.v.cfg.PlaintextAuth && !c.v.cfg.RequireTLS
}

// mechanisms returns what AUTH offers now, strongest first.
func (c *Conn) mechanisms() string {
	if !c.mayAuth() || c.account != "" {
		return ""
	}
	var m []string
	if c.v.cfg.Scram != nil {
		if c.state != nil {
			m = append(m, scramName+plusSuffix)
		}
		m = append(m, scramName)
	}
	if c.v.cfg.Password != nil {
		m = append(m, "PLAIN", "LOGIN")
	}
	return strings.Join(m, " ")
}

// auth answers AUTH (RFC 4954, section 4).
func (c *Conn) auth(arg string) {
	if !c.inStep("AUTH") {
		return
	}
	mech, initial, hasInitial := strings.Cut(arg, " ")
	mech = strings.ToUpper(mech)
	switch {
	case !c.esmtp:
		c.fault(503, "5.5.1", "say EHLO first")
		return
	case c.v.cfg.Password == nil && c.v.cfg.Scram == nil:
		c.fault(502, "5.5.1", "no authentication here")
		return
	case c.account != "":
		c.fault(503, "5.5.1", "you are authenticated already")
		return
	case c.tx.open:
		c.fault(503, "5.5.1", "a transaction is open, say RSET to give it up")
		return
	case !c.mayAuth():
		c.fault(538, "5.7.11", "say STARTTLS first: passwords are not taken in the clear")
		return
	case mech == "":
		c.fault(501, "5.5.4", "AUTH wants a mechanism")
		return
	}
	a := AuthAttempt{Mechanism: mech}
	x := exchange{c: c, initial: strings.TrimSpace(initial), hasInitial: hasInitial}
	switch {
	case (mech == "PLAIN" || mech == "LOGIN") && c.v.cfg.Password != nil:
		a.User, a.Account, a.Err = x.password(mech)
	case mech == scramName && c.v.cfg.Scram != nil:
		a.User, a.Account, a.Err = x.scram(false)
	case mech == scramName+plusSuffix && c.v.cfg.Scram != nil && c.state != nil:
		a.User, a.Account, a.Err = x.scram(true)
	default:
		c.fault(504, "5.5.4", "mechanism not known here")
		return
	}
	c.authEnded(a)
}

// authEnded answers the end of an exchange.
func (c *Conn) authEnded(a AuthAttempt) {
	if c.closing {
		return
	}
	if a.Err == nil && a.Account == "" {
		a.Err = errAuth
	}
	if a.Err != nil {
		a.Account = ""
	}
	if c.v.cfg.OnAuth != nil {
		c.v.cfg.OnAuth(c.v.ctx, c, a)
	}
	if a.Err == nil {
		c.account = a.Account
		c.say(235, "2.7.0", "authenticated")
		return
	}
	var r *Reply
	if !errors.As(a.Err, &r) || r.Code < 400 || r.Code > 599 {
		if !errors.Is(a.Err, ErrNoUser) {
			c.v.cfg.Log.Info("authentication failed", "peer", c.remote,
				"mechanism", a.Mechanism, "err", a.Err)
		}
		r = errAuth
	}
	c.fault(r.Code, r.Enhanced, r.Text)
	if r.Code == 535 {
		c.authFails++
	}
	if c.authFails >= maxAuthFails && !c.closing {
		c.say(421, "4.7.0", "too many failed attempts, closing the connection")
		c.closing, c.linger = true, true
	}
}

// exchange is the challenges and responses of one AUTH.
type exchange struct {
	c          *Conn
	initial    string // initial response, still in base64
	hasInitial bool
}

// ask sends a challenge and returns the response to it; an initial response is taken first, where
// the challenge is empty.
func (x *exchange) ask(challenge []byte) ([]byte, error) {
	if x.hasInitial && challenge == nil {
		x.hasInitial = false
		if x.initial == "=" { // RFC 4954, section 4: an empty initial response
			return nil, nil
		}
		return decodeBase64(x.initial)
	}
	c := x.c
	c.x.write("334 " + base64.StdEncoding.EncodeToString(challenge) + "\r\n")
	c.x.stopping = true
	line, err := c.x.readLine(maxAuthLine, nil)
	c.x.stopping = false
	if err == nil {
		line, err = checkLine(line)
	}
	switch {
	case errors.Is(err, errLine):
		c.say(errAuthLong.Code, errAuthLong.Enhanced, errAuthLong.Text)
		c.closing, c.linger = true, true
		return nil, errAuthState
	case err != nil:
		c.lost(err)
		return nil, errAuthState
	case len(c.x.buffered()) > 0:
		c.desync("you did not wait for the reply to AUTH")
		return nil, errAuthState
	case string(line) == "*":
		return nil, errAuthGone
	}
	return decodeBase64(string(line))
}

func decodeBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errAuthSyn
	}
	return b, nil
}

// password is PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login, which many clients still
// prefer).
func (x *exchange) password(mech string) (user, account string, err error) {
	var pass string
	if mech == "PLAIN" {
		user, pass, err = x.plain()
	} else {
		user, pass, err = x.login()
	}
	if err != nil {
		return user, "", err
	}
	account, err = x.c.v.cfg.Password(x.c.v.ctx, x.c, user, pass)
	return user, account, err
}

func (x *exchange) plain() (user, pass string, err error) {
	b, err := x.ask(nil)
	if err != nil {
		return "", "", err
	}
	parts := bytes.Split(b, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 {
		return "", "", errAuthSyn
	}
	user, pass = string(parts[1]), string(parts[2])
	// CVE-2023-27582: whoever trusts the authorization identity lets everybody be anybody.
	if authz := string(parts[0]); authz != "" && authz != user {
		return user, "", errAuthz
	}
	return user, pass, nil
}

func (x *exchange) login() (user, pass string, err error) {
	var b []byte
	if x.hasInitial {
		b, err = x.ask(nil)
	} else {
		b, err = x.ask([]byte("Username:"))
	}
	if err != nil {
		return "", "", err
	}
	user = string(b)
	if b, err = x.ask([]byte("Password:")); err != nil {
		return user, "", err
	}
	if user == "" || bytes.IndexByte(b, 0) >= 0 || strings.IndexByte(user, 0) >= 0 {
		return user, "", errAuthSyn
	}
	return user, string(b), nil
}
