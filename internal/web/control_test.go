package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bridge/eventlog"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
)

// parts is a queue and a log with one message, number 7, in them.
type parts struct{ held int }

func (p *parts) List(_ context.Context, sel queue.Selector, limit int) ([]queue.Message, error) {
	if sel.Destination != "" && sel.Destination != "x.test" || limit == 1000 {
		return nil, nil
	}
	return []queue.Message{{ID: 7, Size: 42}}, nil
}

func (p *parts) Show(_ context.Context, id mail.ID) (queue.Message, error) {
	if id != 7 {
		return queue.Message{}, fmt.Errorf("message %s: %w", id, queue.ErrNotFound)
	}
	return queue.Message{ID: id, Size: 42}, nil
}

func (p *parts) Trace(ctx context.Context, what string, _ int) ([]queue.Message, error) {
	if what != "<a b@c>" {
		return nil, errors.New("asked for " + what)
	}
	return p.List(ctx, queue.Selector{}, 0)
}

func (p *parts) Hold(_ context.Context, sel queue.Selector) (int, error) {
	if !sel.All {
		return 0, errors.New("a selector that picks everything must say so")
	}
	p.held++
	return p.held, nil
}

func (p *parts) Retry(context.Context, queue.Selector) (int, error)   { return 1, nil }
func (p *parts) Release(context.Context, queue.Selector) (int, error) { return 2, nil }
func (p *parts) Drop(context.Context, queue.Selector) (int, error)    { return 3, nil }
func (p *parts) Stats() queue.Stats                                   { return queue.Stats{Messages: 1} }
func (p *parts) Checkpoint() ([]byte, error)                          { return []byte("checkpoint\n"), nil }
func (p *parts) Key() string                                          { return "key" }

func (p *parts) Proof(index uint64) ([]byte, error) {
	if index > 3 {
		return nil, eventlog.ErrNotFound
	}
	return fmt.Appendf(nil, "proof of %d", index), nil
}

func (p *parts) Evidence(_ context.Context, id mail.ID, msg []byte) ([]byte, error) {
	return fmt.Appendf(nil, "%s: %d octets", id, len(msg)), nil
}

func (p *parts) Audit(context.Context) (*eventlog.Audit, error) {
	return &eventlog.Audit{Origin: "x.test/tlog", Size: 4}, nil
}

// serve runs the API for the time of the test and returns a client of it.
func serve(t *testing.T) *Client {
	t.Helper()
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := new(parts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&Control{Queue: p, Log: p}).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return NewClient(dir)
}

func TestControl(t *testing.T) {
	c := serve(t)
	ctx := context.Background()
	id := mail.ID(7).String()
	for _, x := range []struct {
		name, method, path string
		query              url.Values
		body               any
		want, err          string
	}{
		{name: "list", method: "POST", path: "/v1/queue/list", body: queue.Selector{Destination: "x.test"}, want: `"size":42`},
		{name: "limit", method: "POST", path: "/v1/queue/list", query: url.Values{"limit": {"1000"}}, body: queue.Selector{}, want: "null"},
		{name: "show", method: "GET", path: "/v1/queue/show/" + id, want: `"id":"` + id + `"`},
		{name: "show a stranger", method: "GET", path: "/v1/queue/show/" + mail.ID(8).String(), err: "not found"},
		{name: "show nonsense", method: "GET", path: "/v1/queue/show/xyz", err: `queue id "xyz"`},
		{name: "trace", method: "GET", path: "/v1/trace", query: url.Values{"what": {"<a b@c>"}}, want: `"size":42`},
		{name: "stats", method: "GET", path: "/v1/queue/stats", want: `"messages":1`},
		{name: "hold", method: "POST", path: "/v1/queue/hold", body: queue.Selector{All: true}, want: "1"},
		{name: "hold without saying what", method: "POST", path: "/v1/queue/hold", body: queue.Selector{}, err: "must say so"},
		{name: "drop", method: "POST", path: "/v1/queue/drop", body: queue.Selector{ID: 7}, want: "3"},
		{name: "unknown member", method: "POST", path: "/v1/queue/drop", body: map[string]int{"idd": 7}, err: "unknown field"},
		{name: "acting by GET", method: "GET", path: "/v1/queue/drop", err: "Method Not Allowed"},
		{name: "no such thing", method: "GET", path: "/v1/nothing", err: "404"},
		{name: "checkpoint", method: "GET", path: "/v1/log/checkpoint", want: "checkpoint\n"},
		{name: "key", method: "GET", path: "/v1/log/key", want: "key\n"},
		{name: "proof", method: "GET", path: "/v1/log/proof", query: url.Values{"index": {"3"}}, want: "proof of 3"},
		{name: "proof of what is not there", method: "GET", path: "/v1/log/proof", query: url.Values{"index": {"4"}}, err: "not in the log"},
		{name: "proof of nonsense", method: "GET", path: "/v1/log/proof", query: url.Values{"index": {"x"}}, err: "not a number"},
		{name: "audit", method: "GET", path: "/v1/log/audit", want: `"origin":"x.test/tlog"`},
		{name: "evidence", method: "POST", path: "/v1/evidence/" + id, body: bytes.NewReader(make([]byte, 99)), want: ": 99 octets"},
	} {
		got, err := c.Do(ctx, x.method, x.path, x.query, x.body)
		switch {
		case x.err != "" && (err == nil || !strings.Contains(err.Error(), x.err)):
			t.Errorf("%s: %q, %v; want an error with %q", x.name, got, err, x.err)
		case x.err == "" && (err != nil || !strings.Contains(string(got), x.want)):
			t.Errorf("%s: %q, %v; want %q", x.name, got, err, x.want)
		}
	}
}

func TestSocketIsPrivateAndSingle(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	if err := os.WriteFile(path, nil, 0o644); err != nil { // left behind by a node that was killed
		t.Fatal(err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	if _, err := Listen(dir); err == nil || !strings.Contains(err.Error(), "running there already") {
		t.Errorf("a second node: %v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	_, err := NewClient(t.TempDir()).Do(context.Background(), http.MethodGet, "/v1/queue/stats", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "is `tallypost serve` running?") {
		t.Error(err)
	}
}
