package web

import (
	"context"
	_ "embed"
	"errors"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/tallypost/tallypost/mail/queue"
)

// maxSiteConns bounds the connections to the status page.
const maxSiteConns = 100

// Site is the page that shows how a node is, and the same for Prometheus under /metrics. There is no log-in:
// it tells no names, addresses or subjects, only numbers, and should be reached by the operator alone.
type Site struct {
	Hostname string // that it may be asked for by; addresses and localhost it may always
	Queue    Queue
	Bitcoin  Bitcoin
	Log      *slog.Logger
}

//go:embed status.html
var statusHTML string

// Serve answers at the listeners until ctx ends.
func (s *Site) Serve(ctx context.Context, listeners []net.Listener) error {
	handler, err := s.handler()
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug)}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- srv.Serve(netutil.LimitListener(l, maxSiteConns)) }()
	}
	for range listeners {
		if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
			srv.Close()
		}
	}
	return err
}

func (s *Site) handler() (http.Handler, error) {
	page, err := template.New("status").Funcs(template.FuncMap{
		"percent": func(f float64) float64 { return 100 * f },
		"time":    func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	}).Parse(statusHTML)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newMetrics(s.Queue, s.Bitcoin)} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		var b strings.Builder
		if err := page.Execute(&b, struct {
			Hostname string
			Queue    queue.Stats
			Bitcoin  BitcoinStatus
		}{s.Hostname, s.Queue.Stats(), s.Bitcoin.Status()}); err != nil {
			s.Log.Error("the status page cannot be made", "err", err)
			http.Error(w, "the page cannot be made, see the log", http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		w.Write([]byte(b.String()))
	})
	return s.checkHost(mux), nil
}

// checkHost refuses requests for names that are not ours: a page elsewhere whose name is made to lead to this
// address could read ours otherwise (DNS rebinding).
func (s *Site) checkHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err != nil && !strings.EqualFold(host, "localhost") && !strings.EqualFold(host, s.Hostname) {
			http.Error(w, "not a name of this server: use its address, localhost or its host name",
				http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
