//go:build unix && !linux

package process

import "syscall"

// attributes puts a child into a process group of its own, so that a Ctrl-C in
// the terminal reaches this process only, which stops its children in order.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
