package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

func (a *API) controlMethods() []jsonrpc.Method {
	return []jsonrpc.Method{
		{Category: "control", Name: "getrpcinfo", Run: run(a.getRPCInfo),
			Doc: "Returns details of the RPC server: the calls that run, and where the log is."},
		{Category: "control", Name: "help", Params: "command:s?", Run: run(a.help),
			Doc: "List all commands, or get help for a specified command."},
		{Category: "control", Name: "logging", Params: "include:a? exclude:a?",
			Usage: `( ["include_category",...] ["exclude_category",...] )`, Run: run(a.logging),
			Doc: "Gets and sets the logging configuration. When called without an argument, returns the list " +
				"of categories with status that are currently being debug logged or not. When called with " +
				"arguments, adds or removes categories from debug logging and return the lists above." +
				a.loggingHelp()},
		{Category: "control", Name: "stop", Params: "wait:i?", Usage: " ", Run: a.stop,
			Doc: "Request a graceful shutdown."},
		{Category: "control", Name: "uptime", Run: run(a.uptime),
			Doc: "Returns the total uptime of the server in seconds."},
		{Category: "control", Name: "getmemoryinfo", Params: "mode:s?", Run: run(a.memoryInfo),
			Doc: "Returns an object containing information about memory usage."},
		{Category: "hidden", Name: "setmocktime", Params: "timestamp:i", Run: run(a.setMockTime),
			Doc: "Set the local time to given timestamp (-regtest only)."},
		{Category: "hidden", Name: "mockscheduler", Params: "delta_time:i", Run: run(a.mockScheduler),
			Doc: "Bump the scheduler into the future (-regtest only)."},
		{Category: "hidden", Name: "echo", Params: echoParams, Run: run(echo),
			Doc: "Simply echo back the input arguments. This command is for testing.\n\n" +
				"It will return an internal bug report when arg9='trigger_internal_bug' is passed."},
		{Category: "hidden", Name: "echojson", Params: echoParams, Run: run(echo),
			Doc: "Simply echo back the input arguments. This command is for testing.\n\n" +
				"It will return an internal bug report when arg9='trigger_internal_bug' is passed."},
		{Category: "hidden", Name: "echoipc", Params: "arg:s", Run: run(func(c call) (any, error) {
			return c.String(0, ""), nil
		}), Doc: "Echo back the input argument. This command is for testing."},
		{Category: "hidden", Name: "syncwithvalidationinterfacequeue", Run: run(a.syncQueue),
			Doc: "Waits for the validation interface queue to catch up on everything that was there " +
				"when we entered this function."},
	}
}

// bugArgument as the last one makes echo fail as a method with a bug does: for tests of what becomes of that.
const bugArgument = "trigger_internal_bug"

const echoParams = "arg0:v? arg1:v? arg2:v? arg3:v? arg4:v? arg5:v? arg6:v? arg7:v? arg8:v? arg9:v?"

func echo(c call) (any, error) {
	if c.String(9, "") == bugArgument {
		panic(fmt.Sprintf("request.params[9].get_str() != %q", bugArgument))
	}
	out := []any{}
	for i := range c.Len() {
		out = append(out, c.Any(i))
	}
	return out, nil
}

// loggingHelp lists the categories.
func (a *API) loggingHelp() string {
	if a.cfg.Logging == nil {
		return ""
	}
	names := slices.Sorted(maps.Keys(a.cfg.Logging.Categories()))
	return "\n\nThe valid logging categories are: " + strings.Join(names, ", ") + "\nIn addition, the " +
		"following are available as category names with special meanings:\n  - \"all\",  \"1\" : represent " +
		"all logging categories."
}

func (a *API) getRPCInfo(call) (any, error) {
	active := []any{}
	for _, r := range a.cfg.Server.Running() {
		active = append(active, object{{"method", r.Method}, {"duration", r.For.Microseconds()}})
	}
	return object{{"active_commands", active}, {"logpath", a.cfg.LogFile}}, nil
}

func (a *API) help(c call) (any, error) {
	if c.String(0, "") == "dump_all_command_conversions" {
		return a.cfg.Server.Conversions(), nil
	}
	return a.cfg.Server.Help(c.String(0, "")), nil
}

func (a *API) logging(c call) (any, error) {
	if a.cfg.Logging == nil {
		return nil, fail(jsonrpc.MiscError, "no log")
	}
	for i, on := range []bool{true, false} {
		for _, v := range c.Array(i) {
			name, _ := v.(string)
			if !a.cfg.Logging.Enable(name, on) {
				return nil, fail(jsonrpc.InvalidParameter, "unknown logging category %s", name)
			}
		}
	}
	categories := a.cfg.Logging.Categories()
	names := make([]string, 0, len(categories))
	for name := range categories {
		names = append(names, name)
	}
	slices.Sort(names)
	var out object
	for _, name := range names {
		out.Set(name, categories[name])
	}
	return out, nil
}

func (a *API) stop(ctx context.Context, c call) (any, error) {
	a.cfg.Stop()
	if ms := c.Int(0, 0); ms > 0 {
		time.Sleep(min(time.Duration(ms)*time.Millisecond, time.Minute))
	}
	return "Tallypost stopping", nil
}

func (a *API) uptime(call) (any, error) {
	return a.now().Unix() - a.cfg.Started.Unix(), nil
}

func (a *API) memoryInfo(c call) (any, error) {
	switch mode := c.String(0, "stats"); mode {
	case "stats":
		// Nothing is locked: Core keeps the keys of wallets there, and this node has none.
		return object{{"locked", object{{"used", int64(0)}, {"free", int64(0)}, {"total", int64(0)},
			{"locked", int64(0)}, {"chunks_used", int64(0)}, {"chunks_free", int64(0)}}}}, nil
	case "mallocinfo":
		return nil, fail(jsonrpc.InvalidParameter, "mallocinfo mode not available")
	default:
		return nil, fail(jsonrpc.InvalidParameter, "unknown mode %s", mode)
	}
}

func (a *API) setMockTime(c call) (any, error) {
	if !a.net.MockableTime {
		return nil, fail(jsonrpc.MiscError,
			"setmocktime is for regression testing (-regtest mode) only")
	}
	t := c.Int(0, 0)
	const most = int64(1<<63-1) / int64(time.Second)
	if t < 0 || t > most {
		return nil, fail(jsonrpc.InvalidParameter, "Mocktime must be in the range [0, %d], not %d.", most, t)
	}
	if t == 0 {
		a.cfg.Clock.SetMock(time.Time{})
	} else {
		a.cfg.Clock.SetMock(time.Unix(t, 0))
	}
	return nil, nil
}

func (a *API) mockScheduler(c call) (any, error) {
	if !a.net.MockableTime {
		return nil, fail(jsonrpc.MiscError,
			"mockscheduler is for regression testing (-regtest mode) only")
	}
	d := c.Int(0, 0)
	if d <= 0 || d > 3600 {
		return nil, fail(jsonrpc.MiscError, "delta_time must be between 1 and 3600 seconds (1 hr)")
	}
	if a.p2p != nil {
		a.p2p.MockForward(time.Duration(d) * time.Second)
	}
	return nil, nil
}

// syncQueue returns at once: a call that changes the chain returns after everybody has been told.
func (a *API) syncQueue(call) (any, error) { return nil, nil }

func jsonInt(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return i, err == nil
}
