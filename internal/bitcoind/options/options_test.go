package options

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func parse(t *testing.T, conf string, args ...string) (*Options, error) {
	t.Helper()
	o := New(Bitcoind())
	if err := o.ParseCommandLine(args, false); err != nil {
		return o, err
	}
	return o, o.ParseFile(conf, "bitcoin.conf")
}

func TestPrecedence(t *testing.T) {
	for _, row := range []struct {
		name, conf string
		args       []string
		option     string
		want       string
	}{
		{"command line over file", "maxmempool=1\n", []string{"-maxmempool=2"}, "maxmempool", "2"},
		{"last on the command line", "", []string{"-maxmempool=2", "-maxmempool=3"}, "maxmempool", "3"},
		{"first in the file", "maxmempool=1\nmaxmempool=2\n", nil, "maxmempool", "1"},
		{"section over none", "maxmempool=1\n[regtest]\nmaxmempool=2\n", nil, "maxmempool", "2"},
		{"other section", "[test]\nmaxmempool=2\n", nil, "maxmempool", "none"},
		{"prefix", "regtest.maxmempool=2\n", nil, "maxmempool", "2"},
		{"port needs its section", "port=1\n", nil, "port", "none"},
		{"negated", "", []string{"-nolisten"}, "listen", "0"},
		{"double negative", "", []string{"-nolisten=0"}, "listen", "1"},
		{"two dashes", "", []string{"--listen=0"}, "listen", "0"},
		{"comment", "maxmempool=1 # two\n", nil, "maxmempool", "1"},
	} {
		o, err := parse(t, row.conf, append(row.args, "-regtest")...)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		o.UseNetwork("regtest")
		if got := o.String(row.option, "none"); got != row.want {
			t.Errorf("%s: %s is %q, want %q", row.name, row.option, got, row.want)
		}
	}
}

func TestList(t *testing.T) {
	o, err := parse(t, "debug=net\n[regtest]\ndebug=rpc\n", "-debug=tor", "-debug=zmq")
	if err != nil {
		t.Fatal(err)
	}
	o.UseNetwork("regtest")
	if got := o.List("debug"); !slices.Equal(got, []string{"tor", "zmq", "rpc", "net"}) {
		t.Errorf("debug: %q", got)
	}
	o, _ = parse(t, "debug=net\n", "-debug=tor", "-nodebug", "-debug=zmq")
	if got := o.List("debug"); !slices.Equal(got, []string{"zmq"}) {
		t.Errorf("a negation hides what stands before it and below: %q", got)
	}
}

// The texts are Core's (feature_config_args.py).
func TestErrors(t *testing.T) {
	for _, row := range []struct{ conf, arg, want string }{
		{"", "-nosuch", "Invalid parameter -nosuch"},
		{"", "word", "Invalid command 'word'"},
		{"", "-regtest.port=1", "Invalid parameter -regtest.port=1"},
		{"", "-nodatadir", "Negating of -datadir is meaningless and therefore forbidden"},
		{"", "-includeconf=a", `-includeconf cannot be used from commandline; -includeconf="a"`},
		{"-dash=1\n", "", "parse error on line 1: -dash=1, options in configuration file must be specified without leading -"},
		{"nono\n", "", "parse error on line 1: nono, if you intended to specify a negated option, use nono=1 instead"},
		{"server=1\nrpcpassword=some#pass", "", "parse error on line 2, using # in rpcpassword can be ambiguous and should be avoided"},
		{"conf=x\n", "", "conf cannot be set in the configuration file; use includeconf= if you want to include additional config files"},
	} {
		var args []string
		if row.arg != "" {
			args = []string{row.arg}
		}
		if _, err := parse(t, row.conf, args...); err == nil || err.Error() != row.want {
			t.Errorf("%q %q: %v, want %s", row.conf, row.arg, err, row.want)
		}
	}
	o, err := parse(t, "unheardof=1\n[nonet]\n")
	if err != nil || len(o.Warnings) != 1 || len(o.UnknownSections()) != 1 {
		t.Errorf("unknown keys and sections of a file are warnings: %v %q", err, o.Warnings)
	}
}

func TestIncludedFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("bitcoin.conf", "regtest=1\nincludeconf=more.conf\n")
	write("more.conf", "uacomment=more\nincludeconf=evenmore.conf\n")
	o := New(Bitcoind())
	if err := o.ParseCommandLine([]string{"-datadir=" + dir}, false); err != nil {
		t.Fatal(err)
	}
	var warnings []string
	if err := o.ReadFiles(func(s string) { warnings = append(warnings, s) }); err != nil {
		t.Fatal(err)
	}
	if n, _ := o.Network(); n != "regtest" || o.String("uacomment", "") != "more" {
		t.Errorf("network %s, uacomment %s", n, o.String("uacomment", ""))
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "evenmore.conf") {
		t.Errorf("warnings %q", warnings)
	}
	write("bitcoin.conf", "includeconf=absent.conf\n")
	o = New(Bitcoind())
	o.ParseCommandLine([]string{"-datadir=" + dir}, false)
	if err := o.ReadFiles(nil); err == nil || err.Error() != "Failed to include configuration file absent.conf" {
		t.Error(err)
	}
}

func TestNetwork(t *testing.T) {
	for arg, want := range map[string]string{"-regtest": "regtest", "-testnet": "test", "-chain=signet": "signet",
		"-regtest=0": "main"} {
		o, _ := parse(t, "", arg)
		if n, err := o.Network(); n != want || err != nil {
			t.Errorf("%s: %s, %v", arg, n, err)
		}
	}
	o, _ := parse(t, "", "-regtest", "-testnet")
	if _, err := o.Network(); err == nil {
		t.Error("two networks")
	}
}

func FuzzConf(f *testing.F) {
	f.Add("regtest=1\n[regtest]\nport=1\nnolisten=1\n")
	f.Add("a.b.c=1\n[x\n#\nrpcpassword=a#b")
	f.Fuzz(func(t *testing.T, text string) {
		o := New(Bitcoind())
		if o.ParseFile(text, "f") != nil {
			return
		}
		o.UseNetwork("regtest")
		for _, name := range []string{"port", "listen", "debug"} {
			list, has := o.List(name), o.Has(name)
			if len(list) > 0 && !has {
				t.Errorf("%s has %d values and is not set", name, len(list))
			}
			o.Int(name, 0)
		}
	})
}

// TestEndOfOptions: behind a single dash there are no options, and those that stand there are passed over.
func TestEndOfOptions(t *testing.T) {
	for _, row := range []struct{ args, want string }{
		{"-server=0 - getblockhash -1", "getblockhash -1"},
		{"- -server=0 -x stop", "stop"},
		{"-", ""},
		{"getblockhash - 1", "getblockhash - 1"},
	} {
		o := New(Bitcoind())
		if err := o.ParseCommandLine(strings.Fields(row.args), true); err != nil || strings.Join(o.Rest, " ") != row.want {
			t.Errorf("%s: %q %v", row.args, o.Rest, err)
		}
	}
}
