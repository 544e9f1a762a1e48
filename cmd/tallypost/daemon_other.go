//go:build !unix

package main

import "errors"

func daemonize(bool) (parent bool, ready func(), err error) {
	return true, nil, errors.New("-daemon is not supported on this operating system")
}

var errDaemon = errors.New("")
