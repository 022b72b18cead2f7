package expression

import (
	"strconv"
	"time"

	"github.com/google/cel-go/cel"

	"postbus.dev/postbus/internal/contact"
)

// The kinds of what an event has in it. The names are those of the format Standard,
// whose data has the same shape.
var (
	eventKind = newKind("Event",
		text("id", func(e *contact.Event) string { return e.ID }),
		text("type", func(e *contact.Event) string { return string(e.Type) }),
		moment("timestamp", func(e *contact.Event) time.Time { return e.Time }),
		text("namespace", func(e *contact.Event) string { return e.List.Namespace }),
		text("list", func(e *contact.Event) string { return e.List.Name }),
		text("source", func(e *contact.Event) string { return string(e.Source) }),
		field{"changed", cel.ListType(cel.StringType), func(object any) (any, bool) {
			changed := object.(*contact.Event).Changed
			return changed, len(changed) > 0
		}},
		field{"reason", reasonKind.celType, func(object any) (any, bool) {
			if reason := object.(*contact.Event).Reason; reason != nil {
				return reason, true
			}
			return &contact.Reason{}, false
		}},
		field{"contact", contactKind.celType, func(object any) (any, bool) {
			event := object.(*contact.Event)
			return &event.Contact, event.Operation == nil
		}},
		field{"operation", operationKind.celType, func(object any) (any, bool) {
			if operation := object.(*contact.Event).Operation; operation != nil {
				return operation, true
			}
			return &contact.Operation{}, false
		}},
	)

	// operationKind is what an operational event tells; an event of its type has not
	// all of it.
	operationKind = newKind("Operation",
		text("kind", func(o *contact.Operation) string { return o.Kind }),
		text("name", func(o *contact.Operation) string { return o.Name }),
		text("reason", func(o *contact.Operation) string { return string(o.Reason) }),
		field{"httpStatus", cel.IntType, func(object any) (any, bool) {
			status := object.(*contact.Operation).HTTPStatus
			return int64(status), status != 0
		}},
		momentIfAny("failingSince", func(o *contact.Operation) time.Time { return o.FailingSince }),
		momentIfAny("deactivationDue", func(o *contact.Operation) time.Time { return o.DeactivationDue }),
		momentIfAny("bufferedUntil", func(o *contact.Operation) time.Time { return o.BufferedUntil }),
		field{"bufferedEvents", cel.IntType, func(object any) (any, bool) {
			events := object.(*contact.Operation).Events
			return events, events != 0
		}},
		field{"replay", cel.BoolType, func(object any) (any, bool) {
			replay := object.(*contact.Operation).Replay
			return replay, replay
		}},
		momentIfAny("expiresAt", func(o *contact.Operation) time.Time { return o.ExpiresAt }),
		text("reactivateURL", func(o *contact.Operation) string { return o.ReactivateURL }),
	)

	contactKind = newKind("Contact",
		text("id", func(c *contact.Contact) string { return strconv.FormatInt(c.ID, 10) }),
		text("email", func(c *contact.Contact) string { return c.Email }),
		text("externalId", func(c *contact.Contact) string { return c.ExternalID }),
		number("permission", func(c *contact.Contact) int64 { return int64(c.Permission) }),
		field{"standardFields", standardFieldsKind.celType, func(object any) (any, bool) {
			fields := standardFields(object.(*contact.Contact).StandardFields)
			return fields, len(fields) > 0
		}},
		field{"customFields", cel.MapType(cel.StringType, cel.DynType), func(object any) (any, bool) {
			fields := object.(*contact.Contact).CustomFields
			return fields, len(fields) > 0
		}},
		text("customSource", func(c *contact.Contact) string { return c.Source }),
		text("subscriptionPage", func(c *contact.Contact) string { return c.SubscriptionPage }),
		number("revision", func(c *contact.Contact) int64 { return c.Revision }),
		moment("createdAt", func(c *contact.Contact) time.Time { return c.CreatedAt }),
		moment("updatedAt", func(c *contact.Contact) time.Time { return c.UpdatedAt }),
	)

	reasonKind = newKind("Reason",
		field{"code", cel.IntType, func(object any) (any, bool) {
			if code := object.(*contact.Reason).Code; code != nil {
				return *code, true
			}
			return 0, false
		}},
		text("name", func(r *contact.Reason) string { return r.Name }),
		text("text", func(r *contact.Reason) string { return r.Text }),
	)

	// standardFieldsKind has every standard field there is, so that one which is not
	// set is empty, and one which does not exist is an error of the expression.
	standardFieldsKind = newKind("StandardFields", standardFieldsFields()...)
)

// standardFields are a contact's that are set, by name.
type standardFields map[string]string

func standardFieldsFields() (fields []field) {
	for _, name := range contact.StandardFields() {
		fields = append(fields, field{name, cel.StringType, func(object any) (any, bool) {
			value, set := object.(standardFields)[name]
			return value, set
		}})
	}
	return fields
}

// kindOf returns the kind of a Go value, nil when it is none.
func kindOf(value any) *kind {
	switch value.(type) {
	case *contact.Event:
		return eventKind
	case *contact.Contact:
		return contactKind
	case *contact.Reason:
		return reasonKind
	case *contact.Operation:
		return operationKind
	case standardFields:
		return standardFieldsKind
	default:
		return nil
	}
}

// text declares a field that is set unless it is empty.
func text[T any](name string, get func(*T) string) field {
	return field{name, cel.StringType, func(object any) (any, bool) {
		value := get(object.(*T))
		return value, value != ""
	}}
}

// number declares a field that is always set.
func number[T any](name string, get func(*T) int64) field {
	return field{name, cel.IntType, func(object any) (any, bool) { return get(object.(*T)), true }}
}

// moment declares a field that is always set.
func moment[T any](name string, get func(*T) time.Time) field {
	return field{name, cel.TimestampType, func(object any) (any, bool) { return get(object.(*T)), true }}
}

// momentIfAny declares a field that is set unless it is zero.
func momentIfAny[T any](name string, get func(*T) time.Time) field {
	return field{name, cel.TimestampType, func(object any) (any, bool) {
		at := get(object.(*T))
		return at, !at.IsZero()
	}}
}
