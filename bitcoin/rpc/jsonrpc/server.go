package jsonrpc

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config describes a Server.
type Config struct {
	Credentials []Credential
	// Whitelist says which methods a user may call. Who is not in it may call all, or none where
	// WhitelistDefault is set.
	Whitelist        map[string]map[string]bool
	WhitelistDefault bool
	AllowIPs         []netip.Prefix // that may connect, beside the machine itself
	Timeout          time.Duration  // for a request to come; 0 is 30 seconds
	Workers          int            // calls at a time; 0 is 16
	Queue            int            // calls that wait for a worker; 0 is 64
	Handler          Handler        // of other paths; may be nil
	Log              *slog.Logger   // nil for none
}

// Server answers calls. It may be used by many goroutines.
type Server struct {
	cfg     Config
	methods map[string]*Method
	workers chan struct{}

	mu      sync.Mutex        // guards what follows
	warmup  string            // what the node is doing before it can answer; empty afterwards
	waiting int               // calls that run or wait
	running map[*Call]started // calls that run
}

type started struct {
	method string
	at     time.Time
}

// Running is a call that is under way.
type Running struct {
	Method string
	For    time.Duration
}

// NewServer returns a server that is in warm-up.
func NewServer(cfg Config, methods []Method) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 16
	}
	if cfg.Queue <= 0 {
		cfg.Queue = 64
	}
	s := &Server{
		cfg:     cfg,
		methods: make(map[string]*Method, len(methods)),
		workers: make(chan struct{}, cfg.Workers),
		running: map[*Call]started{},
		warmup:  "RPC server started",
	}
	s.Add(methods)
	return s
}

// Add adds methods. It must not be called once the warm-up is over.
func (s *Server) Add(methods []Method) {
	for _, m := range methods {
		m.params = parseParams(m.Params)
		s.methods[m.Name] = &m
	}
}

// SetWarmup says what the node is doing, for those who ask too early; with an empty text the node answers.
func (s *Server) SetWarmup(doing string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warmup = doing
}

// Warmup returns what the node is doing before it answers; empty once it does.
func (s *Server) Warmup() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.warmup
}

// Running returns the calls that are under way.
func (s *Server) Running() []Running {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Running
	for _, r := range s.running {
		out = append(out, Running{r.method, time.Since(r.at)})
	}
	return out
}

// answer is the answer to an HTTP request.
func (s *Server) answer(ctx context.Context, req *http.Request, body []byte) Response {
	release, ok := s.acquire(ctx)
	if !ok {
		s.cfg.Log.Warn("Request rejected because http work queue depth exceeded, it can be increased " +
			"with the -rpcworkqueue= setting")
		return Response{Status: http.StatusServiceUnavailable, Body: []byte("Work queue depth exceeded")}
	}
	defer release()
	if req.URL.Path == "/" || strings.HasPrefix(req.RequestURI, "/wallet/") {
		return s.answerRPC(ctx, req, body)
	}
	if s.cfg.Handler != nil {
		if r, ok := s.cfg.Handler(ctx, req, body); ok {
			return r
		}
	}
	return Response{Status: http.StatusNotFound}
}

// acquire waits for a worker; ok is false where too many wait already.
func (s *Server) acquire(ctx context.Context) (release func(), ok bool) {
	s.mu.Lock()
	full := s.waiting >= s.cfg.Workers+s.cfg.Queue
	if !full {
		s.waiting++
	}
	s.mu.Unlock()
	if full {
		return nil, false
	}
	s.workers <- struct{}{}
	return func() {
		<-s.workers
		s.mu.Lock()
		s.waiting--
		s.mu.Unlock()
	}, true
}

func (s *Server) answerRPC(ctx context.Context, req *http.Request, body []byte) Response {
	if req.Method != http.MethodPost {
		return Response{Status: http.StatusMethodNotAllowed,
			Body: []byte("JSONRPC server handles only POST requests")}
	}
	user, ok := s.authorized(req.Header.Get("Authorization"))
	if !ok {
		if req.Header.Get("Authorization") != "" {
			s.cfg.Log.Warn("ThreadRPCServer incorrect password attempt", "peer", req.RemoteAddr)
			// A quarter of a second deters guessing (Core, HTTPReq_JSONRPC).
			select {
			case <-time.After(250 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		return Response{Status: http.StatusUnauthorized,
			Headers: []string{`WWW-Authenticate: Basic realm="jsonrpc"`}}
	}
	if _, listed := s.cfg.Whitelist[user]; !listed && s.cfg.WhitelistDefault {
		s.cfg.Log.Warn("RPC User not allowed to call any methods", "user", user)
		return Response{Status: http.StatusForbidden}
	}
	v, err := ParseValue(body)
	if err != nil {
		return failure(&Request{HasID: true}, Errorf(ParseError, "Parse error"))
	}
	switch v := v.(type) {
	case Object:
		return s.single(ctx, v, user, req.RequestURI)
	case []any:
		return s.batch(ctx, v, user, req.RequestURI)
	}
	return failure(&Request{HasID: true}, Errorf(ParseError, "Top-level object parse error"))
}

func (s *Server) mayCall(user, method string) bool {
	list, listed := s.cfg.Whitelist[user]
	if listed && !list[method] {
		s.cfg.Log.Warn("RPC User not allowed to call method", "user", user, "method", method)
		return false
	}
	return true
}

func (s *Server) single(ctx context.Context, v Object, user, uri string) Response {
	r, err := ParseRequest(v)
	r.User, r.URI = user, uri
	if err == nil && !s.mayCall(user, r.Method) {
		return Response{Status: http.StatusForbidden}
	}
	var result any
	if err == nil {
		result, err = s.Call(ctx, &r)
	} else if r.V2 {
		return failure(&r, err)
	}
	switch {
	case err != nil && !r.V2:
		return failure(&r, err)
	case r.Notification():
		return Response{Status: http.StatusNoContent}
	case err != nil:
		return ok(r.reply(nil, asError(err)))
	}
	return ok(r.reply(result, nil))
}

func (s *Server) batch(ctx context.Context, list []any, user, uri string) Response {
	if _, listed := s.cfg.Whitelist[user]; listed {
		for _, v := range list {
			o, isObject := v.(Object)
			if !isObject {
				return failure(&Request{HasID: true}, Errorf(InvalidRequest, "Invalid Request object"))
			}
			if method, _ := o.Get("method").(string); !s.mayCall(user, method) {
				return Response{Status: http.StatusForbidden}
			}
		}
	}
	replies := []any{}
	for _, v := range list {
		r, err := ParseRequest(v)
		if _, isObject := v.(Object); !isObject {
			r.HasID = true
		}
		r.User, r.URI = user, uri
		var result any
		if err == nil {
			result, err = s.Call(ctx, &r)
		}
		if r.Notification() {
			continue
		}
		if err != nil {
			replies = append(replies, r.reply(nil, asError(err)))
		} else {
			replies = append(replies, r.reply(result, nil))
		}
	}
	if len(replies) == 0 && len(list) > 0 {
		return Response{Status: http.StatusNoContent}
	}
	return ok(replies)
}

func ok(v any) Response {
	return Response{Status: http.StatusOK, Type: "application/json", Body: append(AppendValue(nil, v), '\n')}
}

// failure is an error that shows as an HTTP status.
func failure(r *Request, err error) Response {
	e := asError(err)
	status := http.StatusInternalServerError
	switch e.Code {
	case InvalidRequest:
		status = http.StatusBadRequest
	case MethodNotFound:
		status = http.StatusNotFound
	}
	resp := ok(r.reply(nil, e))
	resp.Status = status
	return resp
}

// Call runs a request. A panic of the method becomes an error of this call.
func (s *Server) Call(ctx context.Context, r *Request) (result any, err error) {
	if doing := s.Warmup(); doing != "" {
		return nil, Errorf(InWarmup, "%s", doing)
	}
	m := s.methods[r.Method]
	if m == nil {
		return nil, Errorf(MethodNotFound, "Method not found")
	}
	call := &Call{Request: r, method: m}
	switch params := r.Params.(type) {
	case []any:
		call.args = params
	case Object:
		if call.args, err = m.positional(params); err != nil {
			return nil, err
		}
	}
	if err := m.check(call.args); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.running[call] = started{r.Method, time.Now()}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.running, call)
		s.mu.Unlock()
		if p := recover(); p != nil {
			s.cfg.Log.Error("panic in an RPC method", "method", r.Method, "panic", p)
			result, err = nil, Errorf(MiscError, "Internal bug detected: %v", p)
		}
	}()
	s.cfg.Log.Debug(fmt.Sprintf("ThreadRPCServer method=%s user=%s", r.Method, r.User), "cat", "rpc")
	return m.Run(ctx, call)
}

// Conversions tells of each parameter of each method its position, its name, and whether it is text, which a
// client need not convert (Core's "help dump_all_command_conversions").
func (s *Server) Conversions() []any {
	names := make([]string, 0, len(s.methods))
	for name := range s.methods {
		names = append(names, name)
	}
	slices.Sort(names)
	out := []any{}
	for _, name := range names {
		at := map[string]int{}
		i := 0
		for _, p := range s.methods[name].params {
			pos, member := at[p.Of]
			if !member {
				pos = i
				at[p.Names[0]] = i
				i++
			}
			for _, n := range p.Names {
				out = append(out, []any{name, pos, n, p.Kind == KindString || p.Kind == KindHash})
			}
		}
	}
	return out
}

// Help returns what there is to say about a method, or the list of all.
func (s *Server) Help(method string) string {
	if method != "" {
		if m := s.methods[method]; m != nil {
			return m.help()
		}
		return "help: unknown command: " + method
	}
	byCategory := map[string][]string{}
	for _, m := range s.methods {
		if m.Category != "hidden" {
			byCategory[m.Category] = append(byCategory[m.Category], m.usage())
		}
	}
	var categories []string
	for c := range byCategory {
		categories = append(categories, c)
	}
	slices.Sort(categories)
	var b strings.Builder
	for i, c := range categories {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "== %s ==\n", strings.ToUpper(c[:1])+c[1:])
		slices.Sort(byCategory[c])
		for _, u := range byCategory[c] {
			b.WriteString(u + "\n")
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
