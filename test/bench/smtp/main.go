// Command smtp measures accepted messages a second, Tallypost beside Postfix, on the same disk in one run.
//
// Postfix's smtp-source is the load, with a persistent connection per session. The rounds of the two
// servers are interleaved; the table has medians and their ratio. A peer that is absent prints "not
// measured". Load goes to loopback only.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tallypost/tallypost/test/peer"
)

var (
	rounds   = flag.Int("rounds", 3, "runs of each server and cell")
	sizes    = flag.String("sizes", "1024,10240", "message sizes, octets")
	sessions = flag.String("sessions", "1,20,100", "sessions at a time")
	seconds  = flag.Float64("seconds", 3, "aim for the length of one run")
	jobs     = flag.String("jobs", "queue", "what to measure: queue, relay, local")
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
	for _, job := range strings.Split(*jobs, ",") {
		if err := measure(work, source, job); err != nil {
			return fmt.Errorf("%s: %w", job, err)
		}
	}
	return nil
}

// server is one of the two under test, running.
type server struct {
	name  string
	addr  string
	rcpt  string
	pid   int
	stop  func() error
	empty func() error // waits until, or sees to it that, the queue holds nothing back
}

func lookPath(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}

// measure runs every cell of one job and prints its table.
func measure(work, source, job string) error {
	fmt.Printf("\n%s, messages a second (median of %d, CPU ms a message in brackets)\n", titles[job], *rounds)
	fmt.Printf("%-22s %20s %20s %8s\n", "", "Tallypost", "Postfix", "ratio")
	for _, size := range numbers(*sizes) {
		for _, s := range numbers(*sessions) {
			rates := make(map[string][]run1)
			for range *rounds {
				for _, start := range []func(string, string) (*server, error){startTallypost, startPostfix} {
					r, name, err := once(work, source, job, size, s, start)
					if errors.Is(err, peer.ErrAbsent) {
						continue
					}
					if err != nil {
						return err
					}
					rates[name] = append(rates[name], r)
				}
			}
			printRow(size, s, rates)
		}
	}
	return nil
}

var titles = map[string]string{
	"queue": "accept and queue, next hop held",
	"relay": "accept and relay to smtp-sink",
	"local": "accept and deliver locally",
}

// run1 is what one run gave.
type run1 struct{ rate, cpu float64 }

func printRow(size, sessions int, rates map[string][]run1) {
	cell := func(name string) (string, float64) {
		r := rates[name]
		if len(r) == 0 {
			return "not measured", 0
		}
		slices.SortFunc(r, func(a, b run1) int { return int(a.rate*1000) - int(b.rate*1000) })
		m := r[len(r)/2]
		return fmt.Sprintf("%.0f (%.2f)", m.rate, m.cpu), m.rate
	}
	ours, a := cell("Tallypost")
	theirs, b := cell("Postfix")
	ratio := "-"
	if b > 0 {
		ratio = fmt.Sprintf("%.2f", a/b)
	}
	fmt.Printf("%6d octets, %3d sess. %20s %20s %8s\n", size, sessions, ours, theirs, ratio)
}

// once starts a server with an empty queue, warms it up, loads it and stops it.
func once(work, source, job string, size, sessions int, start func(string, string) (*server, error)) (run1, string, error) {
	folder, err := os.MkdirTemp(work, "run-")
	if err != nil {
		return run1{}, "", err
	}
	defer os.RemoveAll(folder)
	if err := os.Chmod(folder, 0o755); err != nil {
		return run1{}, "", err
	}
	sink, err := startSink(job)
	if err != nil {
		return run1{}, "", err
	}
	defer sink()
	srv, err := start(folder, job)
	if err != nil {
		return run1{}, "", err
	}
	r, err := load(source, srv, size, sessions)
	return r, srv.name, errors.Join(err, srv.stop())
}

// load finds out how many messages take about the time asked for, and then measures that many.
func load(source string, srv *server, size, sessions int) (run1, error) {
	probe := max(50, 5*sessions)
	took, err := send(source, srv, size, sessions, probe)
	if err != nil {
		return run1{}, err
	}
	n := min(max(int(*seconds/took.Seconds()*float64(probe)), probe), 200_000)
	before := cpuTime(srv.pid)
	began := time.Now()
	if took, err = send(source, srv, size, sessions, n); err != nil {
		return run1{}, err
	}
	if srv.empty != nil {
		if err := srv.empty(); err != nil {
			return run1{}, err
		}
		took = time.Since(began)
	}
	cpu := cpuTime(srv.pid) - before
	return run1{rate: float64(n) / took.Seconds(), cpu: cpu.Seconds() * 1000 / float64(n)}, nil
}

func send(source string, srv *server, size, sessions, n int) (time.Duration, error) {
	cmd := exec.Command(source, "-d", "-s", strconv.Itoa(sessions), "-m", strconv.Itoa(n), "-l", strconv.Itoa(size),
		"-f", "bench@sender.test", "-t", srv.rcpt, srv.addr)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return time.Since(began), nil
}

func numbers(list string) []int {
	var out []int
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench-smtp: %q is not a number\n", s)
			os.Exit(2)
		}
		out = append(out, n)
	}
	return out
}

// cpuTime returns the processor time of a process, its dead children and its living descendants.
func cpuTime(pid int) time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that runs Go
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	parent := make(map[int]int)
	ticks := make(map[int]int64)
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// The command in brackets may hold anything; what follows it is numbers.
		_, rest, ok := strings.Cut(string(b), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 15 {
			continue
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent[id], _ = strconv.Atoi(fields[1])
		for _, f := range fields[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.ParseInt(f, 10, 64)
			ticks[id] += n
		}
	}
	var total int64
	for id := range ticks {
		for up := id; up > 1; up = parent[up] {
			if up == pid {
				total += ticks[id]
				break
			}
		}
	}
	return time.Duration(total) * tick
}
