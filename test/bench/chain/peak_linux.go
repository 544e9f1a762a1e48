package main

import (
	"os"
	"syscall"
)

// peak returns the most resident memory that a process had, in octets.
func peak(s *os.ProcessState) int64 {
	if usage, ok := s.SysUsage().(*syscall.Rusage); ok {
		return usage.Maxrss << 10
	}
	return 0
}
