package jsonrpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/bitcoin"
)

func testMethods() []Method {
	echo := func(_ context.Context, c *Call) (any, error) {
		out := []any{}
		for i := range c.Len() {
			out = append(out, c.Any(i))
		}
		return out, nil
	}
	return []Method{
		{Category: "test", Name: "echo", Params: "a:v? b:v? c:v?", Run: echo},
		{Category: "test", Name: "typed", Params: "hash:h count:i flag:b? opts:o? opts.deep:i?", Run: echo,
			Doc: "Takes arguments of several types."},
		{Category: "test", Name: "fail", Run: func(context.Context, *Call) (any, error) {
			return nil, Errorf(InvalidParameter, "out of range")
		}},
		{Category: "test", Name: "crash", Run: func(context.Context, *Call) (any, error) {
			panic("a bug")
		}},
		{Category: "test", Name: "plain", Run: func(context.Context, *Call) (any, error) {
			return nil, errors.New("some failure")
		}},
	}
}

// start serves on loopback and returns a function that posts a body.
func start(t *testing.T, cfg Config) (post func(user, body string) (int, string), s *Server) {
	t.Helper()
	cfg.Credentials = append(cfg.Credentials, NewCredential("u", "p"), NewCredential("v", "p"))
	s = NewServer(cfg, testMethods())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	s.SetWarmup("")
	return func(user, body string) (int, string) {
		t.Helper()
		req, _ := http.NewRequest("POST", "http://"+l.Addr().String()+"/", strings.NewReader(body))
		if user != "" {
			req.SetBasicAuth(user, "p")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, strings.TrimSpace(string(b))
	}, s
}

// The rows are those of Core's doc/JSON-RPC-interface.md and interface_rpc.py.
func TestVersions(t *testing.T) {
	post, _ := start(t, Config{})
	for _, row := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"method":"echo","params":[1],"id":7}`, 200, `{"result":[1],"error":null,"id":7}`},
		{`{"jsonrpc":"2.0","method":"echo","params":[1],"id":7}`, 200, `{"jsonrpc":"2.0","result":[1],"id":7}`},
		{`{"method":"nosuch","id":1}`, 404, `{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"nosuch","id":1}`, 200, `{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":1}`},
		{`{"method":"fail","id":1}`, 500, `{"result":null,"error":{"code":-8,"message":"out of range"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"echo"}`, 204, ``},
		{`{"jsonrpc":"2.1","method":"echo"}`, 400, `{"result":null,"error":{"code":-32600,"message":"JSON-RPC version not supported"}}`},
		{`{"jsonrpc":2,"method":"echo"}`, 400, `{"result":null,"error":{"code":-32600,"message":"jsonrpc field must be a string"}}`},
		{`this is no JSON`, 500, `{"result":null,"error":{"code":-32700,"message":"Parse error"},"id":null}`},
		{`7`, 500, `{"result":null,"error":{"code":-32700,"message":"Top-level object parse error"},"id":null}`},
		{`[]`, 200, `[]`},
		{`[{"jsonrpc":"2.0","method":"echo"}]`, 204, ``},
		{`[{"method":"echo","id":1},{"id":2},{"jsonrpc":"2.0","method":"fail","id":3}]`, 200,
			`[{"result":[],"error":null,"id":1},{"result":null,"error":{"code":-32600,"message":"Missing method"},"id":2},` +
				`{"jsonrpc":"2.0","error":{"code":-8,"message":"out of range"},"id":3}]`},
		{`{"method":"plain","id":1}`, 500, `{"result":null,"error":{"code":-1,"message":"some failure"},"id":1}`},
		{`{"method":"crash","id":1}`, 500, `{"result":null,"error":{"code":-1,"message":"Internal bug detected: a bug"},"id":1}`},
	} {
		if status, got := post("u", row.body); status != row.status || got != row.want {
			t.Errorf("%s\n got %d %s\nwant %d %s", row.body, status, got, row.status, row.want)
		}
	}
}

func TestArguments(t *testing.T) {
	post, _ := start(t, Config{})
	hash := strings.Repeat("ab", 32)
	for _, row := range []struct{ params, want string }{
		{`{"a":1,"c":3}`, `"result":[1,null,3]`},
		{`{"args":[1],"c":3}`, `"result":[1,null,3]`},
		{`{"args":[1,2],"b":3}`, `Parameter b specified twice both as positional and named argument`},
		{`{"a":1,"a":2}`, `Parameter a specified multiple times`},
		{`{"z":1}`, `Unknown named parameter z`},
	} {
		if _, got := post("u", fmt.Sprintf(`{"method":"echo","params":%s,"id":1}`, row.params)); !strings.Contains(got, row.want) {
			t.Errorf("echo %s: %s, want %s", row.params, got, row.want)
		}
	}
	for _, row := range []struct{ params, want string }{
		{`["` + hash + `",5]`, `"result":["` + hash + `",5]`},
		{`{"hash":"` + hash + `","count":5,"deep":1}`, `5,null,{"deep":1}]`},
		{`["` + hash + `"]`, `typed \"hash\" count ( flag opts )\n\nTakes`},
		{`["` + hash + `",1,true,{},9]`, `typed \"hash\"`},
		{`[5,"x"]`, `Position 1 (hash)\": \"JSON value of type number is not of expected type string`},
		{`["ab",5]`, `hash must be of length 64 (not 2, for 'ab')`},
		{`["` + strings.Repeat("zz", 32) + `",5]`, `hash must be hexadecimal string (not '`},
		{`["` + hash + `",1.5]`, `JSON integer out of range`},
		{`["` + hash + `",99999999999999999999]`, `JSON integer out of range`},
	} {
		if _, got := post("u", fmt.Sprintf(`{"method":"typed","params":%s,"id":1}`, row.params)); !strings.Contains(got, row.want) {
			t.Errorf("typed %s: %s, want %s", row.params, got, row.want)
		}
	}
}

func TestAccess(t *testing.T) {
	post, s := start(t, Config{Whitelist: ParseWhitelist([]string{"v:echo,fail", "v:echo"})})
	body := `{"method":"fail","id":1}`
	if status, _ := post("", body); status != 401 {
		t.Errorf("no credentials: %d", status)
	}
	if status, _ := post("nobody", body); status != 401 {
		t.Errorf("wrong user: %d", status)
	}
	if status, _ := post("v", body); status != 403 {
		t.Errorf("method that is not on the list: %d", status)
	}
	if status, _ := post("v", `{"method":"echo","id":1}`); status != 200 {
		t.Errorf("method on the list: %d", status)
	}
	s.SetWarmup("Loading block index…")
	if status, got := post("u", body); status != 500 || !strings.Contains(got, `"code":-28,"message":"Loading block index…"`) {
		t.Errorf("warm-up: %d %s", status, got)
	}
}

// Core's clients need not name a host, and may send a second call before the first is answered.
func TestPipelineWithoutHost(t *testing.T) {
	s := NewServer(Config{Credentials: []Credential{NewCredential("u", "p")}}, testMethods())
	s.SetWarmup("")
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serveConn(context.Background(), there)
	}()
	auth := base64.StdEncoding.EncodeToString([]byte("u:p"))
	var both bytes.Buffer
	for _, body := range []string{`{"method":"echo","id":1}`, `{"method":"echo","id":2}`} {
		fmt.Fprintf(&both, "POST / HTTP/1.1\r\nAuthorization: Basic %s\r\nContent-Length: %d\r\n\r\n%s", auth, len(body), body)
	}
	go here.Write(both.Bytes())
	r := bufio.NewReader(here)
	for id := 1; id <= 2; id++ {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		if !bytes.Contains(b, fmt.Appendf(nil, `"id":%d`, id)) {
			t.Errorf("answer %d: %s", id, b)
		}
	}
	here.Close()
	<-done
}

func TestLongRequestLine(t *testing.T) {
	s := NewServer(Config{}, nil)
	here, there := net.Pipe()
	go s.serveConn(context.Background(), there)
	go func() {
		here.SetWriteDeadline(time.Now().Add(time.Second))
		fmt.Fprintf(here, "GET /%s HTTP/1.1\r\n\r\n", strings.Repeat("x", 10_000))
	}()
	resp, err := http.ReadResponse(bufio.NewReader(here), nil)
	if err != nil || resp.StatusCode != 400 {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestValues(t *testing.T) {
	got := string(AppendValue(nil, Object{{"amount", bitcoin.Amount(-1)}, {"text", "a\"\n\x01é"},
		{"hex", Hex{0, 255}}, {"float", 4.656542373906925e-10}, {"list", []any{nil, true, 1}}}))
	want := `{"amount":-0.00000001,"text":"a\"\n\u0001é","hex":"00ff","float":4.656542373906925e-10,"list":[null,true,1]}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := ParseValue([]byte(strings.Repeat("[", 600) + strings.Repeat("]", 600))); err == nil {
		t.Error("600 arrays in each other")
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(`{"jsonrpc":"2.0","method":"typed","params":{"hash":"ab","args":[1]},"id":[{}]}`)
	f.Add(`[{"method":"echo","params":[1,{"a":1,"a":2}]}]`)
	s := NewServer(Config{}, testMethods())
	s.SetWarmup("")
	f.Fuzz(func(t *testing.T, body string) {
		v, err := ParseValue([]byte(body))
		if err != nil {
			return
		}
		again, err := ParseValue(AppendValue(nil, v))
		if err != nil || string(AppendValue(nil, again)) != string(AppendValue(nil, v)) {
			t.Errorf("%q does not survive writing: %v", body, err)
		}
		if r, err := ParseRequest(v); err == nil {
			s.Call(context.Background(), &r)
		}
	})
}
