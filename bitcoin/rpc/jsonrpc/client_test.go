package jsonrpc

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestClient calls a server that answers as the row says.
func TestClient(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   string // of the result, or of the error behind "!"
	}{
		{"result", 200, `{"jsonrpc":"2.0","result":{"a":[1,"x"]},"id":1}`, `{"a":[1,"x"]}`},
		{"null", 200, `{"result":null,"error":null,"id":1}`, "null"},
		{"refused", 500, `{"result":null,"error":{"code":-8,"message":"Block height out of range"},"id":1}`,
			"!-8 Block height out of range"},
		{"refused by 2.0", 200, `{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":1}`,
			"!-32601 Method not found"},
		{"wrong password", 401, "", "!Authorization failed: Incorrect rpcuser or rpcpassword"},
		{"not allowed", 403, "", "!Server response: HTTP error 403: not allowed"},
		{"busy", 503, "Work queue depth exceeded", "!Server response: Work queue depth exceeded"},
		{"no JSON", 200, "<html>", "!couldn't parse reply from server (HTTP status 200)"},
		{"no object", 404, "[]", "!couldn't parse reply from server (HTTP status 404)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked string
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				user, password, _ := r.BasicAuth()
				asked = fmt.Sprintf("%s %s:%s %s", r.Method, user, password, b)
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}))
			defer s.Close()
			client := Client{URL: s.URL, User: "u", Password: "p"}
			v, err := client.Call(t.Context(), "getblockhash", []any{7})
			got := string(AppendValue(nil, v))
			var e *Error
			switch {
			case errors.As(err, &e):
				got = fmt.Sprintf("!%d %s", e.Code, e.Message)
			case err != nil:
				got = "!" + err.Error()
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if want := `POST u:p {"jsonrpc":"2.0","id":1,"method":"getblockhash","params":[7]}`; asked != want {
				t.Errorf("asked %s, want %s", asked, want)
			}
		})
	}
	_, err := (&Client{URL: "http://127.0.0.1:1/"}).Call(t.Context(), "stop", []any{})
	if err == nil || !strings.Contains(err.Error(), "connect") {
		t.Errorf("nobody listens: %v", err)
	}
}
