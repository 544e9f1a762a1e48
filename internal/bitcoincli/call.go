package bitcoincli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

// Defaults of bitcoin-cli.
const (
	defaultHost    = "127.0.0.1"
	defaultTimeout = 900 // seconds
)

// transient is an error that a node which starts may cause.
type transient struct{ error }

// request is one call of several.
type request struct {
	method string
	params any
}

// one calls a method.
func (c *cli) one(ctx context.Context, method string, params any, wallet *string) (any, error) {
	replies, err := c.call(ctx, []request{{method, params}}, false, wallet)
	if err != nil {
		return nil, err
	}
	return replies[0].result, replies[0].err
}

// several calls methods at the same time.
func (c *cli) several(ctx context.Context, wallet *string, methods ...string) ([]reply, error) {
	var list []request
	for _, m := range methods {
		list = append(list, request{m, nil})
	}
	return c.call(ctx, list, true, wallet)
}

// reply is what a call had as its answer.
type reply struct {
	result any
	err    error // a *jsonrpc.Error
}

// call asks the node, again and again while it starts if -rpcwait is set.
func (c *cli) call(ctx context.Context, list []request, batch bool, wallet *string) ([]reply, error) {
	wait, limit := c.o.Bool("rpcwait", false), c.o.Int("rpcwaittimeout", 0)
	deadline := time.Now().Add(time.Duration(limit) * time.Second)
	for {
		replies, err := c.ask(ctx, list, batch, wallet)
		var e *jsonrpc.Error
		if wait && err == nil && errors.As(replies[0].err, &e) && e.Code == jsonrpc.InWarmup {
			err = transient{errors.New("server in warmup")}
		}
		var down transient
		if !errors.As(err, &down) {
			return replies, err
		}
		if !wait || limit > 0 && !time.Now().Before(deadline) {
			return nil, fmt.Errorf("timeout on transient error: %w", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ask calls methods once.
func (c *cli) ask(ctx context.Context, list []request, batch bool, wallet *string) ([]reply, error) {
	host, port, err := c.server()
	if err != nil {
		return nil, err
	}
	user, password, found := c.credentials()
	var calls []any
	for i, r := range list {
		id := 1
		if batch {
			id = i
		}
		calls = append(calls, jsonrpc.Object{{"jsonrpc", "2.0"}, {"method", r.method}, {"params", r.params}, {"id", id}})
	}
	var body any = calls
	if !batch {
		body = calls[0]
	}
	if d := c.o.Int("rpcclienttimeout", defaultTimeout); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(d)*time.Second)
		defer cancel()
	}
	target := url.URL{Scheme: "http", Host: net.JoinHostPort(host, strconv.Itoa(int(port))), Path: "/"}
	if wallet != nil {
		target.Path, target.RawPath = "/wallet/"+*wallet, "/wallet/"+url.PathEscape(*wallet)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(),
		bytes.NewReader(append(jsonrpc.AppendValue(nil, body), '\n')))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(user, password)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, transient{unreached(host, port, err)}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, transient{unreached(host, port, err)}
	}
	return c.read(resp.StatusCode, data, len(list), batch, found)
}

// unreached says that a server could not be talked to, with the code and the words of the library that
// Core uses.
func unreached(host string, port uint16, err error) error {
	why := ` (error code 1 - "EOF reached")`
	var t interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		why = ""
	case errors.As(err, &t) && t.Timeout():
		why = ` (error code 0 - "timeout reached")`
	}
	return fmt.Errorf("Could not connect to the server %s:%d%s\n\n"+
		"Make sure the bitcoind server is running and that you are connecting to the correct RPC port.\n"+
		"Use \"bitcoin-cli -help\" for more info.", host, port, why)
}

// read reads what the server answered.
func (c *cli) read(status int, data []byte, want int, batch, found bool) ([]reply, error) {
	switch {
	case status == http.StatusUnauthorized && !found:
		return nil, fmt.Errorf("Could not locate RPC credentials. No authentication cookie could be found, and RPC "+
			"password is not set.  See -rpcpassword and -stdinrpcpass.  Configuration file: (%s)", c.o.File)
	case status == http.StatusUnauthorized:
		return nil, errors.New("Authorization failed: Incorrect rpcuser or rpcpassword")
	case status == http.StatusServiceUnavailable:
		return nil, fmt.Errorf("Server response: %s", data)
	case status >= 400 && status != http.StatusBadRequest && status != http.StatusNotFound &&
		status != http.StatusInternalServerError:
		return nil, fmt.Errorf("server returned HTTP error %d", status)
	case len(data) == 0:
		return nil, errors.New("no response from server")
	}
	v, err := jsonrpc.ParseValue(data)
	if err != nil {
		return nil, errors.New("couldn't parse reply from server")
	}
	list := []any{v}
	if many, ok := v.([]any); ok && batch {
		list = many
	}
	replies := make([]reply, want)
	for i, v := range list {
		o, ok := v.(jsonrpc.Object)
		if n, isNumber := o.Get("id").(json.Number); batch && isNumber {
			id, err := n.Int64()
			if err != nil || id < 0 || id >= int64(want) {
				return nil, errors.New("Batch member id is larger than batch size")
			}
			i = int(id)
		}
		if !ok || i >= want || len(o) == 0 {
			return nil, errors.New("expected reply to have result, error and id properties")
		}
		replies[i] = reply{o.Get("result"), replyError(o.Get("error"))}
	}
	return replies, nil
}

// replyError turns the error of an answer into one of ours.
func replyError(v any) error {
	o, ok := v.(jsonrpc.Object)
	if !ok {
		return nil
	}
	code, _ := o.Get("code").(json.Number)
	n, _ := code.Int64()
	text, _ := o.Get("message").(string)
	const walletNotSpecified = -19
	if n == walletNotSpecified {
		text += " Or for the CLI, specify the \"-rpcwallet=<walletname>\" option before the command (run " +
			"\"bitcoin-cli -h\" for help or \"bitcoin-cli listwallets\" to see which wallets are currently loaded)."
	}
	return &jsonrpc.Error{Code: jsonrpc.Code(n), Message: text}
}

// server returns where to call: the port of -rpcport, else that of -rpcconnect, else the network's.
func (c *cli) server() (host string, port uint16, err error) {
	connect := c.o.String("rpcconnect", defaultHost)
	host, given, ok := splitHostPort(connect)
	if !ok {
		return "", 0, fmt.Errorf("Invalid port provided in -rpcconnect: %s", connect)
	}
	port = c.net.RPCPort
	if given != 0 {
		port = given
	}
	if !c.o.Has("rpcport") {
		return host, port, nil
	}
	text := c.o.String("rpcport", "")
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("Invalid port provided in -rpcport: %s", text)
	}
	if given != 0 {
		fmt.Fprintf(c.Err, "Warning: Port specified in both -rpcconnect and -rpcport. Using -rpcport %d\n", n)
	}
	return host, uint16(n), nil
}

// splitHostPort takes an address apart; port is 0 where there is none (Bitcoin Core util/strencodings.cpp).
func splitHostPort(s string) (host string, port uint16, ok bool) {
	host = s
	colon := strings.LastIndexByte(s, ':')
	bracketed := strings.HasPrefix(s, "[") && colon > 0 && s[colon-1] == ']'
	if several := colon >= 0 && strings.LastIndexByte(s[:colon], ':') >= 0; colon >= 0 && (bracketed || !several) {
		n, err := strconv.ParseUint(s[colon+1:], 10, 16)
		if err != nil || n == 0 {
			return "", 0, false
		}
		host, port = s[:colon], uint16(n)
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return host, port, true
}

// credentials returns the name and password: the configured ones, or those of the node's cookie.
func (c *cli) credentials() (user, password string, found bool) {
	if password = c.password; password == "" {
		password = c.o.String("rpcpassword", "")
	}
	if password != "" {
		return c.o.String("rpcuser", ""), password, true
	}
	if c.o.Negated("rpccookiefile") {
		return "", "", true
	}
	file := c.o.String("rpccookiefile", "")
	if file == "" {
		file = ".cookie"
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(c.o.DataDir(), c.net.DataDir, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", "", false
	}
	line, _, _ := strings.Cut(string(b), "\n")
	user, password, _ = strings.Cut(line, ":")
	return user, password, true
}

// show writes a result: text as it is, nothing for null, else JSON with an element a line.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	return string(pretty(nil, v, 1))
}

const indent = 2

// pretty appends JSON as Core writes it for people: also what is empty takes two lines.
func pretty(dst []byte, v any, level int) []byte {
	line := func(level int) { dst = append(append(dst, '\n'), bytes.Repeat([]byte{' '}, indent*level)...) }
	switch v := v.(type) {
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			line(level)
			dst = pretty(dst, e, level+1)
		}
		line(level - 1)
		return append(dst, ']')
	case jsonrpc.Object:
		dst = append(dst, '{')
		for i, m := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			line(level)
			dst = append(jsonrpc.AppendValue(dst, m.Name), ": "...)
			dst = pretty(dst, m.Value, level+1)
		}
		line(level - 1)
		return append(dst, '}')
	}
	return jsonrpc.AppendValue(dst, v)
}
