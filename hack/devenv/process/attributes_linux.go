package process

import "syscall"

// attributes puts a child into a process group of its own, so that a Ctrl-C in
// the terminal reaches this process only, which stops its children in order;
// and has the kernel kill it when this process dies.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
