package dispatcher

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestIntervalOfCheckpoints(t *testing.T) {
	for rows, interval := range map[int]time.Duration{
		0: checkpointInterval, 1: checkpointInterval, 100: checkpointInterval, 101: 2 * checkpointInterval,
		1000: longestInterval, 5000: longestInterval,
	} {
		NewWithT(t).Expect(intervalOf(rows)).To(Equal(interval), "of %d rows", rows)
	}
}
