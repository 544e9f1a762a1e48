package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// family calls fn with the fields of /proc/PID/stat, from the state on, of a process and of its living
// descendants.
func family(pid int, fn func(pid int, fields []string)) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	parent := make(map[int]int)
	all := make(map[int][]string)
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// The command in brackets may hold anything; what follows it is numbers.
		_, rest, ok := strings.Cut(string(b), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 15 {
			continue
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent[id], _ = strconv.Atoi(fields[1])
		all[id] = fields
	}
	for id, fields := range all {
		for up := id; up > 1; up = parent[up] {
			if up == pid {
				fn(id, fields)
				break
			}
		}
	}
}

// cpuTime returns the processor time of a process, its dead children and its living descendants.
func cpuTime(pid int) time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that runs Go
	var total int64
	family(pid, func(_ int, fields []string) {
		for _, f := range fields[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.ParseInt(f, 10, 64)
			total += n
		}
	})
	return time.Duration(total) * tick
}

// memory returns the proportional memory (PSS) of a process and its living descendants, in KiB: a page
// that several share counts once in all.
func memory(pid int) (kib int64, err error) {
	family(pid, func(id int, _ []string) {
		b, e := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", id))
		if e != nil {
			return // it has ended
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
				n, _ := strconv.ParseInt(f[1], 10, 64)
				kib += n
			}
		}
	})
	if kib == 0 {
		return 0, fmt.Errorf("the memory of process %d cannot be read", pid)
	}
	return kib, nil
}
