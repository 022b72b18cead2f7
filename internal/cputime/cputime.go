// Package cputime measures how much CPU time a function uses.
package cputime

import (
	"runtime"
	"time"
)

// Of runs a function and returns the CPU time that it used. Waiting for a CPU that other
// goroutines use is left out, where the operating system can tell. The function must do its
// work on the goroutine that calls it.
func Of(run func()) (used time.Duration) {
	runtime.LockOSThread() // the clock is the thread's
	defer runtime.UnlockOSThread()
	began := now()
	defer func() { used = now() - began }()
	run()
	return used
}
