//go:build unix

package smtp

import "syscall"

const canReadFD = true

var errWouldBlock error = syscall.EAGAIN

// readFD reads from a non-blocking descriptor; errWouldBlock says that there is nothing.
func readFD(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
