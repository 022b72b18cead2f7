package testkit

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

// Allocated is what a part of some work, such as a call, allocates on the heap, in
// the whole process.
type Allocated struct {
	// Objects is how many allocations it makes, Bytes how large they are together.
	Objects, Bytes float64
}

// ExpectWithin fails a test where more is allocated, and logs how much is.
func (a Allocated) ExpectWithin(t testing.TB, bound Allocated) {
	t.Helper()
	t.Logf("%.1f allocations (bound %.0f), %.0f bytes (bound %.0f)", a.Objects, bound.Objects, a.Bytes, bound.Bytes)
	if a.Objects > bound.Objects || a.Bytes > bound.Bytes {
		t.Error("more is allocated than may be: save it elsewhere, or say in the commit why it is worth it")
	}
}

// SkipUnderRaceDetector skips a test that counts allocations: the race detector makes
// some, and empties pools. hack/test.sh runs it once more without.
func SkipUnderRaceDetector(t testing.TB) {
	t.Helper()
	if raceDetector {
		t.Skip("allocations are counted without the race detector, see hack/test.sh")
	}
}

// LeastAllocated returns what a part of the work of a round allocates, in the round
// of several that allocates least: what else the process does is in the others. round
// returns how many parts it had. The garbage collector rests meanwhile, as it
// empties pools.
func LeastAllocated(rounds int, round func() (parts int)) Allocated {
	least := Allocated{Objects: math.Inf(1), Bytes: math.Inf(1)}
	for range rounds {
		objects, bytes, parts := allocated(round)
		least.Objects = min(least.Objects, float64(objects)/float64(parts))
		least.Bytes = min(least.Bytes, float64(bytes)/float64(parts))
	}
	return least
}

func allocated(round func() int) (objects, bytes uint64, parts int) {
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	parts = round()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs, after.TotalAlloc - before.TotalAlloc, parts
}
