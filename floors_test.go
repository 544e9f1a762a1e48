package tallypost_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tallypost/tallypost"

// floors is the edge table of the product: which package may import which of ours. Groups are named by
// "@"; "@ground" and "@nouns" are allowed wherever their floor lies below. A package that is missing here,
// or that imports what its line does not name, fails TestFloors. Do not change this table to make a build
// pass: change it when the design has changed, and say so in ARCHITECTURE.md.
var floors = map[string][]string{
	// 0 ground
	"internal/clock":      {},
	"internal/durable":    {"internal/clock"},
	"internal/dns":        {},
	"internal/memnet":     {"internal/clock"},
	"internal/vectors":    {}, // tests only
	"internal/statusline": {},

	// 1 nouns
	"mail":    {},
	"bitcoin": {},

	// 2 rules
	"mail/smtp":             {"@ground", "mail"},
	"mail/dkim":             {"@ground", "mail"},
	"mail/dmarc":            {"@ground", "mail"},
	"mail/tlspolicy":        {"@ground", "mail"},
	"mail/dsn":              {"@ground", "mail"},
	"mail/srs":              {"mail"},
	"mail/milter":           {},
	"mail/spf":              {"@ground"},
	"bitcoin/secp":          {},
	"bitcoin/script":        {"bitcoin", "bitcoin/secp"},
	"bitcoin/signing":       {"bitcoin", "bitcoin/secp", "bitcoin/script"},
	"bitcoin/wire":          {"bitcoin", "bitcoin/secp", "bitcoin/secp/ellswift"},
	"bitcoin/secp/ellswift": {},

	// 3 rules²
	"bitcoin/consensus": {"bitcoin", "bitcoin/secp", "bitcoin/script"},
	"bitcoin/chaintest": {"bitcoin", "bitcoin/script", "bitcoin/consensus"}, // tests only
	"bridge/tlog":       {"mail"},
	"bridge/evidence":   {"mail", "bitcoin", "bridge/tlog"},

	// 4 keepers
	"mail/queue":             {"@ground", "@mailrules", "mail"},
	"mail/queue/queuetest":   {"mail", "mail/queue"}, // tests only
	"mail/milter/miltertest": {},                     // tests only
	"mail/account":           {"@ground", "@mailrules", "mail"},
	"mail/mailbox":           {"@ground", "@mailrules", "mail"},
	"mail/reputation":        {"@ground", "mail"},
	"mail/keyring":           {"@ground", "@mailrules", "mail"},
	"mail/relay":             {"@ground", "@mailrules", "mail", "mail/queue"},
	"bitcoin/blockstore":     {"@ground", "@bitcoinrules", "bitcoin"},
	"bitcoin/miniscript":     {"bitcoin/script"},
	"bitcoin/descriptor":     {"bitcoin", "bitcoin/secp", "bitcoin/script", "bitcoin/miniscript"},
	"bitcoin/mempool":        {"@ground", "@bitcoinrules", "bitcoin"},
	"bridge/eventlog":        {"@ground", "mail", "mail/queue", "bridge/tlog"},

	// 5 movers
	"mail/intake": {"@ground", "@mailrules", "mail", "mail/queue", "mail/account", "mail/mailbox",
		"mail/reputation"},
	"mail/reporting": {"@ground", "@mailrules", "mail", "mail/queue"},
	"mail/records":   {"@ground", "@mailrules", "mail", "mail/keyring"},

	"bitcoin/chain": {"@ground", "@bitcoinrules", "bitcoin", "bitcoin/blockstore",
		"bitcoin/mempool"},

	// 6 movers²
	"bitcoin/index": {"@ground", "@bitcoinrules", "bitcoin", "bitcoin/blockstore", "bitcoin/chain"},

	// 6 movers²
	"bitcoin/p2p/addrbook": {"bitcoin", "bitcoin/wire"},
	"bitcoin/p2p/proxy":    {"bitcoin/wire"},
	"bitcoin/p2p/tor":      {"@ground", "bitcoin/wire"},
	"bitcoin/p2p": {"@ground", "@bitcoinrules", "bitcoin", "bitcoin/blockstore", "bitcoin/mempool",
		"bitcoin/chain", "bitcoin/p2p/addrbook", "bitcoin/p2p/proxy"},
	"bitcoin/miner": {"@bitcoinrules", "bitcoin", "bitcoin/mempool", "bitcoin/chain"},

	// 8 doors
	"bitcoin/rpc/jsonrpc": {"bitcoin"},
	"bitcoin/rpc/zmq":     {},
	"bitcoin/rpc": {"@ground", "@bitcoinrules", "bitcoin", "bitcoin/blockstore", "bitcoin/descriptor", "bitcoin/mempool",
		"bitcoin/chain", "bitcoin/index", "bitcoin/p2p", "bitcoin/p2p/addrbook", "bitcoin/miner",
		"bitcoin/rpc/jsonrpc"},
	"internal/web": {"@ground", "@mailrules", "mail", "mail/queue", "mail/account", "bridge/eventlog",
		"bridge/evidence", "bridge/tlog"},

	// 9 house
	"internal/node":             {"*"},
	"internal/bitcoind":         {"*"},
	"internal/bitcoind/options": {},
	"internal/bitcoincli":       {"bitcoin", "bitcoin/rpc", "bitcoin/rpc/jsonrpc", "internal/bitcoind/options"},

	// beside: tests and benchmarks against others
	"test/peer":            {},
	"test/bench/smtp":      {"test/peer", "internal/web"},
	"test/bench/chainfile": {"@bitcoinrules", "bitcoin", "bitcoin/blockstore", "bitcoin/chain"},
	"test/bench/chain": {"@bitcoinrules", "bitcoin", "bitcoin/blockstore", "bitcoin/mempool",
		"bitcoin/chain", "test/bench/chainfile"},
	"test/bench/footprint": {"bitcoin", "bitcoin/wire", "internal/web"},
	"test/functional":      {},

	// 11 gate
	"cmd/tallypost": {"*"},
}

// groups name the packages of a floor that a higher one may use as a whole.
var groups = map[string][]string{
	"@ground":       {"internal/clock", "internal/durable", "internal/dns", "internal/memnet"},
	"@bitcoinrules": {"bitcoin/secp", "bitcoin/script", "bitcoin/signing", "bitcoin/wire", "bitcoin/consensus"},
	"@mailrules": {"mail/smtp", "mail/dkim", "mail/dmarc", "mail/tlspolicy", "mail/dsn", "mail/srs", "mail/milter",
		"mail/spf"},
}

func TestFloors(t *testing.T) {
	violations, err := checkFloors(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

// TestFloorsCatchesViolations plants an upward import, a sideways one between the halves and a package
// that the table does not know into a tree of its own, and wants each to be found.
func TestFloorsCatchesViolations(t *testing.T) {
	plant := map[string]string{
		"mail/mail.go":             `import _ "` + module + `/mail/queue"`,
		"mail/smtp/server.go":      `import _ "` + module + `/bitcoin/wire"`,
		"mail/unheardof/x.go":      ``,
		"bitcoin/script/fine.go":   `import _ "` + module + `/bitcoin/secp"`,
		"bitcoin/script/x_test.go": `import _ "` + module + `/internal/node"`,
	}
	root := t.TempDir()
	for name, imports := range plant {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("package p\n"+imports+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	violations, err := checkFloors(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mail/mail.go: mail must not import mail/queue",
		"mail/smtp/server.go: mail/smtp must not import bitcoin/wire",
		"mail/unheardof/x.go: package mail/unheardof is not in the table of floors",
	}
	if !slices.Equal(violations, want) {
		t.Errorf("violations:\n%s\nwant:\n%s", strings.Join(violations, "\n"), strings.Join(want, "\n"))
	}
}

// checkFloors parses the imports of every source file below root, nested modules and tests excepted, and
// returns what the table forbids, sorted.
func checkFloors(root string) ([]string, error) {
	var violations []string
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipDir(root, file, d)
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		found, err := checkFile(file, filepath.ToSlash(rel))
		violations = append(violations, found...)
		return err
	})
	slices.Sort(violations)
	return violations, err
}

func skipDir(root, dir string, d fs.DirEntry) error {
	if dir == root {
		return nil
	}
	if strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func checkFile(file, rel string) ([]string, error) {
	pkg := path.Dir(rel)
	allowed, known := floors[pkg]
	if !known {
		return []string{fmt.Sprintf("%s: package %s is not in the table of floors", rel, pkg)}, nil
	}
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var violations []string
	for _, spec := range f.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		to, ours := strings.CutPrefix(name, module+"/")
		if ours && !mayImport(allowed, to) {
			violations = append(violations, fmt.Sprintf("%s: %s must not import %s", rel, pkg, to))
		}
	}
	return violations, nil
}

func mayImport(allowed []string, to string) bool {
	for _, a := range allowed {
		if a == to || a == "*" || slices.Contains(groups[a], to) {
			return true
		}
	}
	return false
}
