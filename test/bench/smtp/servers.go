package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tallypost/tallypost/test/peer"
)

const (
	tallypostAddr = "127.0.0.1:12601"
	postfixAddr   = "127.0.0.1:12602"
	sinkAddr      = "127.0.0.1:12603"
)

// startSink starts smtp-sink where the job relays, and returns what stops it.
func startSink(job string) (func(), error) {
	if job != "relay" {
		return func() {}, nil
	}
	path, err := lookPath("smtp-sink")
	if err != nil {
		return nil, fmt.Errorf("%w: smtp-sink is not installed", peer.ErrAbsent)
	}
	cmd := exec.Command(path, sinkAddr, "1000")
	if os.Getuid() == 0 {
		cmd.Args = []string{path, "-u", "nobody", sinkAddr, "1000"}
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	time.Sleep(200 * time.Millisecond)
	return func() { cmd.Process.Kill(); cmd.Wait() }, nil
}

// startTallypost starts the program with the event log on, as it always is.
func startTallypost(folder, job string) (*server, error) {
	config := fmt.Sprintf(`hostname = "tallypost.test"
domains = ["local.test"]
data_dir = %q
[smtp]
listen = [%q]
relay_from = ["127.0.0.0/8"]
[submission]
listen = []
listen_tls = []
[dns]
servers = ["127.0.0.1:9"]
[relay]
smarthost = %q
`, filepath.Join(folder, "data"), tallypostAddr, map[string]string{
		"queue": "127.0.0.1:9", "relay": sinkAddr, "local": ""}[job])
	file := filepath.Join(folder, "tallypost.toml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	add := exec.Command(*binary, "account", "add", "user@local.test", "--generate", "-c", file)
	if out, err := add.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", add, err, out)
	}
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(*binary, "serve", "-c", file)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{name: "Tallypost", addr: tallypostAddr, rcpt: rcpt(job), pid: cmd.Process.Pid}
	s.stop = func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		return cmd.Wait()
	}
	if job != "queue" {
		s.empty = func() error {
			return await(func() bool {
				out, err := exec.Command(*binary, "queue", "stats", "-c", file).Output()
				return err == nil && strings.Contains(string(out), `"messages": 0,`)
			})
		}
	}
	return s, peer.Await(tallypostAddr)
}

func startPostfix(folder, job string) (*server, error) {
	main := map[string]string{"mydestination": "local.test", "local_recipient_maps": "", "defer_transports": "",
		"virtual_mailbox_domains": "", "relayhost": "[127.0.0.1]:12603"}
	switch job {
	case "queue":
		main["defer_transports"] = "smtp"
	case "local":
		box := filepath.Join(folder, "boxes")
		if err := os.Mkdir(box, 0o777); err != nil {
			return nil, err
		}
		if err := os.Chmod(box, 0o777); err != nil {
			return nil, err
		}
		main["mydestination"] = ""
		main["virtual_mailbox_domains"] = "local.test"
		main["virtual_mailbox_maps"] = "static:user/"
		main["virtual_mailbox_base"] = box
		main["virtual_uid_maps"] = "static:65534"
		main["virtual_gid_maps"] = "static:65534"
	}
	p, err := peer.StartPostfix(peer.PostfixConfig{Dir: folder, Addr: postfixAddr, Main: main})
	if err != nil {
		return nil, err
	}
	pid, err := p.PID()
	if err != nil {
		return nil, err
	}
	s := &server{name: "Postfix", addr: postfixAddr, rcpt: rcpt(job), pid: pid, stop: p.Stop}
	if job != "queue" {
		s.empty = func() error {
			return await(func() bool {
				left := 0
				for _, q := range []string{"incoming", "active", "deferred"} {
					filepath.WalkDir(filepath.Join(folder, "spool", q), func(_ string, d os.DirEntry, err error) error {
						if err == nil && !d.IsDir() {
							left++
						}
						return nil
					})
				}
				return left == 0
			})
		}
	}
	return s, nil
}

func rcpt(job string) string {
	if job == "local" {
		return "user@local.test"
	}
	return "user@remote.test"
}

// await polls until done is true, for five minutes at most.
func await(done func() bool) error {
	for range 5 * 60 * 20 {
		if done() {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("the queue did not run empty within five minutes")
}
