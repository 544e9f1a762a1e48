package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/bitcoin/rpc"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

// bitcoinCLICommand calls a node, ours or another. Its flags are bitcoin-cli's.
func bitcoinCLICommand() *cobra.Command {
	return &cobra.Command{
		Use:                "bitcoin-cli [flags] METHOD [ARGS]",
		Short:              "Call a Bitcoin node as Bitcoin Core's bitcoin-cli does",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return exitCode(runBitcoinCLI(cmd.Context(), args))
		},
	}
}

// runBitcoinCLI is bitcoin-cli's main: it returns the exit code.
func runBitcoinCLI(ctx context.Context, args []string) int {
	c, err := newCLI(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "Error parsing command line arguments: %v\n", err)
		return 1
	}
	if c.o.Has("help") || c.o.Has("h") || c.o.Has("?") || len(c.args) == 0 {
		fmt.Print("Bitcoin Core RPC client version v30.99.0 (Tallypost)\n\n" +
			"Usage: bitcoin-cli [options] <command> [params]  Send command to Bitcoin Core\n" +
			"or:    bitcoin-cli [options] -named <command> [name=value]...\n" +
			"or:    bitcoin-cli [options] help [command]\n")
		if len(c.args) == 0 && !c.o.Has("help") && !c.o.Has("h") && !c.o.Has("?") {
			fmt.Fprintln(os.Stderr, "error: too few parameters (need at least command)")
			return 1
		}
		return 0
	}
	result, err := c.call(ctx, c.args[0], c.args[1:])
	var e *jsonrpc.Error
	switch {
	case errors.As(err, &e):
		fmt.Fprintf(os.Stderr, "error code: %d\nerror message:\n%s\n", e.Code, e.Message)
		return max(int(e.Code), -int(e.Code)) & 0xff
	case err != nil:
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 1
	}
	switch v := result.(type) {
	case nil:
	case string:
		fmt.Println(v)
	default:
		fmt.Println(string(jsonrpc.Indent(v)))
	}
	return 0
}

// cli is one run of bitcoin-cli.
type cli struct {
	o    *options.Options
	net  *bitcoin.Network
	args []string
}

func newCLI(args []string) (*cli, error) {
	o := options.New(append(options.BitcoinCLI(), "rpcbind"))
	if err := o.ParseCommandLine(args, true); err != nil {
		return nil, err
	}
	if err := o.CheckDataDir(); err != nil {
		return nil, err
	}
	if err := o.ReadFiles(func(string) {}); err != nil {
		return nil, fmt.Errorf("Error reading configuration file: %w", err)
	}
	name, err := o.Network()
	if err != nil {
		return nil, err
	}
	o.UseNetwork(name)
	network, err := bitcoin.NetworkByName(name)
	if err != nil {
		return nil, err
	}
	c := &cli{o: o, net: network, args: slices.Clone(o.Rest)}
	if o.Bool("stdinrpcpass", false) || o.Bool("stdin", false) {
		lines := bufio.NewScanner(os.Stdin)
		lines.Buffer(nil, 64<<20)
		for lines.Scan() {
			c.args = append(c.args, lines.Text())
		}
	}
	return c, nil
}

// params turns words into arguments: text where the method wants text, JSON elsewhere.
func (c *cli) params(method string, words []string) (any, error) {
	var known []jsonrpc.Param
	for _, m := range rpc.Describe() {
		if m.Name == method {
			known = slices.DeleteFunc(m.Parameters(), func(p jsonrpc.Param) bool {
				return p.Of != "" && !c.o.Bool("named", false)
			})
		}
	}
	if !c.o.Bool("named", false) {
		list := make([]any, 0, len(words))
		for i, w := range words {
			kind := jsonrpc.KindString
			if i < len(known) {
				kind = known[i].Kind
			}
			v, err := convert(kind, w)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	var named jsonrpc.Object
	var positional []any
	for _, w := range words {
		name, text, ok := strings.Cut(w, "=")
		if !ok {
			positional = append(positional, w)
			continue
		}
		kind := jsonrpc.KindString
		for _, p := range known {
			if slices.Contains(p.Names, name) {
				kind = p.Kind
			}
		}
		v, err := convert(kind, text)
		if err != nil {
			return nil, err
		}
		named.Set(name, v)
	}
	if len(positional) > 0 {
		named.Set("args", positional)
	}
	return named, nil
}

func convert(kind jsonrpc.Kind, word string) (any, error) {
	if kind == jsonrpc.KindString || kind == jsonrpc.KindHash {
		return word, nil
	}
	v, err := jsonrpc.ParseValue([]byte(word))
	if err != nil && kind == jsonrpc.KindAny {
		return word, nil
	}
	if err != nil {
		return nil, fmt.Errorf("Error parsing JSON: %s", word)
	}
	return v, nil
}

// call asks the node, again and again while it starts if -rpcwait is set.
func (c *cli) call(ctx context.Context, method string, words []string) (any, error) {
	params, err := c.params(method, words)
	if err != nil {
		return nil, err
	}
	limit := c.o.Int("rpcwaittimeout", 0)
	for begun := time.Now(); ; {
		result, err := c.ask(ctx, method, params)
		var e *jsonrpc.Error
		starting := errors.As(err, &e) && e.Code == jsonrpc.InWarmup
		var down *net.OpError
		if !c.o.Bool("rpcwait", false) || !starting && !errors.As(err, &down) {
			return result, err
		}
		if limit > 0 && time.Since(begun) > time.Duration(limit)*time.Second {
			return nil, fmt.Errorf("timeout on transient error: %w", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *cli) ask(ctx context.Context, method string, params any) (any, error) {
	user, password, err := c.credentials()
	if err != nil {
		return nil, err
	}
	host, port := c.o.String("rpcconnect", "127.0.0.1"), strconv.Itoa(int(c.net.RPCPort))
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	}
	port = c.o.String("rpcport", port)
	body := jsonrpc.AppendValue(nil, jsonrpc.Object{{"jsonrpc", "2.0"}, {"id", 1}, {"method", method},
		{"params", params}})
	if d := c.o.Int("rpcclienttimeout", 900); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(d)*time.Second)
		defer cancel()
	}
	target := "http://" + net.JoinHostPort(host, port) + "/"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(user, password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("Could not connect to the server %s:%s\n\nMake sure the bitcoind server is "+
			"running and that you are connecting to the correct RPC port.\nUse \"bitcoin-cli -help\" for "+
			"more info. (%w)", host, port, err)
	}
	defer resp.Body.Close()
	return readReply(resp)
}

func readReply(resp *http.Response) (any, error) {
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return nil, errors.New("Authorization failed: Incorrect rpcuser or rpcpassword")
	case http.StatusForbidden:
		return nil, errors.New("Server response: HTTP error 403: not allowed")
	case http.StatusServiceUnavailable:
		return nil, fmt.Errorf("Server response: %s", data)
	}
	v, err := jsonrpc.ParseValue(data)
	reply, ok := v.(jsonrpc.Object)
	if err != nil || !ok {
		return nil, fmt.Errorf("couldn't parse reply from server (HTTP status %d)", resp.StatusCode)
	}
	if e, ok := reply.Get("error").(jsonrpc.Object); ok {
		code, _ := e.Get("code").(json.Number)
		n, _ := code.Int64()
		text, _ := e.Get("message").(string)
		return nil, &jsonrpc.Error{Code: jsonrpc.Code(n), Message: text}
	}
	return reply.Get("result"), nil
}

// credentials returns the name and password: the configured ones, or those of the node's cookie.
func (c *cli) credentials() (user, password string, err error) {
	if password = c.o.String("rpcpassword", ""); password != "" {
		return c.o.String("rpcuser", ""), password, nil
	}
	file := c.o.String("rpccookiefile", ".cookie")
	if !filepath.IsAbs(file) {
		file = filepath.Join(c.o.DataDir(), c.net.DataDir, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", "", fmt.Errorf("Could not locate RPC credentials. No authentication cookie could be "+
			"found, and RPC password is not set. See -rpcpassword and -stdinrpcpass. Configuration file: "+
			"(%s)", filepath.Join(c.o.DataDir(), "bitcoin.conf"))
	}
	user, password, _ = strings.Cut(strings.TrimSpace(string(b)), ":")
	return user, password, nil
}
