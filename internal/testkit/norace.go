//go:build !race

package testkit

// raceDetector tells whether the test program has it.
const raceDetector = false
