package bitcoincli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tallypost/tallypost/bitcoin/rpc"
	"github.com/tallypost/tallypost/bitcoin/rpc/jsonrpc"
)

// TestConversionsKnowOurMethods: what is no text in a method of ours must be known to be none, by each name.
func TestConversionsKnowOurMethods(t *testing.T) {
	for _, m := range rpc.Describe() {
		at, i := map[string]int{}, 0
		for _, p := range m.Parameters() {
			pos, member := at[p.Of]
			if !member {
				pos = i
				at[p.Names[0]] = i
				i++
			}
			if p.Kind == jsonrpc.KindString || p.Kind == jsonrpc.KindHash || m.Name == "echo" {
				continue
			}
			for _, name := range p.Names {
				list := conversionsOf(m.Name)
				if !slices.ContainsFunc(list, func(c converted) bool {
					return c.name == name && c.pos == pos && c.format != asText
				}) && !(m.Name == "submitblock" && name == "dummy") {
					t.Errorf("%s: parameter %d, %s, is passed on as text", m.Name, pos, name)
				}
			}
		}
	}
}

func TestNamed(t *testing.T) {
	for _, row := range []struct {
		method string
		words  []string
		want   string
	}{
		{"echojson", []string{`["key=value"]`}, `{"args":[["key=value"]]}`},
		{"echojson", []string{`["a=b"]`, "42"}, `{"args":[["a=b"],42]}`},
		{"echojson", []string{`arg0=["a=b"]`, "arg1=42"}, `{"arg0":["a=b"],"arg1":42}`},
		{"echo", []string{"arg0=0", "arg1=1", "arg1=3"}, `{"arg0":"0","arg1":"3"}`},
		{"echo", []string{"args=[0]", "4"}, `{"args":"[0]","args":["4"]}`},
		{"loadtxoutset", []string{"a=b.dat"}, `{"args":["a=b.dat"]}`},
		{"getblockstats", []string{"hash_or_height=00ab", `stats=["txs"]`}, `{"hash_or_height":"00ab","stats":["txs"]}`},
		{"getblockstats", []string{"7"}, `{"args":[7]}`},
		{"getblockhash", []string{"height=x"}, "Error parsing JSON: x"},
	} {
		v, err := named(row.method, row.words)
		got := string(jsonrpc.AppendValue(nil, v))
		if err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%s %q: %s, want %s", row.method, row.words, got, row.want)
		}
	}
}

func TestSplitHostPort(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1": "127.0.0.1 0 true", "127.0.0.1:80": "127.0.0.1 80 true", "::1": "::1 0 true",
		"[::1]": "::1 0 true", "[::1]:80": "::1 80 true", "[::1]:0": " 0 false", "h:notaport": " 0 false",
		"h:-1": " 0 false", "h:65536": " 0 false", "h:": " 0 false",
	} {
		host, port, ok := splitHostPort(in)
		if got := fmt.Sprint(host, " ", port, " ", ok); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// node answers as one with these results would.
func node(t *testing.T, results map[string]string) (dir string) {
	t.Helper()
	answer := func(call map[string]any) string {
		result, ok := results[call["method"].(string)]
		if !ok {
			return fmt.Sprintf(`{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":%v}`, call["id"])
		}
		return fmt.Sprintf(`{"jsonrpc":"2.0","result":%s,"id":%v}`, result, call["id"])
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "u" || password != "p" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		b, _ := io.ReadAll(r.Body)
		var many []map[string]any
		if json.Unmarshal(b, &many) == nil {
			var out []string
			for _, call := range slices.Backward(many) { // in any order
				out = append(out, answer(call))
			}
			fmt.Fprintf(w, "[%s]", strings.Join(out, ","))
			return
		}
		var call map[string]any
		if json.Unmarshal(b, &call) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, answer(call))
	}))
	t.Cleanup(s.Close)
	dir = t.TempDir()
	conf := "regtest=1\nrpcuser=u\nrpcpassword=p\nrpcconnect=" + strings.TrimPrefix(s.URL, "http://") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "bitcoin.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func run(dir, stdin string, args ...string) (out, text string, code int) {
	var o, e bytes.Buffer
	code = Run(context.Background(), append([]string{"-datadir=" + dir}, args...),
		Streams{In: strings.NewReader(stdin), Out: &o, Err: &e})
	return o.String(), e.String(), code
}

const networkResult = `{"version":309900,"protocolversion":70016,"subversion":"/Satoshi:30.99.0/","timeoffset":-1,
	"connections_in":1,"connections_out":2,"connections":3,"relayfee":0.00000100,"warnings":["first","second"],
	"networks":[{"name":"ipv4","reachable":true,"proxy":"127.0.0.1:9050"},{"name":"onion","reachable":true,
	"proxy":"127.0.0.1:9050"},{"name":"i2p","reachable":false,"proxy":"127.0.0.1:7656"}],
	"localservicesnames":["NETWORK","WITNESS","NETWORK_LIMITED","P2P_V2"],
	"localaddresses":[{"address":"1.2.3.4","port":8333,"score":4}]}`

func TestGetInfo(t *testing.T) {
	dir := node(t, map[string]string{"getnetworkinfo": networkResult, "getblockchaininfo": `{"chain":"regtest",
		"blocks":7,"headers":8,"verificationprogress":0.5,"difficulty":4.6e-10}`})
	out, text, code := run(dir, "", "-getinfo", "-color=always")
	want := "\x1b[34mChain: regtest\x1b[0m\nBlocks: 7\nHeaders: 8\nVerification progress: ▒▒▒▒▒▒▒▒▒▒░░░░░░░░░░ 50.0000%\n" +
		"Difficulty: 4.6e-10\n\n\x1b[32mNetwork: in 1, out 2, total 3\x1b[0m\nVersion: 309900\nTime offset (s): -1\n" +
		"Proxies: 127.0.0.1:9050 (ipv4, onion), 127.0.0.1:7656 (i2p)\nMin tx relay fee rate (BTC/kvB): 0.00000100\n\n" +
		"\x1b[33mWarnings:\x1b[0m first, second\n"
	if out != want || code != 0 {
		t.Errorf("%d %s\n%s\nwant\n%s", code, text, out, want)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"-getinfo", "help"}, "error: -getinfo takes no arguments\n"},
		{[]string{"-getinfo", "-color=foo"}, "error: Invalid value for -color option. Valid values: always, auto, never.\n"},
		{[]string{"-getinfo", "-netinfo"}, "error: Only one of -getinfo, -netinfo may be specified.\n"},
		{[]string{"-generate"}, "error code: -32601\nerror message:\nMethod not found\n"},
		{[]string{"-netinfo", "x"}, "error: invalid -netinfo level argument: x\nFor more information, run: " +
			"bitcoin-cli -netinfo help\n"},
		{[]string{"-rpcport=0", "help"}, "error: Invalid port provided in -rpcport: 0\n"},
		{[]string{"-rpcpassword=wrong", "help"}, "error: Authorization failed: Incorrect rpcuser or rpcpassword\n"},
	} {
		_, text, code := run(dir, "", row.args...)
		if text != row.want || code == 0 {
			t.Errorf("%q: %d %q, want %q", row.args, code, text, row.want)
		}
	}
}

func TestStandardInput(t *testing.T) {
	dir := node(t, map[string]string{"echo": `[]`})
	if out, text, code := run(dir, "p\nx", "-rpcuser=u", "-stdin", "-stdinrpcpass", "echo"); out != "[\n]\n" || code != 0 {
		t.Errorf("%d %q %q", code, out, text)
	}
	if _, text, code := run(dir, "wrong", "-stdinrpcpass", "echo"); code != 1 || !strings.Contains(text, "Incorrect") {
		t.Errorf("%d %q", code, text)
	}
}

func TestNetInfo(t *testing.T) {
	dir := node(t, map[string]string{"getnetworkinfo": networkResult, "getpeerinfo": `[
		{"id":0,"addr":"5.6.7.8:8333","network":"ipv4","inbound":false,"relaytxes":true,"addr_relay_enabled":true,
		"connection_type":"manual","servicesnames":["NETWORK","BLOOM"],"transport_protocol_type":"v2","minping":0.0125,
		"pingtime":0.25,"conntime":0,"lastsend":0,"lastrecv":0,"last_transaction":0,"last_block":0,
		"bip152_hb_to":true,"bip152_hb_from":true,"addr_processed":12,"addr_rate_limited":0,"version":70016,"subver":"/x/"},
		{"id":1,"addr":"[::2]:1","network":"not_publicly_routable","inbound":true,"relaytxes":false,
		"addr_relay_enabled":false,"connection_type":"inbound","servicesnames":[],"transport_protocol_type":"v1",
		"conntime":0,"version":0,"subver":""}]`})
	out, text, code := run(dir, "", "-netinfo", "4")
	want := `Bitcoin Core client v30.99.0 regtest - server 70016/Satoshi:30.99.0/ - services nwl2

<->   type   net   serv  v  mping   ping send recv  txn  blk  hb addrp addrl  age id address      version
 in          npr         1                            *              .             1 [::2]:1      
out manual  ipv4     nb  2     13    250                      .*    12             0 5.6.7.8:8333 70016/x/
                               ms     ms  sec  sec  min  min                  min

         ipv4   onion     npr   total   block  manual
in          0       0       1       1
out         1       0       0       1       0       1
total       1       0       1       2

Local addresses
1.2.3.4     port   8333    score      4
`
	if out != want || code != 0 {
		t.Errorf("%d %s\n%s\nwant\n%s", code, text, out, want)
	}
}

// TestSecret: on a terminal the password is asked for, and what is typed is read by who does not show it.
func TestSecret(t *testing.T) {
	dir := node(t, map[string]string{"getblockcount": "7"})
	conf := filepath.Join(dir, "bitcoin.conf")
	text, err := os.ReadFile(conf)
	if err == nil {
		err = os.WriteFile(conf, bytes.ReplaceAll(text, []byte("rpcpassword=p\n"), nil), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	var o, e bytes.Buffer
	code := Run(context.Background(), []string{"-datadir=" + dir, "-stdinrpcpass", "getblockcount"}, Streams{
		In: strings.NewReader("wrong\n"), Out: &o, Err: &e, Secret: func() (string, error) { return "p", nil }})
	if code != 0 || o.String() != "7\n" || e.String() != "RPC password> \n" {
		t.Errorf("code %d, %q, %q", code, o.String(), e.String())
	}
}
