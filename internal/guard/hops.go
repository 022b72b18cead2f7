package guard

import (
	"errors"
	"strconv"
)

// HeaderHops is the header that tells how many callbacks one after the other led
// to a call: 1 on the callback of an event that nobody's callback has led to. A
// callback that points to ingress raises events whose callbacks have one more, so
// a circle ends.
const HeaderHops = "Postbus-Hops"

// MaxHops is how many hops a call has that ingress does not take any more.
const MaxHops = 3

// errHops says what a value of HeaderHops must be.
var errHops = errors.New("must be one number")

// ParseHops reads the values of HeaderHops in a call; 0 when there are none.
func ParseHops(values []string) (int, error) {
	if len(values) == 0 {
		return 0, nil
	}
	hops, err := strconv.ParseUint(values[0], 10, 31)
	if err != nil || len(values) > 1 {
		return 0, errHops
	}
	return int(hops), nil
}
