package tor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin/wire"
	"github.com/tallypost/tallypost/internal/clock"
)

// serviceID is that of the Tor Project's web site.
const serviceID = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid"

// fakeTor is a control server that knows what this package says.
type fakeTor struct {
	methods  string // of PROTOCOLINFO
	cookie   []byte // that it knows
	file     string // where it says that the cookie is
	password string // as it comes, quoted
	socks    string // reply to GETINFO
	onion    string // reply to ADD_ONION; empty: a service
	liar     bool   // does not know the cookie
	short    bool   // a nonce that is too short

	got chan string // commands
}

// serve speaks with one controller and hangs up when told to.
func (f *fakeTor) serve(c net.Conn, hangup <-chan struct{}) {
	defer c.Close()
	go func() { <-hangup; c.Close() }()
	in := bufio.NewReader(c)
	var proof string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		verb, rest, _ := strings.Cut(line, " ")
		f.got <- line
		switch verb {
		case "PROTOCOLINFO":
			fmt.Fprintf(c, "250-PROTOCOLINFO 1\r\n250-AUTH METHODS=%s COOKIEFILE=\"%s\"\r\n"+
				"250-VERSION Tor=\"0.4.8.10\"\r\n250 OK\r\n", f.methods, f.file)
		case "AUTHCHALLENGE":
			nonce, _ := hex.DecodeString(strings.TrimPrefix(rest, "SAFECOOKIE "))
			own := bytes.Repeat([]byte{7}, 32)
			if f.short {
				own = own[1:]
			}
			known := f.cookie
			if f.liar {
				known = make([]byte, 32)
			}
			mac := func(key string) string {
				h := hmac.New(sha256.New, []byte(key))
				h.Write(known)
				h.Write(nonce)
				h.Write(own)
				return fmt.Sprintf("%X", h.Sum(nil))
			}
			proof = mac(clientKey)
			fmt.Fprintf(c, "250 AUTHCHALLENGE SERVERHASH=%s SERVERNONCE=%X\r\n", mac(serverKey), own)
		case "AUTHENTICATE":
			if want := strings.ToLower(proof + f.password); strings.ToLower(rest) != want {
				fmt.Fprint(c, "515 Bad authentication\r\n")
				continue
			}
			fmt.Fprint(c, "250 OK\r\n")
		case "GETINFO":
			fmt.Fprint(c, f.socks)
		case "ADD_ONION":
			if f.onion != "" {
				fmt.Fprint(c, f.onion)
				continue
			}
			fmt.Fprintf(c, "250-ServiceID=%s\r\n", serviceID)
			if strings.HasPrefix(rest, "NEW:") {
				fmt.Fprint(c, "250-PrivateKey=ED25519-V3:secret==\r\n")
			}
			fmt.Fprint(c, "250 OK\r\n")
		}
	}
}

// TestController speaks with servers that want one proof or another, and with such as are not as they should be.
func TestController(t *testing.T) {
	cookie := bytes.Repeat([]byte{0x42}, 32)
	const ok = "250-net/listeners/socks=\"unix:/run/tor\" \"192.0.2.1:9060\" \"127.0.0.1:9052\"\r\n250 OK\r\n"
	for _, c := range []struct {
		name     string
		tor      fakeTor
		password string
		auth     string // begin of the command AUTHENTICATE; empty: it is not sent
		service  bool
		socks    string
		log      string // a warning
	}{
		{"null", fakeTor{methods: "NULL", socks: ok}, "", "AUTHENTICATE", true, "127.0.0.1:9052", ""},
		{"cookie", fakeTor{methods: "COOKIE,SAFECOOKIE", cookie: cookie, socks: ok}, "", "AUTHENTICATE ", true,
			"127.0.0.1:9052", ""},
		{"password", fakeTor{methods: "SAFECOOKIE,HASHEDPASSWORD", password: `"a\"b\\c"`, socks: ok}, `a"b\c`,
			`AUTHENTICATE "a\"b\\c"`, true, "127.0.0.1:9052", ""},
		{"wrong password", fakeTor{methods: "HASHEDPASSWORD", password: `"x"`}, "y", `AUTHENTICATE "y"`, false, "",
			"tor: Authentication failed"},
		{"no password", fakeTor{methods: "HASHEDPASSWORD"}, "", "", false, "", "no password provided with -torpassword"},
		{"password not taken", fakeTor{methods: "NULL"}, "x", "", false, "", "HASHEDPASSWORD authentication is not available"},
		{"no method", fakeTor{methods: "X"}, "", "", false, "", "No supported authentication method"},
		{"liar", fakeTor{methods: "SAFECOOKIE", cookie: cookie, liar: true}, "", "", false, "", "does not know Tor's cookie"},
		{"short nonce", fakeTor{methods: "SAFECOOKIE", cookie: cookie, short: true}, "", "", false, "",
			"ServerNonce is not 32 bytes"},
		{"short cookie", fakeTor{methods: "SAFECOOKIE", cookie: cookie[1:]}, "", "", false, "", "is not exactly 32 bytes"},
		{"no cookie", fakeTor{methods: "SAFECOOKIE", file: "/nonexistent"}, "", "", false, "", "could not be opened"},
		{"no socks", fakeTor{methods: "NULL", socks: "250-net/listeners/socks=\r\n250 OK\r\n"}, "", "AUTHENTICATE", true,
			DefaultSOCKS, ""},
		{"no GETINFO", fakeTor{methods: "NULL", socks: "510 Unrecognized\r\n"}, "", "AUTHENTICATE", true, DefaultSOCKS, ""},
		{"old", fakeTor{methods: "NULL", socks: ok, onion: "510 Unrecognized command\r\n"}, "", "AUTHENTICATE", false,
			"127.0.0.1:9052", "You probably need to upgrade Tor"},
		{"refused", fakeTor{methods: "NULL", socks: ok, onion: "512 Bad arguments\r\n"}, "", "AUTHENTICATE", false,
			"127.0.0.1:9052", "Add onion failed; error code 512"},
		{"no service", fakeTor{methods: "NULL", socks: ok, onion: "250-ServiceID=x\r\n250 OK\r\n"}, "", "AUTHENTICATE", false,
			"127.0.0.1:9052", "Error parsing ADD_ONION parameters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, &c.tor, c.password)
			r.connect()
			want := map[bool]string{true: "service", false: "warning"}[c.service]
			if c.socks != "" {
				if got := r.next("socks"); got != c.socks {
					t.Errorf("SOCKS at %s, want %s", got, c.socks)
				}
			}
			got := r.next(want)
			if c.service && got != serviceID+".onion:8333" || !strings.Contains(got, c.log) {
				t.Errorf("%s %s", want, got)
			}
			if said := r.said("AUTHENTICATE"); !strings.HasPrefix(said, c.auth) || c.auth == "" && said != "" {
				t.Errorf("said %q, want %q", said, c.auth)
			}
			if !c.service {
				return
			}
			if said, want := r.said("ADD_ONION"), "ADD_ONION NEW:ED25519-V3 Port=8333,127.0.0.1:8334"; said != want {
				t.Errorf("said %q, want %q", said, want)
			}
			// Tor goes, the service with it; it comes again, and has the same name by the key that was kept.
			close(r.hangup)
			if got := r.next("end"); got != serviceID+".onion:8333" {
				t.Errorf("the end of %s", got)
			}
			r.tor.got = make(chan string, 100)
			r.connect()
			if c.socks != "" {
				r.next("socks")
			}
			r.next("service")
			if said, want := r.said("ADD_ONION"), "ADD_ONION ED25519-V3:secret== Port=8333,127.0.0.1:8334"; said != want {
				t.Errorf("said %q, want %q", said, want)
			}
			if b, err := os.ReadFile(r.keyFile); err != nil || string(b) != "ED25519-V3:secret==" {
				t.Errorf("kept %q, %v", b, err)
			}
		})
	}
}

// rig is a controller, the server that it finds, and what came of both.
type rig struct {
	t       *testing.T
	tor     *fakeTor
	clock   *clock.Mock
	keyFile string
	conns   chan net.Conn
	hangup  chan struct{}
	events  chan [2]string
}

func newRig(t *testing.T, f *fakeTor, password string) *rig {
	dir := t.TempDir()
	r := &rig{t: t, tor: f, clock: clock.NewMock(time.Unix(1_700_000_000, 0)), keyFile: filepath.Join(dir, "key"),
		conns: make(chan net.Conn), events: make(chan [2]string, 100)}
	f.got = make(chan string, 100)
	if f.file == "" {
		f.file = filepath.Join(dir, "cookie")
		if err := os.WriteFile(f.file, f.cookie, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	event := func(kind string) func(wire.AddrPort) {
		return func(a wire.AddrPort) { r.events <- [2]string{kind, a.String()} }
	}
	c := New(Config{Control: "tor", Password: password, KeyFile: r.keyFile, Target: "127.0.0.1:8334", Port: 8333,
		Clock: r.clock, Log: slog.New(warnings{slog.DiscardHandler, r.events}),
		Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			select {
			case conn := <-r.conns:
				return conn, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		OnSOCKS:   func(a string) { r.events <- [2]string{"socks", a} },
		OnService: event("service"), OnEnd: event("end")})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { c.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })
	return r
}

// connect lets the controller reach a server; it waits for its next try before if there was one.
func (r *rig) connect() {
	r.hangup = make(chan struct{})
	ours, theirs := net.Pipe()
	go r.tor.serve(theirs, r.hangup)
	for end := time.Now().Add(30 * time.Second); ; {
		select {
		case r.conns <- ours:
			r.t.Cleanup(func() { ours.Close() })
			return
		case <-time.After(5 * time.Millisecond):
			r.clock.Advance(retryFirst)
		}
		if time.Now().After(end) {
			r.t.Fatal("the controller does not connect")
		}
	}
}

// next waits for an event of a kind.
func (r *rig) next(kind string) string {
	r.t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case e := <-r.events:
			if e[0] == kind {
				return e[1]
			}
			if kind != "warning" || e[0] == "service" {
				r.t.Fatalf("%s %s, want %s", e[0], e[1], kind)
			}
		case <-late:
			r.t.Fatalf("no %s", kind)
		}
	}
}

// said returns the first command with a word.
func (r *rig) said(verb string) string {
	for {
		select {
		case line := <-r.tor.got:
			if strings.HasPrefix(line, verb) {
				return line
			}
		default:
			return ""
		}
	}
}

// warnings makes events of warnings.
type warnings struct {
	slog.Handler
	to chan<- [2]string
}

func (w warnings) Enabled(context.Context, slog.Level) bool { return true }

func (w warnings) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		w.to <- [2]string{"warning", r.Message}
	}
	return nil
}

// TestMapping reads what control-spec's examples and their relatives are.
func TestMapping(t *testing.T) {
	for _, c := range []struct {
		in   string
		want map[string]string
	}{
		{`METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/home/x/.tor/control_auth_cookie"`,
			map[string]string{"METHODS": "COOKIE,SAFECOOKIE", "COOKIEFILE": "/home/x/.tor/control_auth_cookie"}},
		{"METHODS=NULL", map[string]string{"METHODS": "NULL"}},
		{`Foo="Bar\ Baz"`, map[string]string{"Foo": "Bar Baz"}},
		{`Foo="Bar\"Baz\\"`, map[string]string{"Foo": `Bar"Baz\`}},
		{`Foo="a\nb\tc\rd"`, map[string]string{"Foo": "a\nb\tc\rd"}},
		{`Foo="\1\11\111\0a\377\400\8\1112"`, map[string]string{"Foo": "\x01\tI\x00a\xff\x200" + "8I2"}},
		{"PrivateKey=ED25519-V3:a=b==", map[string]string{"PrivateKey": "ED25519-V3:a=b=="}},
		{"Foo=Bar Optional Arguments", map[string]string{"Foo": "Bar"}},
		{"", map[string]string{}},
		{`Foo=""`, map[string]string{"Foo": ""}},
		{"Foo=", map[string]string{"Foo": ""}},
		{"Foo", nil},
		{`Foo="Bar`, nil},
		{`Foo="Bar\"`, nil},
	} {
		if got := mapping(c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", c.in, got, c.want)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("250-AUTH METHODS=NULL\r\n650 EVENT\r\n250 OK\r\n"), `A="\`)
	f.Add([]byte("xyz\n1234\n"), `A=\777"`)
	f.Fuzz(func(t *testing.T, b []byte, s string) {
		r, err := readReply(bufio.NewReader(bytes.NewReader(b)))
		if err == nil && (len(r.lines) == 0 || len(r.lines) > maxLines) {
			t.Errorf("%q", r.lines)
		}
		for k, v := range mapping(s) {
			if len(k)+len(v) > len(s) {
				t.Errorf("%q has grown to %q, %q", s, k, v)
			}
		}
	})
}
