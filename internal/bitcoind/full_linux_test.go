package bitcoind

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestFullDisk lets the disk become full while blocks are imported, and at the start. The node says so and
// ends; once there is room it goes on.
func TestFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts several nodes")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "bootstrap.dat")
	tip := bootstrap(t, file, spending)
	data := filepath.Join(dir, "data")
	must(t, os.Mkdir(data, 0o700))
	room := func(size string, flags uintptr) {
		t.Helper()
		if err := syscall.Mount("tmpfs", data, "tmpfs", flags, "size="+size); err != nil {
			t.Skipf("no file system of one's own: %v", err)
		}
	}
	run := func() (code int, text string) {
		t.Helper()
		cmd := importing(data, file)
		var out bytes.Buffer
		cmd.Stderr = &out
		if err := cmd.Run(); cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), out.String()
	}
	room("40m", 0)
	defer syscall.Unmount(data, 0)
	base := filepath.Join(data, "regtest")
	if code, text := run(); code != 1 || text != "Error: Disk space is low for \""+base+"\"\n" {
		t.Errorf("exit code %d, %q", code, text)
	}
	room("60m", syscall.MS_REMOUNT)
	code, text := run()
	if want := "Error: " + fatalText + "Disk space is too low!\n"; code != 1 || text != want {
		t.Errorf("exit code %d, %q, want %q", code, text, want)
	}
	room("300m", syscall.MS_REMOUNT)
	if code, text := run(); code != 0 || text != "" {
		t.Errorf("with room: exit code %d, %q", code, text)
	}
	inOrder(t, data)
	if sum := coinsOf(t, data); sum.tip != tip {
		t.Errorf("the tip is %v, want %v", sum.tip, tip)
	}
}
