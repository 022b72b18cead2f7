package guard_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/guard"
)

func TestParseHops(t *testing.T) {
	for name, row := range map[string]struct {
		values []string
		hops   int
		bad    bool
	}{
		"none":       {nil, 0, false},
		"a number":   {[]string{"2"}, 2, false},
		"many":       {[]string{"1000000"}, 1000000, false},
		"two values": {[]string{"1", "2"}, 0, true},
		"no number":  {[]string{"two"}, 0, true},
		"a negative": {[]string{"-1"}, 0, true},
		"nothing":    {[]string{""}, 0, true},
		"too many":   {[]string{"99999999999999999999"}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			hops, err := guard.ParseHops(row.values)
			g.Expect(hops).To(Equal(row.hops))
			g.Expect(err != nil).To(Equal(row.bad))
		})
	}
}
