package web

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/mail/queue"
)

type fakeStats struct {
	Queue
	stats queue.Stats
}

func (f fakeStats) Stats() queue.Stats { return f.stats }

type fakeBitcoin struct{ status BitcoinStatus }

func (f fakeBitcoin) Status() BitcoinStatus { return f.status }

// TestSite looks at page and metrics of a Bitcoin half in each state.
func TestSite(t *testing.T) {
	tip := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name          string
		status        BitcoinStatus
		page, metrics []string // that are there
		not           []string // of the page
	}{
		{"off", BitcoinStatus{Mode: "off", State: BitcoinOff},
			[]string{"<td>off</td>", "<td>3</td>", "<th>Recipients deferred</th><td>2</td>"},
			[]string{`tallypost_bitcoin_mode{mode="off",network=""} 1`, "tallypost_queue_messages 3",
				`tallypost_queue_recipients{state="deferred"} 2`, "go_goroutines"},
			[]string{"State", "<progress"}},
		{"syncing", BitcoinStatus{Mode: "full", State: BitcoinSyncing, Network: "main", Progress: 0.125,
			Doing: "Synchronizing blocks  12.5%", Height: 100, Headers: 900, Tip: "00ff", TipTime: tip, Peers: 8},
			[]string{`<progress max="100" value="12.5">12.5 %`, "100 of 900", "00ff, 2026-01-02 03:04:05 UTC",
				"Synchronizing blocks  12.5%"},
			[]string{"tallypost_bitcoin_progress_ratio 0.125", `tallypost_bitcoin_state{state="syncing"} 1`,
				`tallypost_bitcoin_state{state="ready"} 0`, "tallypost_bitcoin_headers 900",
				"tallypost_bitcoin_peers 8"}, nil},
		{"failed", BitcoinStatus{Mode: "external", State: BitcoinFailed, Error: "<script>"},
			[]string{`class="failed">failed: &lt;script&gt;`}, []string{`tallypost_bitcoin_state{state="failed"} 1`},
			[]string{"<script>", "Tip"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Site{Hostname: "mx.x.test", Log: slog.New(slog.DiscardHandler), Bitcoin: fakeBitcoin{c.status},
				Queue: fakeStats{stats: queue.Stats{Messages: 3, States: map[queue.State]int{"deferred": 2}}}}
			h, err := s.handler()
			if err != nil {
				t.Fatal(err)
			}
			page, metrics := get(t, h, "/", "127.0.0.1:8080", 200), get(t, h, "/metrics", "mx.x.test", 200)
			for _, w := range c.page {
				if !strings.Contains(page, w) {
					t.Errorf("the page has no %q:\n%s", w, page)
				}
			}
			for _, w := range c.not {
				if strings.Contains(page, w) {
					t.Errorf("the page has %q", w)
				}
			}
			for _, w := range c.metrics {
				if !strings.Contains(metrics, w) {
					t.Errorf("metrics lack %q:\n%s", w, metrics)
				}
			}
			get(t, h, "/", "evil.test", http.StatusMisdirectedRequest)
			get(t, h, "/", "[::1]:80", 200)
			get(t, h, "/other", "localhost", 404)
		})
	}
}

func get(t *testing.T, h http.Handler, path, host string, want int) string {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", path, nil)
	r.Host = host
	h.ServeHTTP(w, r)
	if w.Code != want {
		t.Errorf("%s of %s: %d, want %d", path, host, w.Code, want)
	}
	return w.Body.String()
}

// TestSiteEnds: what Serve began has ended when it returns.
func TestSiteEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Site{Log: slog.New(slog.DiscardHandler), Queue: fakeStats{}, Bitcoin: fakeBitcoin{}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, []net.Listener{l}) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
