package dispatcher

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"postbus.dev/postbus/internal/store"
)

// What is in this file decides which dispatcher ought to own a row. Each decides
// it for itself, from the names of the living alone; where two disagree for a
// moment the store lets one of them have the row.

// leaving ends the second name of a dispatcher that is about to end. It keeps its
// first name, and so its rows, until the last attempt has ended; by the second the
// others know that they are to take them.
const leaving = " (leaving)"

// candidatesOf returns those of the living that may own rows: all but those that
// are about to end.
func candidatesOf(living []string) (candidates []string) {
	for _, name := range living {
		if !strings.HasSuffix(name, leaving) && !slices.Contains(living, name+leaving) {
			candidates = append(candidates, name)
		}
	}
	return candidates
}

// ownerOf returns which of the candidates ought to own a row, by rendezvous hashing
// (Thaler and Ravishankar, 1998): the one whose name's hash and that of the row's key
// together have the highest hash. So each candidate gets its even part of the rows, and one that
// comes or goes moves no others than those that are its own. Empty when there is none.
func ownerOf(key store.SubscriptionKey, candidates []string) (owner string) {
	var (
		highest uint64
		pair    [16]byte
	)
	binary.LittleEndian.PutUint64(pair[:8], xxhash.Sum64String(key.Namespace+"\x00"+key.Name)) // no name has a zero byte
	for _, candidate := range candidates {
		binary.LittleEndian.PutUint64(pair[8:], xxhash.Sum64String(candidate))
		hash := xxhash.Sum64(pair[:])
		if owner == "" || hash > highest || (hash == highest && candidate < owner) {
			owner, highest = candidate, hash
		}
	}
	return owner
}
