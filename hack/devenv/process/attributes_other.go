//go:build !unix

package process

import "syscall"

// attributes has nothing to ask for where there are no process groups.
func attributes() *syscall.SysProcAttr { return nil }
