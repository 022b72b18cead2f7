package postgres

import (
	"errors"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/encoding"
)

// plan is what steps decide and what is to be written for it. It works in memory
// alone and can be thrown away.
type plan struct {
	stored *stored
	// contacts and addresses are what the steps so far have made of stored; holders
	// and once too. A contact that was removed has the number 0.
	contacts  map[named]contactRow
	addresses map[int64]named
	holders   map[named]int64
	once      map[string]onceRow
	// unknown are external ids that nobody has asked about yet; they are taken to
	// be free.
	unknown names

	// head and lastContact are those of stored, with what the steps add.
	head, lastContact int64
	events            []contact.Event
	raisedBy          []int // of each event, the index of its step's result
	forgotten         []contact.Event
	writes            map[int64]*contactWrite
	counts            map[contact.ListKey]contact.Counts
	opened            []openedRow
	firsts            []*store.Once
	results           []store.ChangeResult
}

// contactWrite is what becomes of one contact's row.
type contactWrite struct {
	key        named
	externalID string
	row        contactRow
	// made: the row is not there yet. removed: it is to be there no more. moved:
	// the external id it has is another one.
	made, removed, moved bool
}

// openedRow is a row of deliveries that begins behind a position, unless it is
// there.
type openedRow struct {
	key   store.SubscriptionKey
	after int64
}

func newPlan(s *stored) *plan {
	return &plan{
		stored: s, head: s.head, lastContact: s.lastContact,
		contacts: map[named]contactRow{}, addresses: map[int64]named{}, holders: map[named]int64{}, once: map[string]onceRow{},
		writes: map[int64]*contactWrite{}, counts: map[contact.ListKey]contact.Counts{},
	}
}

// newDay tells whether the events are the first of their day.
func (p *plan) newDay() bool {
	return p.head > p.stored.head && (p.stored.lastDay == nil || !p.stored.lastDay.Equal(p.stored.day))
}

// take adds what one step does, and its result. The error is not a refusal.
func (p *plan) take(step *step) error {
	decision, err := p.run(step)
	var refused refusal
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	p.results = append(p.results, store.ChangeResult{Decision: decision, Err: err})
	return nil
}

func (p *plan) run(step *step) (decision contact.Decision, err error) {
	if step.change.Once != nil {
		first, repeated, err := p.recall(step.change.Once)
		if repeated || err != nil {
			return first, err
		}
	}
	if step.raise != nil {
		p.raise(*step.raise)
	} else if decision, err = p.change(step.change); err != nil {
		return contact.Decision{}, err
	}
	if step.change.Once != nil {
		err = p.remember(step.change.Once, &decision)
	}
	return decision, err
}

// recall returns the decision of the first call of this name, if there was one.
func (p *plan) recall(once *store.Once) (first contact.Decision, repeated bool, err error) {
	row, found := p.once[once.Key]
	if !found {
		row, found = p.stored.once[once.Key]
	}
	switch {
	case !found || !row.until.After(once.Now):
		return first, false, nil
	case row.fingerprint != once.Fingerprint:
		return first, false, refusal{store.ErrOnceReused}
	}
	first, err = encoding.DecodeDecision(row.decision)
	return first, true, err
}

// remember notes the decision of the first call of this name.
func (p *plan) remember(once *store.Once, decision *contact.Decision) error {
	encoded, err := encoding.Decision(decision)
	if err != nil {
		return err
	}
	p.once[once.Key] = onceRow{fingerprint: once.Fingerprint, decision: []byte(encoded), until: once.Until}
	p.firsts = append(p.firsts, once)
	return nil
}

func (p *plan) change(change store.Change) (contact.Decision, error) {
	current, key, err := p.find(change)
	if err != nil {
		return contact.Decision{}, err
	}
	decision := change.Apply(current)
	if decision.Refused != nil {
		return contact.Decision{}, refusal{decision.Refused}
	}
	if change.ContactID != 0 {
		decision.Changed = decision.Changed && current != nil
	}
	if !decision.Changed {
		return decision, nil
	}
	switch {
	case decision.Removed:
		p.remove(key, current)
	case decision.Contact.Email != "": // somebody who is not there can be forgotten
		if err := p.store(key, current, &decision.Contact); err != nil {
			return contact.Decision{}, err
		}
	}
	p.appendEvents(key, &decision)
	return decision, nil
}

// find returns the contact that a change names, nil when it is not there, and its
// address.
func (p *plan) find(change store.Change) (*contact.Contact, named, error) {
	key := named{change.List, change.Address}
	if change.ContactID != 0 {
		var known bool
		if key, known = p.addresses[change.ContactID]; !known {
			key = p.stored.addresses[change.ContactID]
		}
	}
	row, changed := p.contacts[key]
	if !changed {
		row = p.stored.contacts[key]
	}
	if row.id == 0 || key.list != change.List || (change.ContactID != 0 && row.id != change.ContactID) {
		return nil, key, nil
	}
	current, err := row.decode()
	return current, key, err
}

// store has a contact be written, and gives a new one its number.
func (p *plan) store(key named, current, next *contact.Contact) error {
	var before string
	if current != nil {
		next.ID, before = current.ID, current.ExternalID
	}
	if holder := p.holder(key.list, next, before); holder != 0 && (current == nil || holder != current.ID) {
		return refusal{store.ErrExternalIDTaken}
	}
	write := p.writes[next.ID]
	if current == nil {
		p.lastContact++
		next.ID = p.lastContact
		write = &contactWrite{key: key, made: true}
		p.addresses[next.ID] = key
	} else if write == nil {
		write = &contactWrite{key: key}
	}
	state, err := encoding.Contact(next)
	if err != nil {
		return err
	}
	write.row = contactRow{id: next.ID, revision: next.Revision, state: []byte(state)}
	write.externalID, write.moved = next.ExternalID, write.moved || before != next.ExternalID
	p.writes[next.ID], p.contacts[key] = write, write.row
	p.hold(key.list, before, 0)
	p.hold(key.list, next.ExternalID, next.ID)
	p.count(key.list, current, next)
	return nil
}

// holder returns who has the external id that a contact is to have, 0 for nobody.
func (p *plan) holder(list contact.ListKey, next *contact.Contact, before string) int64 {
	if next.ExternalID == "" || next.ExternalID == before {
		return 0
	}
	key := named{list, next.ExternalID}
	holder, known := p.holders[key]
	if !known {
		holder, known = p.stored.holders[key]
	}
	if !known {
		p.unknown.add(key)
	}
	return holder
}

func (p *plan) hold(list contact.ListKey, externalID string, holder int64) {
	if externalID != "" {
		p.holders[named{list, externalID}] = holder
	}
}

func (p *plan) remove(key named, current *contact.Contact) {
	write := p.writes[current.ID]
	if write == nil {
		write = &contactWrite{key: key, row: contactRow{id: current.ID}}
	}
	write.removed = true
	p.writes[current.ID], p.contacts[key] = write, contactRow{}
	p.hold(key.list, current.ExternalID, 0)
	p.count(key.list, current, nil)
}

// count keeps the list's counters; nil is a contact that is not there.
func (p *plan) count(list contact.ListKey, before, after *contact.Contact) {
	counts := p.counts[list]
	counts.Subscribed += encoding.Subscribed(after) - encoding.Subscribed(before)
	switch {
	case before == nil:
		counts.Contacts++
	case after == nil:
		counts.Contacts--
	}
	p.counts[list] = counts
}

// appendEvents puts what a decision raises at the end of the log.
func (p *plan) appendEvents(key named, decision *contact.Decision) {
	for i := range decision.Events {
		event := &decision.Events[i]
		event.List, event.Address, event.Contact = key.list, key.name, decision.Contact
		p.append(event)
		if event.Forget {
			p.forgotten = append(p.forgotten, *event)
		}
	}
	if !decision.OptInStarted {
		return
	}
	p.opened = append(p.opened, openedRow{key: store.MailKey(key.list), after: p.head})
	p.append(&contact.Event{
		Type: contact.EventOptInMail, Source: contact.SourceAPI, Time: decision.Contact.OptIn.RequestedAt,
		List: key.list, Address: key.name, Contact: decision.Contact,
	})
}

// raise puts an operational event, or a notice, at the end of the log. The caller
// keeps its own.
func (p *plan) raise(event contact.Event) {
	event.Address = event.Operation.Object()
	if event.Type == contact.EventNotice {
		p.opened = append(p.opened, openedRow{key: store.NoticeKey(event.List.Namespace), after: p.head})
	}
	p.append(&event)
}

// append gives an event its position and id.
func (p *plan) append(event *contact.Event) {
	p.head++
	event.Position, event.ID = p.head, store.EventID(p.head)
	event.Size = event.Measure()
	p.events = append(p.events, *event)
	p.raisedBy = append(p.raisedBy, len(p.results)) // the result follows
}
