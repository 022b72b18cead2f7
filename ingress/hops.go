package ingress

import (
	"net/http"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/guard"
)

// hopsOf returns how many callbacks led to a call. It refuses a call that goes in
// a circle: somebody's callback points to ingress, and its events have it called
// again.
func hopsOf(r *http.Request) (int, error) {
	hops, err := guard.ParseHops(r.Header.Values(guard.HeaderHops))
	switch {
	case err != nil:
		return 0, malformed("malformed request: " + guard.HeaderHops + " " + err.Error())
	case hops >= guard.MaxHops:
		return 0, errLoop
	}
	return hops, nil
}

// carrying has the events of a decision carry how many callbacks led to the call, and
// its trace.
func carrying(decide apply, hops int, trace string) apply {
	return func(current *contact.Contact) contact.Decision {
		decision := decide(current)
		for i := range decision.Events {
			decision.Events[i].Hops, decision.Events[i].Trace = hops, trace
		}
		return decision
	}
}
