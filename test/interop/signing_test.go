package interop

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tallypost/tallypost/internal/dns"
	"github.com/tallypost/tallypost/mail/reporting"
)

// submitMail sends a message of the account's by submission with TLS. Lines of text end in LF.
func (s *site) submitMail(text string, to ...string) {
	s.t.Helper()
	conn, err := tls.Dial("tcp", s.tls, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := smtp.NewClient(conn, "mx.local.test")
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	steps := []func() error{
		func() error { return c.Auth(smtp.PlainAuth("", user, s.password, "mx.local.test")) },
		func() error { return c.Mail(user) },
	}
	for _, r := range to {
		steps = append(steps, func() error { return c.Rcpt(r) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			s.t.Fatal(err)
		}
	}
	w, err := c.Data()
	if err == nil {
		_, err = io.WriteString(w, strings.ReplaceAll(text, "\n", "\r\n"))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// sendFrom sends a message as another server does, without TLS.
func (s *site) sendFrom(from, to, text string) error {
	c, err := smtp.Dial(s.smtp)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := errors.Join(c.Mail(from), c.Rcpt(to)); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return w.Close()
}

// signingSite is a site whose keys were made and published as the program says, and that signs.
func signingSite(t *testing.T, top string) (*site, *dns.Zone) {
	t.Helper()
	zone := new(dns.Zone)
	s := prepareSite(t, siteConfig{zone: zone, top: top})
	if err := zone.Add("local.test", s.run("dkim", "create", "local.test")); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(s.kill)
	for range 100 {
		if strings.Count(s.run("dkim", "list"), "  signs\n") == 2 {
			return s, zone
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("the node does not sign:\n%s%s", s.run("dkim", "list"), s.log())
	return nil, nil
}

// TestOthersVerifyOurSignatures has dkimpy and OpenDKIM judge what was submitted, by the records
// that were printed.
func TestOthersVerifyOurSignatures(t *testing.T) {
	t.Parallel()
	judges := map[string]func(t *testing.T, keys map[string]string, text string) string{}
	if python := pythonWithDKIM(); python != "" {
		judges["dkimpy"] = func(t *testing.T, keys map[string]string, text string) string {
			return askDKIMPy(t, python, keys, text)
		}
	}
	if opendkim, err := exec.LookPath("opendkim"); err == nil {
		judges["OpenDKIM"] = func(t *testing.T, keys map[string]string, text string) string {
			return askOpenDKIM(t, opendkim, keys, text)
		}
	}
	if len(judges) == 0 {
		t.Skip("neither python3-dkim nor opendkim is installed")
	}
	s, zone := signingSite(t, "")
	keys := make(map[string]string)
	var list []struct{ Domain, Selector string }
	if err := json.Unmarshal([]byte(s.run("dkim", "list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		name := k.Selector + "._domainkey." + k.Domain
		texts, _, err := zone.TXT(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = texts[0]
	}
	const head = "From: User <" + user + ">\nTo: " + user + "\nSubject: a subject\n with  a fold\n"
	for i, text := range []string{
		head + "\nhello\n",
		head + "Date: Sun, 22 Nov 2026 12:00:00 +0000\nMessage-ID: <1@local.test>\nBcc: x@local.test\n\nhello\n",
		head + "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n  sp \t ace  \n..\n.\nGr\u00fc\u00dfe\n\n\n",
		head + "List-Unsubscribe: <https://local.test/u>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\n\n",
		head + "\n" + strings.Repeat("0123456789 abcdefghij\n", 20_000),
	} {
		s.submitMail(text, user)
		letters := s.awaitLetters(i + 1)
		letter := ""
		for _, l := range letters {
			if strings.HasSuffix(strings.ReplaceAll(l, "\r\n", "\n"), text[strings.Index(text, "\n\n"):]) {
				letter = strings.ReplaceAll(strings.ReplaceAll(l, "\r\n", "\n"), "\n", "\r\n")
			}
		}
		for name, judge := range judges {
			if got := judge(t, keys, letter); got != "" {
				t.Errorf("%s, message %d: %s\n%.2000s", name, i, got, letter)
			}
			if judge(t, keys, strings.Replace(letter, "a subject", "an object", 1)) == "" {
				t.Errorf("%s passes message %d with another subject", name, i)
			}
		}
	}
}

// pythonWithDKIM returns a Python that has dkimpy and can do Ed25519; Debian's is not always the
// first.
func pythonWithDKIM() string {
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(python, "-c", "import dkim, nacl.signing").Run() == nil {
			return python
		}
	}
	return ""
}

const dkimpyScript = `
import sys, json, dkim
keys = json.loads(sys.argv[1])
text = sys.stdin.buffer.read()
find = lambda name, timeout=5: keys.get(name.decode().rstrip('.'), '').encode()
d = dkim.DKIM(text)
n = sum(1 for k, v in d.headers if k.lower() == b'dkim-signature')
print(n, *(d.verify(idx=i, dnsfunc=find) for i in range(n)))
`

// askDKIMPy returns what is wrong with a message's two signatures.
func askDKIMPy(t *testing.T, python string, keys map[string]string, text string) string {
	t.Helper()
	b, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", dkimpyScript, string(b))
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "2 True True" {
		return fmt.Sprint(got, err)
	}
	return ""
}

// askOpenDKIM likewise. It stops at the first signature that verifies, so each is shown to it
// alone.
func askOpenDKIM(t *testing.T, opendkim string, keys map[string]string, text string) string {
	t.Helper()
	dir := t.TempDir()
	var data strings.Builder
	for name, record := range keys {
		fmt.Fprintf(&data, "%s %s\n", name, record)
	}
	files := map[string]string{"dns": data.String(),
		"conf": "Mode v\nTestDNSData file:" + filepath.Join(dir, "dns") + "\nSyslog no\n"}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var wrong []string
	for name := range keys {
		selector, _, _ := strings.Cut(name, ".")
		file := filepath.Join(dir, "message")
		if err := os.WriteFile(file, []byte(onlySignature(text, selector)), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(opendkim, "-x", filepath.Join(dir, "conf"), "-t", file, "-vv").CombinedOutput()
		if !strings.Contains(string(out), "verification (s="+selector+", d=local.test") ||
			!strings.Contains(string(out), "succeeded") {
			wrong = append(wrong, fmt.Sprintf("%s: %s %v", selector, out, err))
		}
	}
	return strings.Join(wrong, "\n")
}

// onlySignature leaves out the signatures by other selectors.
func onlySignature(text, selector string) string {
	for {
		i := strings.Index(text, "DKIM-Signature:")
		rest := text
		for i >= 0 {
			end := i + fieldEnd(rest[i:])
			if !strings.Contains(rest[i:end], "s="+selector+";") {
				text = rest[:i] + rest[end:]
				break
			}
			j := strings.Index(rest[end:], "DKIM-Signature:")
			if j < 0 {
				return text
			}
			i = end + j
		}
		if i < 0 {
			return text
		}
	}
}

// fieldEnd is the length of the field at the start of s, with its folded lines.
func fieldEnd(s string) int {
	for i := 0; ; {
		n := strings.Index(s[i:], "\r\n")
		if n < 0 {
			return len(s)
		}
		if i += n + 2; i == len(s) || s[i] != ' ' && s[i] != '\t' {
			return i
		}
	}
}

// TestReportsReceived: what others report is read at delivery, from the first octet on the wire
// to the command that shows it.
func TestReportsReceived(t *testing.T) {
	t.Parallel()
	s := startSite(t, siteConfig{top: "[reports]\nreceive = [\"reports@local.test\"]"})
	const xml = `<?xml version="1.0"?><feedback><report_metadata><org_name>Them</org_name>
<email>x@them.test</email><report_id>17</report_id><date_range><begin>1795219200</begin><end>1795305599</end>
</date_range></report_metadata><policy_published><domain>local.test</domain><p>none</p></policy_published>
<record><row><source_ip>192.0.2.1</source_ip><count>5</count><policy_evaluated><disposition>none</disposition>
<dkim>pass</dkim><spf>fail</spf></policy_evaluated></row><identifiers><header_from>local.test</header_from>
</identifiers><auth_results/></record></feedback>`
	for _, body := range []string{"Content-Type: text/xml\r\n\r\n" + strings.ReplaceAll(xml, "\n", "\r\n"),
		"\r\nhello\r\n"} {
		if err := s.sendFrom("x@them.test", "Reports@local.test", "From: x@them.test\r\nSubject: report\r\n"+
			body+"\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	var list []reporting.Received
	for range 100 {
		if err := json.Unmarshal([]byte(s.run("reports", "list", "--json")), &list); err != nil {
			t.Fatal(err)
		}
		if len(list) == 2 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if len(list) != 2 || list[1].Org != "Them" || list[1].Good != 5 || list[0].Error == "" {
		t.Fatalf("reports: %+v", list)
	}
	text := s.run("reports", "show", list[1].ID)
	if !strings.Contains(text, "dmarc of Them about local.test, 2026-11-21: 5 pass, 0 fail") ||
		!strings.Contains(text, "nobody vouches") || !strings.Contains(text, "192.0.2.1") {
		t.Error(text)
	}
	if err := s.sendFrom("x@them.test", "others@local.test", ""); err == nil {
		t.Error("another address was accepted")
	}
}

// TestPolicySite fetches the MTA-STS policy as senders do, and nothing else.
func TestPolicySite(t *testing.T) {
	t.Parallel()
	web := freeAddr(t)
	s := startSite(t, siteConfig{top: fmt.Sprintf("[mta_sts]\nmode = \"testing\"\n[web]\nlisten_tls = [%q]", web)})
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	get := func(host, path string) (int, string, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+web+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Content-Type"), string(b)
	}
	const path = "/.well-known/mta-sts.txt"
	want := "version: STSv1\r\nmode: testing\r\nmx: mx.local.test\r\nmax_age: 604800\r\n"
	if code, kind, text := get("mta-sts.local.test", path); code != 200 || kind != "text/plain" || text != want {
		t.Errorf("%d %q %q", code, kind, text)
	}
	for _, row := range [][2]string{{"mta-sts.local.test", "/"}, {"mx.local.test", path}, {"mta-sts.other.test", path}} {
		if code, _, _ := get(row[0], row[1]); code != 404 {
			t.Errorf("%v: %d", row, code)
		}
	}
	if out := s.run("dns", "local.test"); !strings.Contains(out, "_mta-sts.local.test. IN TXT \"v=STSv1; id=") ||
		!strings.Contains(out, ";     mx: mx.local.test") {
		t.Error(out)
	}
}

// TestCertificateForEachClient: who knows only RSA is shown the certificate of an RSA key.
func TestCertificateForEachClient(t *testing.T) {
	t.Parallel()
	need(t, "openssl")
	dir := t.TempDir()
	pair := func(name string, args ...string) (cert, key string) {
		cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
		args = append([]string{"req", "-x509", "-nodes", "-subj", "/CN=mx.local.test", "-addext",
			"subjectAltName=DNS:mx.local.test", "-days", "30", "-out", cert, "-keyout", key}, args...)
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl: %v\n%s", err, out)
		}
		return cert, key
	}
	ecCert, ecKey := pair("ec", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
	rsaCert, rsaKey := pair("rsa", "-newkey", "rsa:2048")
	s := startSite(t, siteConfig{top: fmt.Sprintf("[tls]\ncert = [%q, %q]\nkey = [%q, %q]", ecCert, rsaCert, ecKey, rsaKey)})
	for cipher, want := range map[string]string{
		"ECDHE-ECDSA-AES128-GCM-SHA256":                             "id-ecPublicKey",
		"ECDHE-RSA-AES128-GCM-SHA256":                               "rsaEncryption",
		"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256": "id-ecPublicKey",
	} {
		for _, name := range []string{"mx.local.test", "other.test"} {
			out, err := exec.Command("sh", "-c", fmt.Sprintf("echo QUIT | openssl s_client -connect %s -starttls smtp "+
				"-tls1_2 -cipher %s -servername %s 2>/dev/null | openssl x509 -noout -text", s.smtp, cipher, name)).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "Public Key Algorithm: "+want) {
				t.Errorf("%s for %s: %v, want %s\n%.600s", cipher, name, err, want, out)
			}
		}
	}
	// Session tickets are off: Microsoft's servers break off with them.
	out, err := exec.Command("sh", "-c", "echo QUIT | openssl s_client -connect "+s.smtp+
		" -starttls smtp -tls1_2 2>&1").CombinedOutput()
	if err != nil || strings.Contains(string(out), "TLS session ticket:") {
		t.Errorf("%v\n%s", err, out)
	}
}
