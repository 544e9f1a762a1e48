package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tallypost/tallypost/bridge/eventlog"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/queue"
	"github.com/tallypost/tallypost/mail/smtp"
)

// promise is the reply to a message that was accepted: queue id, log and index.
var promise = regexp.MustCompile(`^250 2\.0\.0 ([0-9A-Z]{13}) queued log=(\S+)#(\d+)$`)

// submit logs in at a.test as a mail program would, and hands the message over.
func (d *demo) submit(ctx context.Context) error {
	d.message = withCRLF(d.message)
	header, err := mail.ParseHeader(d.message)
	if err != nil {
		return fmt.Errorf("the message: %w", err)
	}
	if d.messageID = header.Get("Message-ID"); d.messageID == "" {
		return errors.New("the message has no Message-ID, by which it is found again")
	}
	c, err := d.connect(ctx, d.a.cfg.Submission.Listen[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.StartTLS(ctx, &tls.Config{InsecureSkipVerify: true}); err != nil {
		return err
	}
	if err := c.Auth(ctx, d.a.user.String(), d.a.password); err != nil {
		return err
	}
	reply, err := send(ctx, c, d.a.user, d.b.user, d.message)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  %s, then: %s\n", c.Peer().TLSVersion, reply)
	m := promise.FindStringSubmatch(reply)
	if m == nil {
		return fmt.Errorf("no promise in %q", reply)
	}
	d.id, err = mail.ParseID(m[1])
	return err
}

// withCRLF gives a message that was edited on Unix the line ends of the wire.
func withCRLF(b []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}

func (d *demo) connect(ctx context.Context, addr string) (*smtp.Client, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := smtp.NewClient(conn, smtp.ClientConfig{Hello: "demo.test"})
	if err := c.Hello(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// send sends one message to one recipient and returns the reply that decided.
func send(ctx context.Context, c *smtp.Client, from, to mail.Address, msg []byte) (string, error) {
	env := &mail.Envelope{From: from, Recipients: []mail.Recipient{{Address: to}}, Body: mail.Body8BitMIME}
	results, err := c.Send(ctx, env, bytes.NewReader(msg), int64(len(msg)))
	if err != nil {
		return "", err
	}
	if r := results[0]; !r.Accepted() {
		return "", &r.Reply
	}
	return results[0].Reply.String(), nil
}

// arrive waits for the message in Bob's Maildir and shows what a.test knows of the way there.
func (d *demo) arrive(ctx context.Context) error {
	for d.letter == "" {
		if err := d.pause(ctx); err != nil {
			return fmt.Errorf("the message is not in the mailbox: %w", err)
		}
		var err error
		if d.letter, err = d.find(d.messageID); err != nil {
			return err
		}
	}
	trace, err := d.trace(ctx, d.a, d.id.String())
	if err != nil {
		return err
	}
	for _, a := range trace.Attempts {
		fmt.Fprintf(d.out, "  %s %s by %s\n    %s\n", a.Route, a.Outcome, peerWords(a.Peer), a.Reply)
	}
	fmt.Fprintf(d.out, "  %s\n", d.letter)
	return nil
}

// pause waits a moment; after half a minute since the demonstration began it gives up.
func (d *demo) pause(ctx context.Context) error {
	if time.Since(d.began) > 30*time.Second {
		return errors.New("half a minute has passed")
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Millisecond):
		return nil
	}
}

// find returns the file in Bob's Maildir that has a text in it.
func (d *demo) find(text string) (string, error) {
	files, err := filepath.Glob(filepath.Join(d.b.cfg.Mailbox.Root, d.b.domain, d.b.user.Local, "Maildir/new/*"))
	if err != nil {
		return "", err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		if bytes.Contains(b, []byte(text)) {
			return f, nil
		}
	}
	return "", nil
}

// trace returns what a site knows of the first message that what names.
func (d *demo) trace(ctx context.Context, s *demoSite, what string) (queue.Message, error) {
	b, err := s.client.Do(ctx, http.MethodGet, "/v1/trace", url.Values{"what": {what}}, nil)
	if err != nil {
		return queue.Message{}, err
	}
	var list []queue.Message
	if err := json.Unmarshal(b, &list); err != nil {
		return queue.Message{}, err
	}
	if len(list) == 0 {
		return queue.Message{}, fmt.Errorf("%s knows nothing of %s", s.cfg.Hostname, what)
	}
	return list[0], nil
}

// kill sends messages to b.test from four clients at a time, kills it amid them, starts it again, and
// expects every message that was promised for in the mailbox.
func (d *demo) kill(ctx context.Context) error {
	var mu sync.Mutex
	var promised []string
	var wg sync.WaitGroup
	killed := make(chan struct{})
	for c := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				token := fmt.Sprintf("burst-%d-%d-%d", d.began.UnixNano(), c, i)
				if err := d.burst(ctx, token); err != nil {
					return
				}
				mu.Lock()
				promised = append(promised, token)
				mu.Unlock()
				select {
				case <-killed:
					return
				case <-ctx.Done():
					return
				default:
				}
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(promised)
	}
	for count() < 40 {
		if err := d.pause(ctx); err != nil {
			return err
		}
	}
	err := d.b.signal(syscall.SIGKILL)
	close(killed)
	wg.Wait()
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  killed after %d promises\n", count())
	if err := d.b.start(ctx); err != nil {
		return err
	}
	for _, token := range promised {
		for {
			file, err := d.find(token)
			if err != nil {
				return err
			}
			if file != "" {
				break
			}
			if err := d.pause(ctx); err != nil {
				return fmt.Errorf("%s was promised and is not in the mailbox: %w", token, err)
			}
		}
	}
	fmt.Fprintf(d.out, "  restarted; all %d are in the mailbox\n", len(promised))
	return nil
}

// burst sends one small message to b.test, as another server would.
func (d *demo) burst(ctx context.Context, token string) error {
	c, err := d.connect(ctx, d.b.cfg.SMTP.Listen[0])
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = send(ctx, c, d.a.user, d.b.user, []byte("Subject: "+token+"\r\n\r\n"+token+"\r\n"))
	return err
}

// audit has both servers verify their logs.
func (d *demo) audit(ctx context.Context) error {
	for _, s := range []*demoSite{d.a, d.b} {
		b, err := s.client.Do(ctx, http.MethodGet, "/v1/log/audit", nil, nil)
		if err != nil {
			return err
		}
		var a eventlog.Audit
		if err := json.Unmarshal(b, &a); err != nil {
			return err
		}
		if len(a.Problems) > 0 {
			return fmt.Errorf("%s: %s", a.Origin, strings.Join(a.Problems, "; "))
		}
		fmt.Fprintf(d.out, "  %s: %d entries, root %v\n", a.Origin, a.Size, a.Root)
	}
	return nil
}

// prove exports the evidence of the message from b.test, verifies it as an auditor would, in a process of
// its own, and once more with one octet changed.
func (d *demo) prove(ctx context.Context) error {
	trace, err := d.trace(ctx, d.b, d.messageID)
	if err != nil {
		return err
	}
	proof, err := d.b.client.Do(ctx, http.MethodPost, "/v1/evidence/"+trace.ID.String(), nil, nil)
	if err != nil {
		return err
	}
	key, err := d.b.client.Do(ctx, http.MethodGet, "/v1/log/key", nil, nil)
	if err != nil {
		return err
	}
	file, bad := filepath.Join(d.dir, "message.tally"), filepath.Join(d.dir, "changed.tally")
	changed := bytes.Clone(proof)
	changed[len(changed)/3] ^= 1
	err = errors.Join(os.WriteFile(file, proof, 0o600), os.WriteFile(bad, changed, 0o600))
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	verify := func(file string) ([]byte, error) {
		fmt.Fprintf(d.out, "  tallypost verify %s\n", filepath.Base(file))
		cmd := exec.CommandContext(ctx, self, "verify", file, "--key", strings.TrimSpace(string(key)))
		out, err := cmd.CombinedOutput()
		fmt.Fprintf(d.out, "    %s\n", strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "\n    "))
		return out, err
	}
	if _, err := verify(file); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "  and a copy with one octet changed:")
	var exit *exec.ExitError
	if _, err := verify(bad); err == nil {
		return errors.New("it was accepted")
	} else if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		return err
	}
	return nil
}
