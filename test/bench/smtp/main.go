// Command smtp measures Tallypost beside Postfix, on the same disk in one run: messages accepted and
// queued, relayed and delivered a second with the processor time of each, the memory of idle connections,
// and what a message costs as the queue grows.
//
// Postfix's smtp-source is the load, with a connection per session that is kept. The runs of the two
// servers alternate; the table, in Markdown, has medians and their ratio. A peer that is absent is "not
// measured". Load goes to loopback only.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tallypost/tallypost/test/peer"
)

var (
	rounds   = flag.Int("rounds", 3, "runs of each server and cell")
	sizes    = flag.String("sizes", "1,10,100", "message sizes, KiB")
	sessions = flag.String("sessions", "1,20,100", "sessions at a time")
	seconds  = flag.Float64("seconds", 1.5, "aim for the length of one run")
	jobs     = flag.String("jobs", "queue,relay,local,idle,growth", "what to measure")
	full     = flag.Bool("full", false, "relay and local: every size with every number of sessions; Postfix in all of growth")
	idle     = flag.Int("idle", 1000, "connections that wait, for their memory")
	growth   = flag.String("growth", "1000,10000,100000", "messages in the queue, for its cost as it grows")
	dir      = flag.String("dir", "", "folder for the queues; empty: a temporary one")
	binary   = flag.String("binary", "./tallypost", "the program to measure")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-smtp:", err)
		os.Exit(1)
	}
}

// bench is one run of the command.
type bench struct {
	work, source string // a folder; the path of smtp-source
	began        time.Time
}

func run() error {
	source, err := lookPath("smtp-source")
	if err != nil {
		fmt.Println("smtp-source (of Postfix) is not installed: not measured")
		return nil
	}
	work := *dir
	if work == "" {
		if work, err = os.MkdirTemp("", "bench-smtp-"); err != nil {
			return err
		}
		defer os.RemoveAll(work)
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	b := &bench{work: work, source: source, began: time.Now()}
	fmt.Printf("%s, %d processors, %s, %s; %s; medians of %d runs of %gs.\n\n", time.Now().Format("2006-01-02"),
		runtime.NumCPU(), processor(), kernel(), version(), *rounds, *seconds)
	fmt.Print("| | Tallypost | Postfix | ratio |\n|---|---|---|---|\n")
	todo := map[string]func() error{"queue": b.queue, "relay": func() error { return b.through("relay") },
		"local": func() error { return b.through("local") }, "idle": b.idle, "growth": b.growth}
	for job := range strings.SplitSeq(*jobs, ",") {
		measure := todo[job]
		if measure == nil {
			return fmt.Errorf("%q is no job: want queue, relay, local, idle or growth", job)
		}
		if err := measure(); err != nil {
			return fmt.Errorf("%s: %w", job, err)
		}
	}
	return nil
}

// progress says on standard error what goes on.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%4.0fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// A figure is what one run gave: messages a second or KiB, and milliseconds of processor time a message.
type figure struct{ value, cpu float64 }

// row prints a row of the table: medians and their ratio.
func row(title, format string, figures map[string][]figure) {
	cell := func(name string) (string, float64) {
		list := figures[name]
		if len(list) == 0 {
			return "not measured", 0
		}
		m := median(list, func(f figure) float64 { return f.value })
		s := fmt.Sprintf(format, m)
		if cpu := median(list, func(f figure) float64 { return f.cpu }); cpu > 0 {
			s += fmt.Sprintf(", %.2f ms", cpu)
		}
		return s, m
	}
	ours, a := cell("Tallypost")
	theirs, b := cell("Postfix")
	ratio := "-"
	if b > 0 && len(figures["Tallypost"]) > 0 {
		ratio = fmt.Sprintf("%.3g", a/b)
	}
	fmt.Printf("| %s | %s | %s | %s |\n", title, ours, theirs, ratio)
}

func median(list []figure, of func(figure) float64) float64 {
	var all []float64
	for _, f := range list {
		all = append(all, of(f))
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// starters start the servers; the runs go through them in turn.
var starters = []func(folder, job string) (*server, error){startTallypost, startPostfix}

// open starts a server with an empty queue. The server is nil where it is not installed.
func (b *bench) open(start func(folder, job string) (*server, error), job string) (*server, func() error, error) {
	folder, err := os.MkdirTemp(b.work, "run-")
	if err != nil {
		return nil, nil, err
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		return nil, nil, err
	}
	s, err := start(folder, job)
	if err != nil {
		os.RemoveAll(folder)
		if errors.Is(err, peer.ErrAbsent) {
			b.progress("%v", err)
			return nil, nil, nil
		}
		return nil, nil, err
	}
	return s, func() error { return errors.Join(s.stop(), os.RemoveAll(folder)) }, nil
}

func lookPath(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}

func numbers(list string) []int {
	var out []int
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n <= 0 {
			fmt.Fprintf(os.Stderr, "bench-smtp: %q is not a number above zero\n", s)
			os.Exit(2)
		}
		out = append(out, n)
	}
	return out
}

// processor, kernel and version say where the figures are from.
func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(b))
}

func version() string {
	path, err := lookPath("postconf")
	if err != nil {
		return "no Postfix"
	}
	out, err := exec.Command(path, "-d", "-h", "mail_version").Output()
	if err != nil {
		return "Postfix of an unknown version"
	}
	return "Postfix " + strings.TrimSpace(string(out)) + " (" + filepath.Base(path) + " -d)"
}
