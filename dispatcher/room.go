package dispatcher

import "postbus.dev/postbus/internal/contact"

// What is in this file decides whether a ledger has room for more events, in bytes. The number
// of them is bounded by room and replayRoom.
//
// Live events and those of a replay have bounds of their own, as a live event may wait for
// earlier ones of its contact that a replay has still to take. Of each kind one event is taken
// whatever its size where none is open, so neither ever stands still; all others must also fit
// into the subscription's share of the budget of the dispatcher.

// bytesOf returns what an open event takes of memory. An event that several subscriptions have
// from the window is counted by each, although it is in memory once.
func bytesOf(event *contact.Event) int64 { return int64(event.Size) + openEventBytes }

// undecided are events that are neither open nor passed.
type undecided struct {
	events int
	bytes  int64
}

// countUndecided sets how many events are undecided.
func (l *ledger) countUndecided(live, replay undecided) {
	l.pending.force(live.bytes + replay.bytes - l.undecidedLive.bytes - l.undecidedReplay.bytes)
	l.undecidedLive, l.undecidedReplay = live, replay
}

// liveBytes returns the bytes of the events that room counts.
func (l *ledger) liveBytes() int64 {
	return l.pending.used - l.undecidedReplay.bytes - min(l.replayedBytes, maxReplayedBytes)
}

// byteRoom returns how many bytes of live events can be taken.
func (l *ledger) byteRoom() int64 {
	if l.life.Deactivation != nil {
		return max(0, maxOpenBytes-l.undecidedLive.bytes) // those that are decided are counted, not opened
	}
	return max(0, min(maxOpenBytes-l.liveBytes(), l.pending.room()))
}

// fits reports whether there is room for an event from the end of the log.
func (l *ledger) fits(event *contact.Event) bool {
	room := l.room()
	switch {
	case room == 0:
		return false
	case room == maxOpen || bytesOf(event) <= l.byteRoom():
		l.needed = 0
		return true
	}
	l.needed = bytesOf(event)
	return false
}

// hasRoom reports whether more live events can be taken.
func (l *ledger) hasRoom() bool {
	return l.room() == maxOpen || l.room() > 0 && l.byteRoom() > l.needed
}

// hasPageRoom reports whether it is worthwhile to read a page of live events: whether a
// quarter of what the ledger can have is free, and enough for what did not fit before.
func (l *ledger) hasPageRoom() bool {
	room, bytes := l.room(), l.byteRoom()
	return room == maxOpen || room >= catchUpRoom && bytes >= max(l.needed, l.liveBytes()/3)
}

// replayedActive returns the bytes of a replay's open events, but for those that wait for
// earlier ones of it, as in replayRoom.
func (l *ledger) replayedActive() int64 {
	bytes := l.replayedBytes + l.undecidedReplay.bytes
	for _, e := range l.waiting {
		if e.replayed {
			bytes -= bytesOf(e.event)
		}
	}
	return bytes
}

// replayByteRoom returns how many bytes of a replay's events can be taken.
func (l *ledger) replayByteRoom() int64 {
	return max(0, min(maxReplayedBytes-l.replayedActive(), l.pending.room()))
}

// fitsReplay is fits for an event of a replay. What is open already takes no more room.
func (l *ledger) fitsReplay(event *contact.Event) bool {
	room := l.replayRoom()
	switch {
	case l.open[event.Position] != nil:
		return true
	case room == 0:
		return false
	case room == maxReplayed || bytesOf(event) <= l.replayByteRoom():
		l.replayNeeded = 0
		return true
	}
	l.replayNeeded = bytesOf(event)
	return false
}

// hasReplayPageRoom is hasPageRoom for a replay.
func (l *ledger) hasReplayPageRoom() bool {
	room := l.replayRoom()
	return room == maxReplayed ||
		room >= minReplayRoom && l.replayByteRoom() >= max(l.replayNeeded, l.replayedActive()/3)
}

// pageBytes is how many bytes of events a page of the log has at most, and one event more.
const pageBytes = 4 << 20

// pageOf returns how many bytes a page may have for a ledger with so much room: at least 1, as
// 0 is no limit to a store.
func pageOf(room int64) int { return int(max(1, min(pageBytes, room))) }
