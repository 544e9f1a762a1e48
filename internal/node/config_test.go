package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tallypost.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

const small = "hostname = \"mx.x.test\"\ndomains = [\"x.test\"]\ndata_dir = \"data\"\n"

func TestDefaultsFollow(t *testing.T) {
	cfg, err := load(t, small)
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(cfg.DataDir) || cfg.Mailbox.Root != filepath.Join(cfg.DataDir, "mail") ||
		cfg.Log.Origin != "mx.x.test/tlog" || cfg.SMTP.Listen[0] != ":25" {
		t.Errorf("%+v", cfg)
	}
}

// TestBadConfig breaks one thing a row, and wants it named.
func TestBadConfig(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"no hostname", `domains = ["x.test"]` + "\ndata_dir = \"d\"", "hostname: empty domain"},
		{"no domains", "hostname = \"x.test\"\ndata_dir = \"d\"", "domains: empty"},
		{"no data_dir", "hostname = \"x.test\"\ndomains = [\"x.test\"]", "data_dir: empty"},
		{"unknown key", small + "frob = 1", `line 4, column 1: unknown key "frob"`},
		{"unknown key in a section", small + "[smtp]\nmaxsize = 1", `line 5, column 1: unknown key "smtp.maxsize"`},
		{"two unknown keys", small + "a = 1\nb = 2", `unknown key "b"`},
		{"wrong type", small + "[smtp]\nmax_size = \"big\"", "line 5"},
		{"broken syntax", small + "[smtp\n", "line 4"},
		{"bad domain", "hostname = \"x.test\"\ndata_dir = \"d\"\ndomains = [\"x..test\"]", "domains: domain \"x..test\": empty label"},
		{"bad address", small + "[smtp]\nlisten = [\"25\"]", `smtp.listen: "25": want host:port`},
		{"bad network", small + "[smtp]\nrelay_from = [\"10.0.0.1\"]", "smtp.relay_from"},
		{"bad proxy", small + "[smtp]\nproxies = [\"haproxy\"]", "smtp.proxies"},
		{"bad front", small + "[smtp]\nxclient = [\"10.0.0.0/33\"]", "smtp.xclient"},
		{"rule about all mail", small + "[[intake.rule]]\naction = \"refuse\"", "intake.rule 1: names neither clients"},
		{"rule without action", small + "[[intake.rule]]\nsenders = [\"y.test\"]", "intake.rule 1: action \"\" is none of"},
		{"rule with a bad sender", small + "[[intake.rule]]\nsenders = [\"y..test\"]\naction = \"junk\"", "empty label"},
		{"rule with a bad network", small + "[[intake.rule]]\nclients = [\"10\"]\naction = \"junk\"", "intake.rule 1: clients"},
		{"rule with a bad expression", small + "[[intake.rule]]\nheader = \"(\"\naction = \"junk\"", "intake.rule 1: header"},
		{"rule of two minds", small + "[[intake.rule]]\nheader = \"x\"\nrecipients = [\"x.test\"]\naction = \"refuse\"",
			"recipients and header exclude each other"},
		{"junk for some", small + "[[intake.rule]]\nrecipients = [\"x.test\"]\naction = \"junk\"", "concerns the whole message"},
		{"bad archive", small + "[intake]\narchive = \"nobody\"", "intake.archive"},
		{"cert without key", small + "[tls]\ncert = \"c.pem\"", "tls: cert"},
		{"acme without listener", small + "[tls.acme]\nenabled = true", "tls.acme: set http_listen"},
		{"negative", small + "[smtp]\nmax_size = -1", "smtp.max_size: -1"},
		{"bad duration", small + "[queue]\nexpire = \"5 days\"", "line 5"},
		{"backoff upside down", small + "[queue]\nmin_backoff = \"2h\"", "queue.max_backoff"},
		{"bad smarthost", small + "[relay]\nsmarthost = \"mail:x\"", "relay.smarthost: \"x\" is no port"},
		{"password in the clear", small + "[relay]\nsmarthost = \"mail.y.test\"\nuser = \"u\"\npassword = \"p\"\ntls = \"none\"",
			"relay.smarthost: a password needs TLS"},
		{"route of no domain", small + "[[relay.route]]\ndomains = [\"y y\"]\nto = \"z.test\"", "relay.route 1: \"y y\""},
		{"route without domains", small + "[[relay.route]]\nto = \"z.test\"", "relay.route 1: domains: empty"},
		{"route without server", small + "[[relay.route]]\ndomains = [\"y.test\"]", "relay.route 1: to: empty"},
		{"route of our own domain", small + "[[relay.route]]\ndomains = [\"x.test\"]\nto = \"z.test\"",
			"relay.route 1: x.test is a domain of this server"},
		{"two routes of a domain", small + "[[relay.route]]\ndomains = [\"y.test\"]\nto = \"z.test\"\n" +
			"[[relay.route]]\ndomains = [\"Y.test\"]\nto = \"mx\"", "relay.route 2: y.test has a route already"},
		{"bad lmtp", small + "[mailbox]\nlmtp = \"unix:\"", "mailbox.lmtp: "},
	} {
		_, err := load(t, c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "tallypost.toml: ") {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
}

func TestExampleLoads(t *testing.T) {
	b, err := Example()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, string(b)); err != nil {
		t.Errorf("%v\n%s", err, b)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(small)
	f.Add(small + "[smtp]\nlisten = [\":25\"]\n[tls.acme]\nenabled = true\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		cfg, err := load(t, text)
		if err == nil && (cfg.Hostname == "" || len(cfg.Domains) == 0 || cfg.DataDir == "") {
			t.Errorf("%q is good", text)
		}
	})
}

// TestExampleLists: the sections that the example has as comments are good ones.
func TestExampleLists(t *testing.T) {
	b, err := Example()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(b)) {
		rest, comment := strings.CutPrefix(line, "# ")
		if comment && (strings.HasPrefix(rest, "[[") || strings.Contains(rest, " = ")) {
			line = rest
		}
		out.WriteString(line)
	}
	path := filepath.Join(t.TempDir(), "tallypost.toml")
	if err := os.WriteFile(path, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Relay.Route) != 1 || len(cfg.Intake.Lists) != 1 || len(cfg.Intake.Filters) != 1 || len(cfg.BackupMX) != 1 {
		t.Errorf("sections that were not read: %+v", cfg)
	}
}
