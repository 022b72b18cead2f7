package ingress

import (
	"strconv"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// The parameters of what ends a contact.
const (
	reasonParameter     = "reason"
	reasonTextParameter = "reason_text"
	forgetParameter     = "forget"
)

// unsubscribe ends a contact that leaves.
func (c call) unsubscribe() (apply, error) {
	reason, err := contact.ParseReason(c.given[reasonParameter], c.given[reasonTextParameter])
	if err != nil {
		return nil, err
	}
	removal := c.removal(contact.EventUnsubscribe)
	removal.Reason = reason
	return removal.Decide, nil
}

// remove ends a contact that somebody removes, and with forget=true every trace
// of the person.
func (c call) remove() (apply, error) {
	forget, err := c.flag(forgetParameter)
	if err != nil {
		return nil, err
	}
	removal := c.removal(contact.EventDelete)
	removal.Forget = forget
	return removal.Decide, nil
}

func (c call) removal(event v1alpha1.EventType) contact.Removal {
	return contact.Removal{Event: event, EventSource: c.grant.source(), Time: c.at}
}

// removed is the body of a 200 to a call that ends a contact.
type removed struct {
	Contact removedContact `json:"contact"`
}

type removedContact struct {
	// ID is not there when the contact was not.
	ID      string `json:"id,omitempty"`
	List    string `json:"list"`
	Removed bool   `json:"removed"`
}

func removedAnswer(list string, decision *contact.Decision) any {
	answer := removed{Contact: removedContact{List: list, Removed: decision.Removed}}
	if decision.Removed {
		answer.Contact.ID = strconv.FormatInt(decision.Contact.ID, 10)
	}
	return answer
}
