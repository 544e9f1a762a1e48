// Command footprint measures the memory of a node at rest: the mail half alone, and beside it a Bitcoin half
// that keeps the headers of a chain as long as the main network's. make bench-footprint runs it.
//
// The headers come from a peer of its own making: they are of regtest, where proof of work costs nothing.
// What is told is the memory that the process alone has (Pss where the system says it, else the resident
// set) once it has been idle, and its peak.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tallypost/tallypost/internal/web"
)

func main() {
	log.SetFlags(0)
	binary := flag.String("binary", "./tallypost", "the program to measure")
	headers := flag.Int("headers", 930_000, "headers of the chain, about those of the main network at the end of 2025")
	idle := flag.Duration("idle", 20*time.Second, "rest before it is measured")
	flag.Parse()
	if err := run(*binary, *headers, *idle); err != nil {
		log.Fatal("footprint: ", err)
	}
}

func run(binary string, headers int, idle time.Duration) error {
	fmt.Printf("making a chain of %d headers\n", headers)
	peer, err := newPeer(headers)
	if err != nil {
		return err
	}
	defer peer.close()
	fmt.Printf("%-40s %10s %10s %10s\n", "", "idle MiB", "peak MiB", "budget MiB")
	for _, c := range []struct {
		name    string
		section string
		height  int
		budget  int
	}{
		{"mail", "mode = \"off\"", 0, 64},
		{fmt.Sprintf("mail and %d headers", headers), fmt.Sprintf("mode = \"headers\"\nnetwork = \"regtest\"\n"+
			"options = [\"connect=%s\", \"listen=0\", \"listenonion=0\", \"rpcport=%d\"]", peer.addr(), freePort()),
			headers, 256},
	} {
		dir, err := os.MkdirTemp("", "tallypost-footprint-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		for _, when := range []string{"at first", "started again"} {
			m, err := measure(dir, binary, c.section, c.height, idle)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			verdict := ""
			if m.idle > c.budget {
				verdict = "  OVER"
			}
			fmt.Printf("%-40s %10d %10d %10d%s\n", c.name+", "+when, m.idle, m.peak, c.budget, verdict)
		}
	}
	return nil
}

// memory is in MiB.
type memory struct{ idle, peak int }

// measure runs a node until it has so many headers and has rested.
func measure(dir, binary, section string, height int, idle time.Duration) (m memory, err error) {
	config := filepath.Join(dir, "tallypost.toml")
	text := fmt.Sprintf("hostname = \"mx.x.test\"\ndomains = [\"x.test\"]\ndata_dir = \"data\"\nsmtp.listen = "+
		"[\"127.0.0.1:%d\"]\nsubmission.listen = []\nsubmission.listen_tls = []\ndns.servers = [\"127.0.0.1:1\"]\n"+
		"[bitcoin]\n%s\n", freePort(), section)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return m, err
	}
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Minute)
	defer stop()
	node := exec.CommandContext(ctx, binary, "serve", "-c", config)
	node.Stderr = os.Stderr
	if os.Getenv("VERBOSE") == "" {
		node.Stderr = nil
	}
	if err := node.Start(); err != nil {
		return m, err
	}
	defer node.Wait()
	defer node.Process.Signal(os.Interrupt)
	client := web.NewClient(filepath.Join(dir, "data"))
	for {
		var s web.BitcoinStatus
		b, err := client.Do(ctx, "GET", "/v1/bitcoin", nil, nil)
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err == nil && s.Height >= height {
			break
		}
		if ctx.Err() != nil {
			return m, fmt.Errorf("the node is at %d of %d: %w", s.Height, height, ctx.Err())
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(idle)
	return readMemory(node.Process.Pid)
}

// readMemory reads what Linux says of a process (proc(5)).
func readMemory(pid int) (m memory, err error) {
	field := func(file, name string) int {
		b, e := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if e != nil {
			err = e
			return 0
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == name+":" {
				n, _ := strconv.Atoi(f[1])
				return (n + 1023) / 1024
			}
		}
		return 0
	}
	m.peak = field("status", "VmHWM")
	if m.idle = field("smaps_rollup", "Pss"); err != nil || m.idle == 0 {
		err = nil
		m.idle = field("status", "VmRSS")
	}
	return m, err
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
