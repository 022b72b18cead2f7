package dispatcher

import (
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/expression"
)

// chosen are the events that a subscription's own filter chooses. Its zero value,
// that of a subscription without one, are all. Operational events are not a
// filter's to choose.
type chosen struct {
	filter *expression.Filter
	// broken is why the filter can't be used, although the controller accepted it:
	// another version of it did.
	broken error
}

func newChosen(source string) chosen {
	if source == "" {
		return chosen{}
	}
	filter, err := expression.CompileFilter(source)
	return chosen{filter: filter, broken: err}
}

// has tells whether an event is to be sent. One that the filter fails with is taken
// too, so that it is not lost: its attempt tells of it.
func (c chosen) has(event *contact.Event) bool {
	matches, err := c.decide(event)
	return matches || err != nil
}

// check returns what the filter fails with.
func (c chosen) check(event *contact.Event) error {
	_, err := c.decide(event)
	return err
}

func (c chosen) decide(event *contact.Event) (bool, error) {
	switch {
	case isOperational(event):
		return true, nil
	case c.filter == nil:
		return true, c.broken
	}
	return c.filter.Matches(event)
}

// hasExpressions reports whether an attempt evaluates an expression.
func (s *subscription) hasExpressions() bool {
	_, is := s.format.(template)
	return is || s.chosen.filter != nil
}

// template is JSON as a subscription's own expression says.
type template struct {
	compiled *expression.Template
	// broken is why it can't be used, although the controller accepted it.
	broken error
}

func newTemplate(source string) template {
	compiled, err := expression.CompileTemplate(source)
	return template{compiled: compiled, broken: err}
}

func (template) knows(event *contact.Event) bool {
	return isOfContact(event) || isOperational(event)
}

func (t template) render(event *contact.Event, _ *listNumbers) (payload, error) {
	if t.compiled == nil {
		return payload{}, t.broken
	}
	body, err := t.compiled.Render(event)
	return payload{body: body, contentType: contentTypeJSON}, err
}
