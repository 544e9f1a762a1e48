package oracle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

const (
	rpcUser     = "user"
	rpcPassword = "password"
	// patience bounds every wait: a loaded machine is slow, a test that hangs is worse.
	patience = 90 * time.Second
)

// build builds a program, from a module's directory.
func build(t *testing.T, dir, program, pkg string) string {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", program, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return program
}

// daemon is a node that runs as a process, with JSON-RPC.
type daemon struct {
	t        *testing.T
	name     string
	dir      string
	p2p, rpc string // addresses
	logs     []string
	ended    chan struct{}

	mine func(n int) error
	peer func(what, addr string) error // add or drop
}

// newDaemon gives a node its directory and addresses. The listeners are closed only when both ports
// are known, or they might be one.
func newDaemon(t *testing.T, name string) *daemon {
	t.Helper()
	d := &daemon{t: t, name: name, dir: t.TempDir(), ended: make(chan struct{})}
	for _, addr := range []*string{&d.p2p, &d.rpc} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		*addr = l.Addr().String()
	}
	return d
}

// start runs the program until the end of the test, and waits until it answers.
func (d *daemon) start(command []string) {
	d.t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+d.dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(d.ended)
	}()
	d.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.ended:
		case <-time.After(patience):
			d.t.Errorf("%s does not end", d.name)
			cmd.Process.Kill()
			<-d.ended
		}
		if d.t.Failed() {
			d.t.Logf("%s said:\n%s", d.name, lastPart(out.Bytes()))
			for _, log := range d.logs {
				b, _ := os.ReadFile(log)
				d.t.Logf("log of %s:\n%s", d.name, lastPart(b))
			}
		}
	})
	await(d.t, d.name+" answers", func() (bool, error) {
		select {
		case <-d.ended:
			return false, fmt.Errorf("%s ended: %s", d.name, lastPart(out.Bytes()))
		default:
			return d.call("getblockcount", nil) == nil, nil
		}
	})
}

func lastPart(b []byte) []byte { return b[max(0, len(b)-12_000):] }

// await waits until something is so.
func await(t *testing.T, what string, is func() (bool, error)) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		ok, err := is()
		if ok {
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func (p *pair) await(what string, is func() (bool, error)) {
	p.t.Helper()
	await(p.t, what, is)
}

// call calls a method. result may be nil.
func (d *daemon) call(method string, result any, params ...any) error {
	if params == nil {
		params = []any{}
	}
	question, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method,
		"params": params})
	if err != nil {
		return err
	}
	r, err := http.NewRequest("POST", "http://"+d.rpc, bytes.NewReader(question))
	if err != nil {
		return err
	}
	r.SetBasicAuth(rpcUser, rpcPassword)
	r.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", method, d.name, err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s of %s: %w", method, d.name, err)
	}
	var answer struct {
		Result json.RawMessage
		Error  *struct{ Message string }
	}
	err = json.Unmarshal(b, &answer)
	switch {
	case err != nil:
		return fmt.Errorf("%s of %s: %s, %s", method, d.name, response.Status, lastPart(b))
	case answer.Error != nil:
		return fmt.Errorf("%s of %s: %s", method, d.name, answer.Error.Message)
	case result == nil:
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

// dropAll closes all connections of a node like Core.
func (d *daemon) dropAll() error {
	var peers []struct{ ID int }
	if err := d.call("getpeerinfo", &peers); err != nil {
		return err
	}
	var errs []error
	for _, peer := range peers {
		errs = append(errs, d.call("disconnectnode", nil, "", peer.ID))
	}
	return errors.Join(errs...)
}

// dropAllBtcd closes all connections of btcd.
func (d *daemon) dropAllBtcd() error {
	var peers []struct{ ID int }
	if err := d.call("getpeerinfo", &peers); err != nil {
		return err
	}
	var errs []error
	for _, peer := range peers {
		errs = append(errs, d.call("node", nil, "disconnect", fmt.Sprint(peer.ID)))
	}
	return errors.Join(errs...)
}
