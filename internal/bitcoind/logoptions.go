package bitcoind

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

// logLevels are those that -loglevel may name.
var logLevels = []string{"info", "debug", "trace"}

// logging reads what goes to the log, and where that is.
func (c *Config) logging(o *options.Options) error {
	c.LogFile = c.file(o, "debuglogfile", "debug.log")
	c.LogConsole = o.Bool("printtoconsole", !o.Bool("daemon", false) && !o.Bool("daemonwait", false))
	c.logStyle = logStyle{
		stamps: o.Bool("logtimestamps", true), micros: o.Bool("logtimemicros", false),
		always: o.Bool("loglevelalways", false), threads: o.Bool("logthreadnames", false),
		sources: o.Bool("logsourcelocations", false),
	}
	c.LogUnlimited = !o.Bool("logratelimit", true)
	c.Debug, c.DebugExclude = o.List("debug"), o.List("debugexclude")
	// What stands before "none" does not count.
	for i := len(c.Debug) - 1; i >= 0; i-- {
		if d := c.Debug[i]; d == "0" || d == "none" {
			c.Debug = c.Debug[i+1:]
			break
		}
	}
	for _, list := range []struct {
		option string
		names  []string
	}{{"debug", c.Debug}, {"debugexclude", c.DebugExclude}} {
		for _, d := range list.names {
			if !slices.Contains(categories, d) && !slices.Contains([]string{"", "0", "1", "all", "none"}, d) {
				return fmt.Errorf("Unsupported logging category -%s=%s.", list.option, d)
			}
		}
	}
	c.LogLevels = o.List("loglevel")
	for _, level := range c.LogLevels {
		if err := checkLogLevel(level); err != nil {
			return err
		}
	}
	c.ShrinkLog = o.Bool("shrinkdebugfile", len(c.Debug) == 0)
	c.PIDFile = c.file(o, "pid", "bitcoind.pid")
	return nil
}

// setLogging tells a log what was read.
func (c *Config) setLogging(l *debugLog) {
	for _, d := range c.Debug {
		l.Enable(d, true)
	}
	for _, d := range c.DebugExclude {
		l.Enable(d, false)
	}
	values := map[string]slog.Level{"info": slog.LevelInfo, "debug": slog.LevelDebug, "trace": levelTrace}
	for _, s := range c.LogLevels {
		category, level, specific := strings.Cut(s, ":")
		if !specific {
			category, level = "", s
		}
		l.setLevel(category, values[level])
	}
}

// checkLogLevel refuses a level, or a category and its level, that there is not.
func checkLogLevel(s string) error {
	category, level, specific := strings.Cut(s, ":")
	if !specific {
		if !slices.Contains(logLevels, s) {
			return fmt.Errorf("Unsupported global logging level -loglevel=%s. Valid values: %s.", s,
				strings.Join(logLevels, ", "))
		}
		return nil
	}
	if !slices.Contains(categories, category) || !slices.Contains(logLevels, level) {
		return fmt.Errorf("Unsupported category-specific logging level -loglevel=%s. Expected "+
			"-loglevel=<category>:<loglevel>. Valid categories: %s. Valid loglevels: %s.", s,
			strings.Join(categories, ", "), strings.Join(logLevels, ", "))
	}
	return nil
}
