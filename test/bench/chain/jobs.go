package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tallypost/tallypost/test/bench/chainfile"
)

// scripts imports the chain of all types of inputs and runs all scripts.
func scripts(t *table) error {
	file, err := chainfile.Scripts(*chains, *inputs)
	if err != nil {
		return err
	}
	t.section("%d inputs of all types, all scripts run", *inputs)
	return t.imports(task{mode: "import", file: file, cache: *cache}, *rounds)
}

// assumeValid imports the same chain and leaves the scripts out.
func assumeValid(t *table) error {
	file, err := chainfile.Scripts(*chains, *inputs)
	if err != nil {
		return err
	}
	t.section("the same with assumevalid (btcd: a checkpoint)")
	return t.imports(task{mode: "import", file: file, cache: *cache, assume: true}, *rounds)
}

// coinsJob imports the chain of many coins with a small cache.
func coinsJob(t *table) error {
	file, err := chainfile.Coins(*chains, *coins, *spends)
	if err != nil {
		return err
	}
	t.section("%d coins, %d spends, %d MiB of cache, assumevalid", *coins, *spends, *small)
	return t.imports(task{mode: "import", file: file, cache: *small, assume: true}, 1)
}

// latency hands over blocks one by one and takes the time from the octets to the new tip.
func latency(t *table) error {
	file, err := chainfile.Payments(*chains, *blocks, *txs)
	if err != nil {
		return err
	}
	results, err := t.rounds(task{mode: "connect", file: file, cache: *cache}, 1)
	if err != nil {
		return err
	}
	rows := []struct {
		name string
		of   func(r *result) []time.Duration
	}{
		{"none known before", func(r *result) []time.Duration { return r.times.Unknown }},
		{"all known before", func(r *result) []time.Duration { return r.times.Known }},
		{"these into the mempool", func(r *result) []time.Duration { return r.times.Accepts }},
	}
	t.section("a block of %d payments: octets to new tip", *txs)
	for _, row := range rows {
		t.row(row.name, func(i int) float64 {
			if len(results[i]) == 0 {
				return 0
			}
			return median(row.of(&results[i][0])).Seconds() * 1000
		}, "ms")
	}
	return nil
}

// imports runs a task in rounds and prints what it took.
func (t *table) imports(job task, rounds int) error {
	results, err := t.rounds(job, rounds)
	if err != nil {
		return err
	}
	of := func(f func(r *result) float64) func(i int) float64 {
		return func(i int) float64 {
			var values []float64
			for k := range results[i] {
				values = append(values, f(&results[i][k]))
			}
			return median(values)
		}
	}
	t.row("time", of(func(r *result) float64 { return r.wall.Seconds() }), "s")
	t.row("processor time", of(func(r *result) float64 { return r.cpu.Seconds() }), "s")
	t.row("peak memory", of(func(r *result) float64 { return float64(r.peak >> 20) }), "MiB")
	return nil
}

// rounds has the contestants do a task in turn; each has its results in the order of the rounds.
func (t *table) rounds(job task, rounds int) ([][]result, error) {
	results := make([][]result, len(t.contestants))
	for round := range rounds {
		for i := range t.contestants {
			c := &t.contestants[i]
			late := round > 0 && len(results[i]) == 0
			if c.absent != "" || late || c.scripts && job.assume || c.command(job, "") == nil {
				continue
			}
			if i == 0 && round == rounds-1 {
				job.profile = *profile
			}
			r, err := c.run(job)
			job.profile = ""
			if err == errLate {
				t.notes = append(t.notes, fmt.Sprintf("%s was not done with %s within %v.", c.name,
					filepath.Base(job.file.Path), *limit))
				continue
			}
			if err != nil {
				return nil, err
			}
			results[i] = append(results[i], r)
		}
	}
	return results, nil
}

func median[T time.Duration | float64](values []T) T {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// rivals are the contestants that the first one is divided by: btcd and Bitcoin Core.
var rivals = [...]int{1, 2}

// table prints what was measured in Markdown, line by line.
type table struct {
	contestants []contestant
	notes       []string // printed after it
}

func (t *table) head() {
	line := []string{""}
	for _, c := range t.contestants {
		line = append(line, c.name)
		if c.absent != "" {
			fmt.Printf("%s is not measured: %s\n\n", c.name, c.absent)
		}
	}
	for _, i := range rivals {
		line = append(line, t.contestants[i].name+" / "+t.contestants[0].name)
	}
	fmt.Println("| " + strings.Join(line, " | ") + " |")
	fmt.Println(strings.Repeat("|---", len(line)) + "|")
}

func (t *table) section(format string, args ...any) {
	fmt.Printf("| **%s** |%s\n", fmt.Sprintf(format, args...),
		strings.Repeat(" |", len(t.contestants)+len(rivals)))
}

// row prints the values of the contestants; 0 is one that was not measured.
func (t *table) row(name string, value func(i int) float64, unit string) {
	line := []string{name + ", " + unit}
	for i := range t.contestants {
		if v := value(i); v != 0 {
			line = append(line, digits(v))
		} else {
			line = append(line, "not measured")
		}
	}
	for _, i := range rivals {
		ratio := "not measured"
		if mine, theirs := value(0), value(i); mine != 0 && theirs != 0 {
			ratio = fmt.Sprintf("%.2f", theirs/mine)
		}
		line = append(line, ratio)
	}
	fmt.Println("| " + strings.Join(line, " | ") + " |")
}

// digits writes a value with what is worth reading of it.
func digits(v float64) string {
	switch {
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
