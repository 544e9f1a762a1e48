package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// A cell is a size and a number of sessions.
type cell struct{ size, sessions int } // size in octets

func (c cell) String() string { return fmt.Sprintf("%d KiB, %d sessions", c.size>>10, c.sessions) }

func matrix() (out []cell) {
	for _, size := range numbers(*sizes) {
		for _, n := range numbers(*sessions) {
			out = append(out, cell{size << 10, n})
		}
	}
	return out
}

// cross is the row and the column of the matrix that say most.
func cross() (out []cell) {
	for _, c := range matrix() {
		if *full || c.size == 10<<10 || c.sessions == 20 {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		return matrix()
	}
	return out
}

const rate = "%.0f/s"

// queue measures what is accepted while the next hop is held. Every run begins with an empty queue.
func (b *bench) queue() error {
	for _, c := range matrix() {
		figures := make(map[string][]figure)
		for range *rounds {
			for _, start := range starters {
				s, stop, err := b.open(start, "queue")
				if err != nil {
					return err
				}
				if s == nil {
					continue
				}
				f, err := b.load(s, c)
				if err := errors.Join(err, stop()); err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				figures[s.name] = append(figures[s.name], f)
			}
		}
		b.progress("queue, %s", c)
		row("accept and queue, "+c.String(), rate, figures)
	}
	return nil
}

// through measures relay and local delivery, until nothing is left in the queue. Both servers stay up;
// the one whose turn it is not has nothing to do.
func (b *bench) through(job string) (err error) {
	sink, err := startSink(job)
	if err != nil {
		return err
	}
	defer sink()
	var servers []*server
	for _, start := range starters {
		s, stop, err2 := b.open(start, job)
		if err2 != nil {
			return errors.Join(err, err2)
		}
		if s != nil {
			servers = append(servers, s)
			defer func() { err = errors.Join(err, stop()) }()
		}
	}
	for _, c := range cross() {
		figures := make(map[string][]figure)
		for range *rounds {
			for _, s := range servers {
				f, err := b.load(s, c)
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				figures[s.name] = append(figures[s.name], f)
			}
		}
		b.progress("%s, %s", job, c)
		row(map[string]string{"relay": "relay to smtp-sink, ", "local": "deliver locally, "}[job]+c.String(), rate, figures)
	}
	return nil
}

// load finds out how many messages take about the time asked for, and then measures that many.
func (b *bench) load(s *server, c cell) (figure, error) {
	probe := max(50, 5*c.sessions)
	took, err := b.send(s, c, probe)
	if err != nil {
		return figure{}, err
	}
	n := min(max(int(*seconds/took.Seconds()*float64(probe)), probe), 200_000)
	return b.sendTimed(s, c, n)
}

// sendTimed measures n messages, up to an empty queue where the server has a way on for them.
func (b *bench) sendTimed(s *server, c cell, n int) (figure, error) {
	before := cpuTime(s.pid)
	took, err := b.send(s, c, n)
	if err != nil {
		return figure{}, err
	}
	cpu := cpuTime(s.pid) - before
	return figure{float64(n) / took.Seconds(), cpu.Seconds() * 1000 / float64(n)}, nil
}

// send sends n messages and returns how long it took until they were where they go.
func (b *bench) send(s *server, c cell, n int) (time.Duration, error) {
	cmd := exec.Command(b.source, "-d", "-s", strconv.Itoa(c.sessions), "-m", strconv.Itoa(n),
		"-l", strconv.Itoa(c.size), "-f", "bench@sender.test", "-t", s.rcpt, s.addr)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	if s.empty != nil {
		if err := s.empty(); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// peerGrowth is how far Postfix's queue is filled by default: more takes minutes.
const peerGrowth = 10_000

// growth measures what a message costs where so many wait already.
func (b *bench) growth() error {
	at := make(map[int]map[string][]figure)
	for _, start := range starters {
		s, stop, err := b.open(start, "queue")
		if err != nil {
			return err
		}
		if s == nil {
			continue
		}
		err = b.grow(s, at)
		if err := errors.Join(err, stop()); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for _, n := range numbers(*growth) {
		row(fmt.Sprintf("accept 1 KiB, 20 sessions, beside %d in the queue", n), rate, at[n])
	}
	return nil
}

func (b *bench) grow(s *server, at map[int]map[string][]figure) error {
	c, there := cell{1 << 10, 20}, 0
	for _, n := range numbers(*growth) {
		if s.slow && n > peerGrowth && !*full {
			return nil
		}
		if n > there {
			if _, err := b.send(s, c, n-there); err != nil {
				return err
			}
			there = n
		}
		if at[n] == nil {
			at[n] = make(map[string][]figure)
		}
		for range *rounds {
			burst := max(n/50, 500)
			f, err := b.sendTimed(s, c, burst)
			if err != nil {
				return err
			}
			there += burst
			at[n][s.name] = append(at[n][s.name], f)
		}
		b.progress("growth, %s with %d", s.name, n)
	}
	return nil
}
