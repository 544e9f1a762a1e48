//go:build !unix

package smtp

import "errors"

// Elsewhere an idle connection keeps its buffer.
const canReadFD = false

var errWouldBlock = errors.New("would block")

func readFD(uintptr, []byte) (int, error) { return 0, errWouldBlock }
