package v1alpha1

// Annotations on a Namespace. They decide about data that the store holds of an earlier
// Namespace of the same name, see ReasonNamespaceReplaced. The value of each is the UID of
// that earlier Namespace, so that an annotation decides once and never about a later one.
const (
	// AnnotationAdoptDataOf continues with the contacts, events and subscriptions of the
	// earlier Namespace, for example after a restore of the cluster.
	AnnotationAdoptDataOf = "postbus.dev/adopt-data-of"
	// AnnotationRemoveDataOf removes the contacts, events and subscriptions of the earlier
	// Namespace from the store.
	AnnotationRemoveDataOf = "postbus.dev/remove-data-of"
)

// IsBound reports whether the list may use the data that the store holds under its
// namespace and name.
func (l *ContactList) IsBound() bool { return l.Status.NamespaceUID != "" }
