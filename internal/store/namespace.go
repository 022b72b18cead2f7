package store

import (
	"context"

	"postbus.dev/postbus/internal/contact"
)

// Namespaces binds the data that the store holds under a namespace's name to the UID of
// one Namespace object, so that a Namespace that is created later under the same name
// gets none of it. Only the controller writes bindings.
type Namespaces interface {
	// LoadNamespace returns the binding of a namespace. It is zero, but for Name, while
	// the namespace is not bound.
	LoadNamespace(ctx context.Context, name string) (Namespace, error)
	// AdoptNamespace binds a namespace to another UID and keeps all of its data. An empty
	// from binds a namespace that is not bound. Nothing happens when the namespace is
	// already bound to the UID to. ErrBound: it is bound to neither.
	AdoptNamespace(ctx context.Context, name, from, to string) error
	// RenewNamespace binds a namespace to another UID, and leaves it none of the data: its
	// events begin at the end of the log, and its deliveries, templates and key usage are
	// removed. Nothing happens when the namespace is already bound to the UID to.
	// ErrBound: it is bound to neither UID, or the store still holds a contact or a
	// subscription's delivery of the namespace.
	RenewNamespace(ctx context.Context, name, from, to string) error
	// BindObject notes that an object of the API server, named by its UID, may use the data
	// of a namespace. ErrBound: the namespace is not bound to namespaceUID. RenewNamespace
	// revokes it for all objects of a namespace.
	BindObject(ctx context.Context, namespace, namespaceUID, object string) error
	// ReleaseObject revokes it for one object; it does nothing when there is no such object.
	ReleaseObject(ctx context.Context, object string) error
	// IsBound reports whether an object may use the data of its namespace.
	IsBound(ctx context.Context, object string) (bool, error)
	// RemoveEvents removes events of a list from the log, in one commit, and returns how
	// many; limit is how many at most. Dead letters of these events go with them. A list
	// without a name stands for all events of its namespace.
	RemoveEvents(ctx context.Context, list contact.ListKey, limit int) (removed int, err error)
}

// Namespace is the binding of a namespace.
type Namespace struct {
	Name string
	// UID is that of the Namespace object which the data belongs to; empty while the
	// namespace is not bound.
	UID string
	// Begins is the position behind which the namespace's events are. Earlier events
	// under its name belong to an earlier Namespace.
	Begins int64
}
