package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/tallypost/tallypost/internal/web"
	"github.com/tallypost/tallypost/test/peer"
)

const (
	tallypostAddr = "127.0.0.1:12601"
	postfixAddr   = "127.0.0.1:12602"
	sinkAddr      = "127.0.0.1:12603"
)

// server is one of the two under test, running.
type server struct {
	name  string
	addr  string
	rcpt  string
	pid   int
	slow  bool // minutes pass until it has as much to hold as the other takes in seconds
	stop  func() error
	empty func() error // waits until nothing is left in the queue; nil where mail stays
}

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
	return func() { cmd.Process.Kill(); cmd.Wait() }, peer.Await(sinkAddr)
}

// startTallypost starts the program with the event log on, as it always is.
func startTallypost(folder, job string) (*server, error) {
	next, goesOn := map[string]string{"relay": sinkAddr, "local": ""}[job]
	if !goesOn {
		next = "127.0.0.1:9" // nobody is there: mail stays
	}
	config := fmt.Sprintf(`hostname = "tallypost.test"
domains = ["local.test"]
data_dir = %q
[smtp]
listen = [%q]
relay_from = ["127.0.0.0/8"]
max_connections = %d
[submission]
listen = []
listen_tls = []
[dns]
servers = ["127.0.0.1:9"]
[relay]
smarthost = %q
`, filepath.Join(folder, "data"), tallypostAddr, *idle+1000, next)
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
	if goesOn {
		control := web.NewClient(filepath.Join(folder, "data"))
		s.empty = func() error {
			return await(func() bool {
				out, err := control.Do(context.Background(), http.MethodGet, "/v1/queue/stats", nil, nil)
				return err == nil && bytes.Contains(out, []byte(`"messages":0,`))
			})
		}
	}
	return s, peer.Await(tallypostAddr)
}

func startPostfix(folder, job string) (*server, error) {
	main := map[string]string{"mydestination": "local.test", "local_recipient_maps": "", "defer_transports": "",
		"virtual_mailbox_domains": "", "relayhost": "[127.0.0.1]:12603"}
	switch job {
	case "queue", "growth":
		main["defer_transports"] = "smtp"
	case "idle":
		chain, err := certificate(folder)
		if err != nil {
			return nil, err
		}
		main["smtpd_tls_chain_files"] = chain
		main["smtpd_tls_security_level"] = "may"
		main["smtpd_client_connection_count_limit"] = "0"
		main["default_process_limit"] = strconv.Itoa(*idle + 100)
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
	s := &server{name: "Postfix", addr: postfixAddr, rcpt: rcpt(job), pid: pid, slow: true, stop: p.Stop}
	if job == "relay" || job == "local" {
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

// certificate writes a key and a certificate signed by itself, as Tallypost makes one for itself.
func certificate(folder string) (file string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"postfix.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	file = filepath.Join(folder, "chain.pem")
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...)
	return file, os.WriteFile(file, text, 0o600)
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
