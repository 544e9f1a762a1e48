package oracle

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin/script"
)

// coreOracle is Bitcoin Core's VerifyScript as a process, where somebody has one. It reads a case per
// line, as verify writes it: flags, index of the input, transaction and spent outputs; it answers
// with the number of Core's ScriptError.
type coreOracle struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

// startCore starts the program that $TALLYPOST_CORE_VERIFY names.
func startCore(t testing.TB) *coreOracle {
	t.Helper()
	program := os.Getenv("TALLYPOST_CORE_VERIFY")
	if program == "" {
		t.Skip("TALLYPOST_CORE_VERIFY names no program that judges as Core does")
	}
	cmd := exec.Command(program)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", program, err)
		}
	})
	return &coreOracle{in, bufio.NewScanner(out)}
}

// verify asks Core for the outcome of a case.
func (o *coreOracle) verify(t testing.TB, c *scriptCase) script.Code {
	t.Helper()
	var line strings.Builder
	fmt.Fprintf(&line, "%d 0 %x %d", uint64(c.flags), c.tx.Append(nil), len(c.spent))
	for _, out := range c.spent {
		digits := hex.EncodeToString(out.Script)
		if digits == "" {
			digits = "-"
		}
		fmt.Fprintf(&line, " %d %s", int64(out.Value), digits)
	}
	if _, err := fmt.Fprintln(o.in, line.String()); err != nil {
		t.Fatalf("%v\n%v", err, c)
	}
	if !o.out.Scan() {
		t.Fatalf("Core gives no answer: %v\n%v", o.out.Err(), c)
	}
	n, err := strconv.ParseUint(o.out.Text(), 10, 8)
	if err != nil {
		t.Fatal(err)
	}
	return script.Code(n)
}

// TestScriptsAsCore judges many made cases as Core does, outcome by outcome.
func TestScriptsAsCore(t *testing.T) {
	core := startCore(t)
	seed, n := uint64(1), 20_000
	if s := os.Getenv("TALLYPOST_CORE_CASES"); s != "" {
		fmt.Sscan(s, &n, &seed)
	}
	m := newScriptMaker(t, seed)
	outcomes := map[script.Code]int{}
	for i := range n {
		c := m.random()
		if i%4 == 0 {
			c = m.signed()
		}
		got := script.OK
		var failure *script.Error
		if errors.As(c.ours(), &failure) {
			got = failure.Code
		}
		outcomes[got]++
		if want := core.verify(t, c); got != want {
			t.Errorf("ours %s, Core %s\n%v", got.Name(), want.Name(), c)
		}
	}
	t.Logf("of %d cases passed %d, the others for %d reasons", n, outcomes[script.OK],
		len(outcomes)-1)
}
