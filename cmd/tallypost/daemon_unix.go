//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// daemonVar tells a process that it is the daemon, and by which file it says that it has started.
const daemonVar = "TALLYPOST_DAEMON"

// daemonFile is the first file behind the standard ones.
const daemonFile = 3

// daemonize runs this program once more, apart from the terminal, as a process that is not waited for; with wait
// it returns once that one answers calls (Bitcoin Core bitcoind.cpp, AppInit). parent is false in the daemon
// itself, which calls ready when it has started.
func daemonize(wait bool) (parent bool, ready func(), err error) {
	if os.Getenv(daemonVar) != "" {
		os.Unsetenv(daemonVar) // what the daemon runs is none
		pipe := os.NewFile(daemonFile, "ready")
		return false, func() {
			pipe.Write([]byte{1}) // the one who started it may have gone
			pipe.Close()
		}, nil
	}
	path, err := os.Executable()
	if err != nil {
		return true, nil, fmt.Errorf("fork_daemon() failed: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return true, nil, fmt.Errorf("fork_daemon() failed: %w", err)
	}
	defer read.Close()
	fmt.Println("Bitcoin Core starting")
	cmd := exec.Cmd{Path: path, Args: os.Args, Env: append(os.Environ(), daemonVar+"="+strconv.Itoa(daemonFile)),
		ExtraFiles: []*os.File{write}, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	err = cmd.Start()
	write.Close()
	if err != nil {
		return true, nil, fmt.Errorf("fork_daemon() failed: %w", err)
	}
	if wait {
		if _, err := io.ReadFull(read, make([]byte, 1)); err != nil {
			return true, nil, errDaemon
		}
	}
	return true, nil, cmd.Process.Release()
}

// errDaemon is reported without more words: the log has them.
var errDaemon = errors.New("Error during initialization - check debug.log for details")
