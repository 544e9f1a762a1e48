// Package vectors finds the foreign test vectors that the tests read. It is for tests only.
package vectors

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Path returns the file or folder of this name among the vectors: below $TALLYPOST_VECTORS, or below
// ../shared/vectors beside the checkout. Where the variable is set a missing file fails the test, so that
// a machine that should have the vectors cannot pass without; else it skips the test.
func Path(t testing.TB, name string) string {
	t.Helper()
	root, must := os.LookupEnv("TALLYPOST_VECTORS")
	if !must {
		_, here, _, _ := runtime.Caller(0)
		root = filepath.Join(filepath.Dir(here), "../../../shared/vectors")
	}
	p := filepath.Join(root, filepath.FromSlash(name))
	if _, err := os.Stat(p); err == nil {
		return p
	}
	if must {
		t.Fatalf("no vectors at %s", p)
	}
	t.Skipf("no vectors at %s: set TALLYPOST_VECTORS", p)
	return ""
}

// Read returns the content of a file among the vectors; see Path.
func Read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(Path(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
