package dispatcher

import (
	"cmp"
	"slices"

	"postbus.dev/postbus/internal/contact"
)

const (
	// windowEvents is how many of the last events the window has at least, unless that are
	// more bytes than windowBytes / 2.
	windowEvents = 4096
	// windowBytes is how many bytes the events of the window have at most.
	windowBytes = 32 << 20
)

// window has the last events of the log, all of them up to the tail's position. A runner
// that is not far behind takes them from here, in place of a page of its own: of a
// thousand runners that fall behind together each would read and decode the same.
type window struct {
	// after is the position behind which no event is missing.
	after  int64
	events []*contact.Event
	// bytes are those of the events.
	bytes int64
}

// add adds the event behind all others. An event that removes others from the log empties
// the window first.
func (w *window) add(event *contact.Event) {
	if event.Erases() {
		w.after, w.events, w.bytes = event.Position-1, nil, 0
	}
	w.events = append(w.events, event)
	w.bytes += int64(event.Size)
	if len(w.events) >= 2*windowEvents || w.bytes > windowBytes {
		w.shrink()
	}
}

// shrink drops the oldest events, so many that it is not called again soon, because it
// copies. The last event stays.
func (w *window) shrink() {
	drop := 0
	for ; drop < len(w.events)-1 && (len(w.events)-drop > windowEvents || w.bytes > windowBytes/2); drop++ {
		w.bytes -= int64(w.events[drop].Size)
	}
	if drop > 0 {
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
