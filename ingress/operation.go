package ingress

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/tracing"
)

// operation is what a path lets a caller with an API key do to a contact.
type operation struct {
	// scope is what the key must have.
	scope v1alpha1.ApiKeyScope
	// parameters are the names that it knows, beside key and email.
	parameters []string
	// fields tells that it knows standard_<FIELD> and custom_<Field> too.
	fields bool
	// limited: the namespace's limit of the log holds for it. Whoever wants to leave is
	// never refused.
	limited bool
	// decide checks the parameters and returns what the call does.
	decide func(call call) (apply, error)
	// answer returns the body of a 200.
	answer func(list string, decision *contact.Decision) any
}

// apply decides what a call does to the stored contact, nil when there is none.
type apply func(current *contact.Contact) contact.Decision

// contactPath is Maileon's.
const contactPath = "/webhooks/contacts/email"

// operations are what a call can do to one contact, by path.
var operations = map[string]operation{
	contactPath: {
		scope: v1alpha1.ScopeContactsWrite,
		parameters: []string{
			externalIDParameter, permissionParameter, syncModeParameter, sourceParameter,
			subscriptionPageParameter, doiParameter, doiPlusParameter, doiMailingParameter,
		},
		fields: true, limited: true, decide: call.save, answer: savedAnswer,
	},
	"/webhooks/contacts/unsubscribe": {
		scope: v1alpha1.ScopeContactsRemove, parameters: []string{reasonParameter, reasonTextParameter},
		decide: call.unsubscribe, answer: removedAnswer,
	},
	"/webhooks/contacts/delete": {
		scope: v1alpha1.ScopeContactsRemove, parameters: []string{forgetParameter},
		decide: call.remove, answer: removedAnswer,
	},
}

// The parameters that every operation knows.
const (
	keyParameter   = "key"
	emailParameter = "email"
)

// call is a request of an accepted key.
type call struct {
	grant grant
	given map[string]string
	// address is the contact's.
	address contact.Address
	// at is when it came.
	at time.Time
	// hops is how many callbacks led to it.
	hops int
	// trace is what its events carry of its trace; empty when there is none.
	trace string
}

// operate answers a call of an operation.
func (s *server) operate(admitted *admittedCall, r *http.Request, o operation) (answer any, err error) {
	if err := s.checkCaller(r, http.MethodPost); err != nil {
		return nil, err
	}
	call, err := s.admit(r, o.scope)
	if err != nil {
		return nil, err
	}
	if err := s.checkShare(admitted, call.grant, o); err != nil {
		return nil, err
	}
	ctx, span := s.accept(r, call.grant.list, call.at)
	defer func() { endCall(span, err) }()
	call.trace = tracing.Carried(ctx)
	s.metrics.unknown.Add(float64(o.countUnknown(call.given)))
	once, err := call.once(r)
	if err != nil {
		return nil, err
	}
	change, err := call.change(o)
	if err != nil {
		return nil, err
	}
	change.Once = once
	decision, err := s.options.Contacts.Change(ctx, change)
	if err != nil {
		return nil, err
	}
	s.count(change.List, &decision)
	return o.answer(change.List.Name, &decision), nil
}

// checkShare checks what the key and its namespace hold already.
func (s *server) checkShare(admitted *admittedCall, granted grant, o operation) error {
	if o.limited {
		if err := s.logBytes.check(granted.list.Namespace, s.now()); err != nil {
			return err
		}
	}
	return admitted.claim(granted.key)
}

// count counts what was made of a contact.
func (s *server) count(list contact.ListKey, decision *contact.Decision) {
	s.metrics.countContact(decision)
	s.logBytes.add(list.Namespace, decision.LogBytes, s.now())
}

// admit reads the request and checks its key.
func (s *server) admit(r *http.Request, scope v1alpha1.ApiKeyScope) (call, error) {
	hops, err := hopsOf(r)
	if err != nil {
		return call{}, err
	}
	in, err := readInput(r)
	if err != nil {
		return call{}, err
	}
	presented, err := in.key()
	if err != nil {
		return call{}, err
	}
	granted, err := s.keys.grant(r.Context(), presented, scope)
	if err != nil {
		return call{}, err
	}
	given, err := in.merge(granted.list.Spec.CustomFields)
	return call{grant: granted, given: given, at: s.now().UTC(), hops: hops}, err
}

// change checks the parameters and says what to do to which contact.
func (c call) change(o operation) (change store.Change, err error) {
	if c.address, err = contact.ParseAddress(c.given[emailParameter]); err != nil {
		return store.Change{}, err
	}
	decide, err := o.decide(c)
	if err != nil {
		return store.Change{}, err
	}
	list := c.grant.list
	return store.Change{
		List:    contact.ListKey{Namespace: list.Namespace, Name: list.Name},
		Address: c.address.Key, Apply: carrying(decide, c.hops, c.trace),
	}, nil
}

// source returns what the events of the key's calls carry.
func (g grant) source() v1alpha1.EventSource {
	if g.key.Spec.Source == "" {
		return contact.SourceAPI
	}
	return g.key.Spec.Source
}

// countUnknown counts the parameters that nothing is called. Form builders add
// their own, so they are ignored.
func (o operation) countUnknown(given map[string]string) (unknown int) {
	for name := range given {
		known := name == keyParameter || name == emailParameter || slices.Contains(o.parameters, name) ||
			o.fields && (strings.HasPrefix(name, contact.StandardPrefix) || strings.HasPrefix(name, contact.CustomPrefix))
		if !known {
			unknown++
		}
	}
	return unknown
}

// flag reads a parameter that is true or false, false where it is not given.
func (c call) flag(name string) (bool, error) {
	text, given := c.given[name]
	if !given {
		return false, nil
	}
	switch strings.TrimSpace(text) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, illegalValue(name, "must be true or false")
}

func illegalValue(parameter, rule string) error {
	return &contact.InputError{Problem: contact.IllegalParameter, Parameter: parameter, Name: parameter, Rule: rule}
}
