package dispatcher

import (
	"cmp"
	"slices"

	"postbus.dev/postbus/internal/contact"
)

// windowEvents is how many of the last events the window has at least.
const windowEvents = 4096

// window has the last events of the log, all of them up to the tail's position. A runner
// that is not far behind takes them from here, in place of a page of its own: of a
// thousand runners that fall behind together each would read and decode the same.
type window struct {
	// after is the position behind which no event is missing.
	after  int64
	events []*contact.Event
}

// add adds the event behind all others. An event that removes others from the log empties
// the window first.
func (w *window) add(event *contact.Event) {
	if event.Erases() {
		w.after, w.events = event.Position-1, nil
	}
	w.events = append(w.events, event)
	if len(w.events) >= 2*windowEvents { // seldom, because it copies
		drop := len(w.events) - windowEvents
		w.after, w.events = w.events[drop-1].Position, slices.Clone(w.events[drop:])
	}
}

// behind returns the events behind a position, if all of them are there.
func (w *window) behind(position int64) (events []*contact.Event, complete bool) {
	if position < w.after {
		return nil, false
	}
	first, found := slices.BinarySearchFunc(w.events, position, func(event *contact.Event, position int64) int {
		return cmp.Compare(event.Position, position)
	})
	if found {
		first++
	}
	return w.events[first:], true
}
