package ingress

import (
	"net/http"
	"slices"
	"strings"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// saveContact answers POST /webhooks/contacts/email.
func (s *server) saveContact(r *http.Request) (accepted, error) {
	if err := s.checkCaller(r); err != nil {
		return accepted{}, err
	}
	in, err := readInput(r)
	if err != nil {
		return accepted{}, err
	}
	presented, err := in.key()
	if err != nil {
		return accepted{}, err
	}
	granted, err := s.keys.grant(r.Context(), presented)
	if err != nil {
		return accepted{}, err
	}
	given, err := in.merge(granted.list.Spec.CustomFields)
	if err != nil {
		return accepted{}, err
	}
	s.metrics.unknown.Add(float64(countUnknown(given)))
	call := call{given: given, list: &granted.list.Spec}
	save, err := call.save()
	if err != nil {
		return accepted{}, err
	}
	save.EventSource = granted.source()
	save.Time = s.now().UTC()
	decision, err := s.options.Contacts.Change(r.Context(), store.Change{
		List:    contact.ListKey{Namespace: granted.list.Namespace, Name: granted.list.Name},
		Address: save.Address.Key,
		Apply:   save.Decide,
	})
	if err != nil {
		return accepted{}, err
	}
	s.metrics.countContact(&decision)
	return acceptedOf(granted.list.Name, &decision), nil
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
func countUnknown(given map[string]string) (unknown int) {
	for name := range given {
		if !slices.Contains(parameters, name) &&
			!strings.HasPrefix(name, contact.StandardPrefix) && !strings.HasPrefix(name, contact.CustomPrefix) {
			unknown++
		}
	}
	return unknown
}
