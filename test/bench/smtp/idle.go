package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// peerIdle is how many connections a server gets that has a process for each, all of one size.
const peerIdle = 200

// idle measures the memory of connections that have said EHLO and wait, one after STARTTLS and one
// without: once, for it hardly varies.
func (b *bench) idle() error {
	for _, layer := range []string{"plaintext", "TLS"} {
		figures := make(map[string][]figure)
		for _, start := range starters {
			s, stop, err := b.open(start, "idle")
			if err != nil {
				return err
			}
			if s == nil {
				continue
			}
			kib, err := b.idleMemory(s, layer == "TLS")
			if err := errors.Join(err, stop()); err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, layer, err)
			}
			figures[s.name] = append(figures[s.name], figure{value: kib})
			b.progress("idle, %s, %s", s.name, layer)
		}
		row(fmt.Sprintf("memory of an idle connection, %s, %d of them (Postfix: %d)", layer, *idle,
			min(*idle, peerIdle)), "%.1f KiB", figures)
	}
	return nil
}

// idleMemory returns the KiB of proportional memory by which a server grows for each connection.
func (b *bench) idleMemory(s *server, overTLS bool) (float64, error) {
	conns := *idle
	if s.slow {
		conns = min(conns, peerIdle)
	}
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	// The first few make what all share.
	for range 10 {
		c, err := greet(s.addr, overTLS)
		if err != nil {
			return 0, err
		}
		c.Close()
	}
	time.Sleep(time.Second)
	before, err := memory(s.pid)
	if err != nil {
		return 0, err
	}
	for range conns {
		c, err := greet(s.addr, overTLS)
		if err != nil {
			return 0, fmt.Errorf("connection %d: %w", len(open)+1, err)
		}
		open = append(open, c)
	}
	after := before
	for range 30 { // until it is steady, a garbage collection included
		time.Sleep(time.Second)
		now, err := memory(s.pid)
		if err != nil {
			return 0, err
		}
		steady := now > after-after/100 && now < after+after/100
		if after = now; steady {
			break
		}
	}
	return float64(after-before) / float64(conns), nil
}

// greet opens a connection and says EHLO, again after STARTTLS.
func greet(addr string, overTLS bool) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, 30*time.Second)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	lines := []string{"", "EHLO idle.test\r\n"}
	if err := talk(conn, lines...); err != nil || !overTLS {
		return conn, err
	}
	if err := talk(conn, "STARTTLS\r\n"); err != nil {
		return nil, err
	}
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // a certificate signed by itself, on loopback
	return conn, talk(secure, "EHLO idle.test\r\n")
}

// talk sends lines and reads a reply to each; to the empty line the greeting.
func talk(conn net.Conn, lines ...string) error {
	r := bufio.NewReaderSize(conn, 4096)
	for _, line := range lines {
		if _, err := io.WriteString(conn, line); err != nil {
			return err
		}
		for {
			reply, err := r.ReadString('\n')
			if err != nil {
				return err
			}
			if !strings.HasPrefix(reply, "2") {
				return fmt.Errorf("to %q: %s", line, strings.TrimSpace(reply))
			}
			if len(reply) < 4 || reply[3] != '-' {
				break
			}
		}
	}
	return nil
}
