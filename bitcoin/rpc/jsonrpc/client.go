package jsonrpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxReply bounds an answer, in octets: the largest block described with all that it spends is below.
const maxReply = 512 << 20

// Client calls the methods of a node, ours or bitcoind. The zero HTTP client is http.DefaultClient.
type Client struct {
	URL            string // as http://127.0.0.1:8332/
	User, Password string
	HTTP           *http.Client
}

// Call calls a method. params is an Object or a []any. What the node refuses is an *Error.
func (c *Client) Call(ctx context.Context, method string, params any) (any, error) {
	body := AppendValue(nil, Object{{"jsonrpc", "2.0"}, {"id", 1}, {"method", method}, {"params", params}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(c.User, c.Password)
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readReply(resp)
}

// readReply returns the result of a call (Bitcoin Core bitcoin-cli.cpp, CallRPC and ConnectAndCallRPC).
func readReply(resp *http.Response) (any, error) {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return nil, err
	}
	switch {
	case len(data) > maxReply:
		return nil, fmt.Errorf("the reply is larger than %d octets", maxReply)
	case resp.StatusCode == http.StatusUnauthorized:
		return nil, errors.New("Authorization failed: Incorrect rpcuser or rpcpassword")
	case resp.StatusCode == http.StatusForbidden:
		return nil, errors.New("Server response: HTTP error 403: not allowed")
	case resp.StatusCode == http.StatusServiceUnavailable:
		return nil, fmt.Errorf("Server response: %s", data)
	}
	v, err := ParseValue(data)
	reply, ok := v.(Object)
	if err != nil || !ok {
		return nil, fmt.Errorf("couldn't parse reply from server (HTTP status %d)", resp.StatusCode)
	}
	if e, ok := reply.Get("error").(Object); ok {
		code, _ := e.Get("code").(json.Number)
		n, _ := code.Int64()
		text, _ := e.Get("message").(string)
		return nil, &Error{Code: Code(n), Message: text}
	}
	return reply.Get("result"), nil
}

// ParseCookie returns the name and password that a cookie file holds.
func ParseCookie(b []byte) (user, password string) {
	user, password, _ = strings.Cut(strings.TrimSpace(string(b)), ":")
	return user, password
}
