package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tallypost/tallypost/test/bench/chainfile"
)

// task is what a process is to do.
type task struct {
	mode    string // import or connect
	file    *chainfile.File
	cache   int  // MiB
	assume  bool // scripts below File.Assume are not run
	profile string
}

// contestant is a program that is measured.
type contestant struct {
	name    string
	command func(t task, dir string) *exec.Cmd // nil where it does not do that
	tip     func(dir string) (string, error)   // the tip that an import left; nil: it prints that itself
	absent  string                             // why it is not measured
	scripts bool                               // it differs from the first in scripts alone
}

// result is what a run took.
type result struct {
	wall  time.Duration // of the process
	cpu   time.Duration // of all its threads
	peak  int64         // octets of resident memory, 0 where the system does not tell
	times latencies
}

// latencies are what a child prints.
type latencies struct {
	Tip     string
	Unknown []time.Duration // blocks none of whose transactions was seen before
	Known   []time.Duration // blocks all of whose transactions were
	Accepts []time.Duration // into the mempool, for all transactions of a block; if measured
}

func contestants() ([]contestant, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	native := ours(self, "tallypost, own curve", "native")
	native.scripts = true
	return []contestant{ours(self, "tallypost", "decred"), btcd(), core(self), native}, nil
}

func ours(self, name, engine string) contestant {
	return contestant{name: name, command: func(t task, dir string) *exec.Cmd {
		return exec.Command(self, "-child.file", t.file.Path, "-child.tail", t.file.Tail,
			"-child.first", t.file.First, "-child.dir", dir, "-child.assume", t.assumed(), "-child.engine", engine,
			"-dbcache", strconv.Itoa(t.cache), "-cpuprofile", t.profile, t.mode)
	}}
}

// assumed returns the hash of the block whose ancestors may be taken for valid, or 0.
func (t task) assumed() string {
	if t.assume {
		return t.file.Assume
	}
	return "0"
}

// btcd is built from the module that the tests with other implementations have.
func btcd() contestant {
	c := contestant{name: "btcd"}
	program := filepath.Join(*work, "btcdimport")
	build := exec.Command("go", "build", "-o", program, "./btcdimport")
	build.Dir = "test/oracle"
	if out, err := build.CombinedOutput(); err != nil {
		c.absent = fmt.Sprintf("btcd cannot be built: %v: %s", err, firstLine(out))
		return c
	}
	c.command = func(t task, dir string) *exec.Cmd {
		return exec.Command(program, "-mode", t.mode, "-file", t.file.Path, "-tail", t.file.Tail,
			"-dir", dir, "-cache", strconv.Itoa(t.cache),
			"-checkpoint", t.assumed(), "-height", strconv.Itoa(t.file.Height))
	}
	return c
}

// core is a bitcoind whose path the environment has. It runs as it comes, with as many threads for scripts
// as there are processors (-par) and its default of 32 MiB for signatures and scripts that were valid, but
// without network and RPC, and without the checks of itself that it makes on regtest alone.
func core(self string) contestant {
	c := contestant{name: "Bitcoin Core", tip: coreTip}
	program := os.Getenv("BITCOIND_REF")
	if program == "" {
		c.absent = "BITCOIND_REF is not set"
		return c
	}
	c.command = func(t task, dir string) *exec.Cmd {
		if t.mode == "import" {
			return exec.Command(program, append(coreArguments(t.file.Path, dir, t.assumed(), t.cache),
				"-stopafterblockimport", "-server=0")...)
		}
		return exec.Command(self, "-child.core", program, "-child.file", t.file.Path, "-child.tail", t.file.Tail,
			"-child.dir", dir, "-child.assume", t.assumed(), "-dbcache", strconv.Itoa(t.cache), "core")
	}
	return c
}

// coreTip returns the last tip that the log of a bitcoind names: one that refuses the blocks of a file ends
// without a complaint.
func coreTip(dir string) (string, error) {
	log, err := os.ReadFile(filepath.Join(dir, "regtest", "debug.log"))
	if err != nil {
		return "", err
	}
	const before = "UpdateTip: new best="
	at := bytes.LastIndex(log, []byte(before))
	if at < 0 {
		return "", errors.New("its debug.log names no tip")
	}
	hash, _, _ := bytes.Cut(log[at+len(before):], []byte(" "))
	return string(hash), nil
}

// errLate says that a process was not done within the limit.
var errLate = errors.New("not done in time")

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(bytes.TrimSpace(b)), "\n")
	return line
}

// run does a task in an empty directory.
func (c *contestant) run(t task) (r result, err error) {
	dir, err := os.MkdirTemp(*work, "data-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	cmd := c.command(t, dir)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return r, err
	}
	late := time.AfterFunc(*limit, func() { cmd.Process.Kill() })
	err = cmd.Wait()
	r.wall = time.Since(start)
	if !late.Stop() {
		return r, errLate
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w: %s", c.name, err, firstLine(complaint.Bytes()))
	}
	r.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	r.peak = peak(cmd.ProcessState)
	if c.tip != nil && t.mode == "import" {
		r.times.Tip, err = c.tip(dir)
	} else if err = json.Unmarshal(out.Bytes(), &r.times); err != nil {
		err = fmt.Errorf("%w: %s", err, firstLine(out.Bytes()))
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", c.name, err)
	}
	if r.times.Tip != t.file.Tip {
		return r, fmt.Errorf("%s: the tip is %s, not %s", c.name, r.times.Tip, t.file.Tip)
	}
	return r, nil
}
