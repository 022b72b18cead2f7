package main

import (
	"context"
	"errors"
	"fmt"
)

// grownContacts is how many contacts the growth is told by: so many that pages which are
// not full yet say nothing.
const grownContacts = 20_000

// growth is how many bytes a store grows by, with its indexes: by a new contact that
// subscribes, which is the contact and two events, and by an event. The second is what
// contacts with two events take more than those with one.
func growth(e engine) trial {
	return trial{
		name: fmt.Sprintf("store, %s", e),
		measure: on(e, func(ctx context.Context, i *installation, found *facts) error {
			// The first ones make tables and indexes that are no longer empty.
			if _, err := i.grow(ctx, importing{name: "first", contacts: grownContacts / 4}); err != nil {
				return err
			}
			one, err := i.grow(ctx, importing{name: "one", contacts: grownContacts})
			if err != nil {
				return err
			}
			two, err := i.grow(ctx, importing{name: "two", contacts: grownContacts, subscribed: true})
			found.add(fact{name: "a new contact with its two events", unit: "bytes"}, two/grownContacts)
			found.add(fact{name: "an event", unit: "bytes"}, (two-one)/grownContacts)
			return err
		}),
	}
}

// grow returns how many bytes the store grows by when contacts are imported. Postbus does
// not run while it is looked at, so that there is no log before the tables.
func (i *installation) grow(ctx context.Context, contacts importing) (bytes float64, err error) {
	before, err := i.sizeAtRest(ctx)
	if err != nil {
		return 0, err
	}
	if err := contacts.run(ctx, i); err != nil {
		return 0, err
	}
	after, err := i.sizeAtRest(ctx)
	return after - before, err
}

func (i *installation) sizeAtRest(ctx context.Context) (bytes float64, err error) {
	if err := i.dispatcher().stop(); err != nil {
		return 0, err
	}
	bytes, err = i.store.size(ctx, i.plane)
	return bytes, errors.Join(err, i.start(ctx, i.dispatcher()))
}
