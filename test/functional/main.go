//go:build unix

// Command functional runs Bitcoin Core's own functional tests against our binary and prints which pass.
//
// The tests are not ours and not here: -core names a source tree of Bitcoin Core, whose scripts are run as
// they are, with BITCOIND set to our program. Scripts that need Core's wallet, its tools or its build are
// left out; what is left out is said. Each script gets its own directory and ports; everything is on
// loopback.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	core    = flag.String("core", "", "source tree of Bitcoin Core")
	binary  = flag.String("binary", "./tallypost", "the program to test")
	jobs    = flag.Int("jobs", 2, "scripts at a time")
	timeout = flag.Duration("timeout", 5*time.Minute, "for one script")
	logs    = flag.String("logs", "", "directory for what the scripts print; empty: only that of failures, shortened")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	failed, err := run(ctx, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "functional:", err)
		os.Exit(2)
	}
	if failed > 0 {
		os.Exit(1)
	}
}

// runner runs scripts.
type runner struct {
	work string // directory of this run
	env  []string
}

// result is what one script came to.
type result struct {
	script, state string
	took          time.Duration
	output        []byte
}

// Core's scripts exit so.
const (
	exitPassed  = 0
	exitSkipped = 77
)

func run(ctx context.Context, scripts []string) (failed int, err error) {
	if *core == "" {
		return 0, errors.New("no source tree of Bitcoin Core: -core DIR")
	}
	if len(scripts) == 0 {
		var out int
		if scripts, out, err = list(*core); err != nil {
			return 0, err
		}
		fmt.Printf("%d scripts; %d are left out: they need Core's wallet, tools, tracepoints or IPC\n",
			len(scripts), out)
	}
	r, err := newRunner()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(r.work)
	counts := map[string]int{}
	for res := range r.all(ctx, scripts) {
		counts[res.state]++
		fmt.Printf("%-7s %s (%.0f s)\n", res.state, res.script, res.took.Seconds())
		r.keep(res)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", counts["passed"], counts["failed"], counts["skipped"])
	return counts["failed"], ctx.Err()
}

// list returns the scripts of Core's runner that need neither its wallet nor what is made with it, and how
// many others there are.
func list(tree string) (scripts []string, leftOut int, err error) {
	dir := filepath.Join(tree, "test", "functional")
	text, err := os.ReadFile(filepath.Join(dir, "test_runner.py"))
	if err != nil {
		return nil, 0, err
	}
	for _, name := range []string{"EXTENDED_SCRIPTS", "BASE_SCRIPTS"} {
		block := regexp.MustCompile(`(?s)\n` + name + ` = \[(.*?)\n\]`).FindSubmatch(text)
		if block == nil {
			return nil, 0, fmt.Errorf("test_runner.py has no %s", name)
		}
		for _, m := range regexp.MustCompile(`(?m)^\s*'([^']+)'`).FindAllSubmatch(block[1], -1) {
			scripts = append(scripts, string(m[1]))
		}
	}
	all := len(scripts)
	scripts = slices.DeleteFunc(scripts, func(s string) bool {
		file, _, _ := strings.Cut(s, " ")
		code, err := os.ReadFile(filepath.Join(dir, file))
		return err != nil || bytes.Contains(code, []byte("skip_if_no_wallet()")) ||
			strings.HasPrefix(file, "tool_") || strings.HasPrefix(file, "interface_usdt") || strings.HasPrefix(file, "interface_ipc")
	})
	return scripts, all - len(scripts), nil
}

// newRunner puts our program where the scripts look for Core's.
func newRunner() (*runner, error) {
	program, err := filepath.Abs(*binary)
	if err != nil {
		return nil, err
	}
	if _, err := exec.LookPath(program); err != nil {
		return nil, err
	}
	tree, err := filepath.Abs(*core)
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "functional-")
	if err != nil {
		return nil, err
	}
	r := &runner{work: work}
	bin := filepath.Join(work, "build", "bin")
	cli := filepath.Join(bin, "bitcoin-cli")
	config := "[environment]\nCLIENT_NAME=Bitcoin Core\n" +
		"CLIENT_BUGREPORT=https://github.com/bitcoin/bitcoin/issues\nSRCDIR=" + tree +
		"\nBUILDDIR=" + filepath.Join(work, "build") + "\nEXEEXT=\nRPCAUTH=" +
		filepath.Join(tree, "share", "rpcauth", "rpcauth.py") +
		"\n[components]\nENABLE_CLI=true\nENABLE_BITCOIND=true\nENABLE_ZMQ=true\n"
	err = errors.Join(os.MkdirAll(bin, 0o755),
		os.Symlink(program, filepath.Join(bin, "bitcoind")), os.Symlink(program, cli),
		os.WriteFile(filepath.Join(work, "config.ini"), []byte(config), 0o644))
	if *logs != "" {
		err = errors.Join(err, os.MkdirAll(*logs, 0o755))
	}
	r.env = append(os.Environ(), "BITCOIND="+filepath.Join(bin, "bitcoind"), "BITCOINCLI="+cli)
	return r, err
}

// all runs the scripts, several at a time, and gives their results as they come.
func (r *runner) all(ctx context.Context, scripts []string) <-chan result {
	todo, out := make(chan int), make(chan result)
	var workers sync.WaitGroup
	for range max(1, *jobs) {
		workers.Go(func() {
			for i := range todo {
				out <- r.one(ctx, i, scripts[i])
			}
		})
	}
	go func() {
		for i := range scripts {
			if ctx.Err() != nil {
				break
			}
			todo <- i
		}
		close(todo)
		workers.Wait()
		close(out)
	}()
	return out
}

// one runs a script. Its number decides its ports.
func (r *runner) one(ctx context.Context, number int, script string) result {
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	args := strings.Fields(script)
	id := strconv.Itoa(number)
	dir := filepath.Join(r.work, "run"+id)
	cmd := exec.CommandContext(ctx, "python3", append([]string{
		filepath.Join(*core, "test", "functional", args[0]), "--configfile=" + filepath.Join(r.work, "config.ini"),
		"--cachedir=" + filepath.Join(r.work, "cache"+id), "--tmpdir=" + dir, "--portseed=" + id,
	}, args[1:]...)...)
	cmd.Env = r.env
	// The script's nodes are of its process group, and end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	start := time.Now()
	output, err := cmd.CombinedOutput()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left of them, if anything
	}
	os.RemoveAll(dir)
	os.RemoveAll(filepath.Join(r.work, "cache"+id))
	res := result{script: script, state: "failed", took: time.Since(start), output: output}
	switch code := cmd.ProcessState.ExitCode(); {
	case err == nil && code == exitPassed:
		res.state = "passed"
	case code == exitSkipped:
		res.state = "skipped"
	}
	return res
}

// keep writes what a script printed to where it was asked for, or the end of it if it failed.
func (r *runner) keep(res result) {
	if *logs != "" {
		name := strings.ReplaceAll(res.script, " ", "_") + ".log"
		if err := os.WriteFile(filepath.Join(*logs, name), res.output, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "functional:", err)
		}
		return
	}
	if res.state == "failed" {
		lines := bytes.Split(bytes.TrimSpace(res.output), []byte("\n"))
		for _, l := range lines[max(0, len(lines)-12):] {
			fmt.Printf("    %s\n", l)
		}
	}
}
