package main

import "syscall"

// childAttr makes a server of the demonstration end with the process that started it, however that ends,
// and not hear of the Ctrl-C that is meant for it.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
