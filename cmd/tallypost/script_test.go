package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tallypost/tallypost/internal/dns"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tallypost": func() { os.Exit(run()) }})
}

// TestScript runs the stories of testdata/script: each is a dialogue with the real program.
// Beside the usual commands there are
//
//	code N COMMAND...   runs a command that must exit with N
//	zone FILE           serves a zone file, and sets $DNS to the server's address
//
// and $SMTP, $SUBMIT, $TLS, $WEB, $P2P, $RPC and $RPC2 are addresses of loopback on which nobody listens.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			for _, name := range []string{"SMTP", "SUBMIT", "TLS", "WEB", "P2P", "RPC", "RPC2"} {
				addr, err := freeAddress()
				if err != nil {
					return err
				}
				env.Setenv(name, addr)
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"code": wantCode,
			"zone": serveZone,
		},
	})
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// wantCode is the command "code".
func wantCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// serveZone is the command "zone".
func serveZone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: zone FILE")
	}
	zone, err := dns.ParseZone(".", ts.ReadFile(args[0]))
	ts.Check(err)
	server, err := dns.Listen("127.0.0.1:0", zone)
	ts.Check(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	ts.Defer(func() {
		stop()
		if err := <-done; err != nil {
			fmt.Fprintln(os.Stderr, "zone:", err)
		}
	})
	ts.Setenv("DNS", server.Addr().String())
}
