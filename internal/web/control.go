// Package web is the operator's door into a running node.
//
// Control is a small HTTP API on a Unix socket below the data directory, which only the node's own user
// can open; the command line speaks it. Requests and answers are JSON. The package decides nothing: it
// calls the parts of the node.
package web

import (
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
	"strings"
	"time"

	"github.com/tallypost/tallypost/bridge/eventlog"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// SocketName is the name of the control socket below the data directory.
const SocketName = "control.sock"

// maxRequest bounds the body of a request, in octets. What is largest is a message, for evidence.
const maxRequest = 256 << 20

// Queue is what the API needs of the queue.
type Queue interface {
	List(ctx context.Context, sel queue.Selector, limit int) ([]queue.Message, error)
	Show(ctx context.Context, id mail.ID) (queue.Message, error)
	Trace(ctx context.Context, what string, limit int) ([]queue.Message, error)
	Retry(ctx context.Context, sel queue.Selector) (int, error)
	Hold(ctx context.Context, sel queue.Selector) (int, error)
	Release(ctx context.Context, sel queue.Selector) (int, error)
	Drop(ctx context.Context, sel queue.Selector) (int, error)
	Stats() queue.Stats
}

// Log is what the API needs of the event log.
type Log interface {
	// Checkpoint returns the signed checkpoint of the whole log.
	Checkpoint() ([]byte, error)
	// Proof returns the entry at index as a C2SP tlog-proof under the present checkpoint.
	Proof(index uint64) ([]byte, error)
	// Evidence returns the evidence file for a message. message is any copy of it that ends in the octets
	// as they were received; empty leaves it to the node to find one.
	Evidence(ctx context.Context, id mail.ID, message []byte) ([]byte, error)
	// Key returns the key that checkpoints are verified with, as golang.org/x/mod/sumdb/note writes it.
	Key() string
	// Audit verifies the whole log against itself.
	Audit(ctx context.Context) (*eventlog.Audit, error)
}

// Control serves the API.
type Control struct {
	Queue   Queue
	Log     Log
	Bitcoin Bitcoin
}

// Listen opens the control socket below dir. One that a dead node left behind is replaced.
func Listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, SocketName)
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: a node is running there already", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}

// Serve answers until ctx ends.
func (c *Control) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: c.handler(), ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- srv.Shutdown(grace)
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func (c *Control) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/queue/stats", answer(func(r *http.Request) (any, error) {
		return c.Queue.Stats(), nil
	}))
	mux.HandleFunc("GET /v1/bitcoin", answer(func(r *http.Request) (any, error) {
		return c.Bitcoin.Status(), nil
	}))
	mux.HandleFunc("POST /v1/queue/list", answer(func(r *http.Request) (any, error) {
		sel, err := selector(r)
		if err != nil {
			return nil, err
		}
		return c.Queue.List(r.Context(), sel, number(r, "limit"))
	}))
	mux.HandleFunc("GET /v1/queue/show/{id}", answer(func(r *http.Request) (any, error) {
		id, err := mail.ParseID(r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		return c.Queue.Show(r.Context(), id)
	}))
	mux.HandleFunc("GET /v1/trace", answer(func(r *http.Request) (any, error) {
		return c.Queue.Trace(r.Context(), r.FormValue("what"), number(r, "limit"))
	}))
	for name, act := range map[string]func(context.Context, queue.Selector) (int, error){
		"retry": c.Queue.Retry, "hold": c.Queue.Hold, "release": c.Queue.Release, "drop": c.Queue.Drop} {
		mux.HandleFunc("POST /v1/queue/"+name, answer(func(r *http.Request) (any, error) {
			sel, err := selector(r)
			if err != nil {
				return nil, err
			}
			return act(r.Context(), sel)
		}))
	}
	mux.HandleFunc("GET /v1/log/checkpoint", octets(func(r *http.Request) ([]byte, error) {
		return c.Log.Checkpoint()
	}))
	mux.HandleFunc("GET /v1/log/proof", octets(func(r *http.Request) ([]byte, error) {
		var index uint64
		if _, err := fmt.Sscan(r.FormValue("index"), &index); err != nil {
			return nil, fmt.Errorf("index %q is not a number", r.FormValue("index"))
		}
		return c.Log.Proof(index)
	}))
	mux.HandleFunc("GET /v1/log/key", octets(func(r *http.Request) ([]byte, error) {
		return []byte(c.Log.Key() + "\n"), nil
	}))
	mux.HandleFunc("GET /v1/log/audit", answer(func(r *http.Request) (any, error) {
		return c.Log.Audit(r.Context())
	}))
	mux.HandleFunc("POST /v1/evidence/{id}", octets(func(r *http.Request) ([]byte, error) {
		id, err := mail.ParseID(r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		msg, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxRequest))
		if err != nil {
			return nil, err
		}
		return c.Log.Evidence(r.Context(), id, msg)
	}))
	return mux
}

func selector(r *http.Request) (sel queue.Selector, err error) {
	dec := json.NewDecoder(io.LimitReader(r.Body, maxRequest))
	dec.DisallowUnknownFields()
	err = dec.Decode(&sel)
	return sel, err
}

func number(r *http.Request, name string) int {
	var n int
	fmt.Sscan(r.FormValue(name), &n)
	return n
}

func answer(fn func(*http.Request) (any, error)) http.HandlerFunc {
	return octets(func(r *http.Request) ([]byte, error) {
		v, err := fn(r)
		if err != nil {
			return nil, err
		}
		return json.Marshal(v)
	})
}

func octets(fn func(*http.Request) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := fn(r)
		switch {
		case errors.Is(err, queue.ErrNotFound) || errors.Is(err, eventlog.ErrNotFound):
			http.Error(w, err.Error(), http.StatusNotFound)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
		default:
			w.Write(b)
		}
	}
}

// Client speaks to a running node's control socket.
type Client struct {
	http *http.Client
	path string
}

// NewClient returns a client of the node whose data directory this is.
func NewClient(dir string) *Client {
	path := filepath.Join(dir, SocketName)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Do sends a request and returns the octets of the answer. body is nil, an io.Reader, or what JSON is made
// of. Where no node answers the error says so.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, body any) ([]byte, error) {
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		in = b
	default:
		r, w := io.Pipe()
		go func() { w.CloseWithError(json.NewEncoder(w).Encode(b)) }()
		in = r
	}
	target := url.URL{Scheme: "http", Host: "node", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), in)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no node answers at %s: is `tallypost serve` running? (%w)", c.path, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(io.LimitReader(resp.Body, 2*maxRequest))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimRight(string(out), "\n"))
	}
	return out, nil
}
