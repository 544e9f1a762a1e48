package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/test/peer"
)

// TestACME obtains a certificate from Pebble, the test server of Let's Encrypt, by both challenges.
func TestACME(t *testing.T) {
	pebble := need(t, "pebble")
	for _, challenge := range []string{"http_listen", "tls_listen", "web"} {
		t.Run(challenge, func(t *testing.T) {
			zone := dns.MustZone(map[string][]string{"mx.local.test": {"A 127.0.0.1"},
				"mta-sts.local.test": {"A 127.0.0.1"}})
			directory, root, answer := startPebble(t, pebble, zone)
			relay := fmt.Sprintf("[tls.acme]\nenabled = true\ndirectory = %q\nroot_ca = %q\n", directory, root)
			if challenge == "web" { // the site of the policy answers the challenge for both names, too
				relay += fmt.Sprintf("[mta_sts]\nmode = \"testing\"\n[web]\nlisten_tls = [%q]", answer["tls_listen"])
			} else {
				relay += fmt.Sprintf("%s = %q", challenge, answer[challenge])
			}
			s := newSite(t, new(dns.Zone), relay, "")
			await(t, "the certificate of the host", func() bool {
				by := issuer(t, s.smtp)
				return by != "mx.local.test" && by != ""
			})
			if challenge == "web" {
				await(t, "the certificate of the policy's site", func() bool {
					return policyByTLS(t, answer["tls_listen"]) == "version: STSv1"
				})
			}
		})
	}
}

// await waits for something to become true.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 300 {
		if is() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%s is not there after 30 seconds", what)
}

// policyByTLS fetches the first line of the MTA-STS policy, if the certificate is for the policy's name and
// not made by the node itself.
func policyByTLS(t *testing.T, addr string) string {
	t.Helper()
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // Pebble makes a new root each time; the name is verified here
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			if leaf.Issuer.String() == leaf.Subject.String() || len(state.PeerCertificates) < 2 {
				return errors.New("made by itself")
			}
			return leaf.VerifyHostname("mta-sts.local.test")
		}}}}
	resp, err := client.Get("https://mta-sts.local.test/.well-known/mta-sts.txt")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	line, _ := bufio.NewReader(resp.Body).ReadString('\n')
	return strings.TrimSpace(line)
}

// issuer returns who issued the certificate that a server shows.
func issuer(t *testing.T, addr string) string {
	t.Helper()
	c, err := smtp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	state, _ := c.TLSConnectionState()
	cert := state.PeerCertificates[0]
	if cert.Issuer.String() == cert.Subject.String() {
		return cert.Subject.CommonName
	}
	return cert.Issuer.String()
}

func startPebble(t *testing.T, pebble string, zone *dns.Zone) (directory, root string, answer map[string]string) {
	t.Helper()
	resolver := serveZone(t, zone)
	cert, key := certificate(t, "localhost")
	listen, manage := freeAddr(t), freeAddr(t)
	answer = map[string]string{"http_listen": freeAddr(t), "tls_listen": freeAddr(t)}
	config := map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": manage, "certificate": cert, "privateKey": key,
		"httpPort": port(t, answer["http_listen"]), "tlsPort": port(t, answer["tls_listen"]),
		"ocspResponderURL": "", "externalAccountBindingRequired": false,
	}}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pebble.json")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(pebble, "-config", file, "-dnsserver", resolver)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if err := peer.Await(listen); err != nil {
		t.Fatal(err)
	}
	_, p, _ := net.SplitHostPort(listen)
	return "https://localhost:" + p + "/dir", cert, answer
}

func port(t *testing.T, addr string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port
}
