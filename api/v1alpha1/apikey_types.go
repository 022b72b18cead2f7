package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RotateAnnotation on an ApiKey asks for a new key. Any new value, usually the
// time, is a new request; the same value again asks for nothing. Of values that
// are longer than 256 characters the first 256 count. The value that an ApiKey
// is made with asks for nothing either, since its key is new.
//
// The new key is generated into the Secret, and the older one works for
// spec.rotation.overlap. In a Secret that Postbus did not generate people must
// put the new key themselves; until they do, the Ready message says so.
//
// Without a request a key whose Secret changes is replaced at once: that is how
// a key that has leaked is stopped.
const RotateAnnotation = "postbus.dev/rotate"

// ApiKey lets a caller of ingress, such as a form or a shop, write to one
// ContactList. The key itself is in a Secret; status carries digests only.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=postbus
// +kubebuilder:selectablefield:JSONPath=`.spec.listRef.name`
// +kubebuilder:selectablefield:JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="List",type=string,JSONPath=`.spec.listRef.name`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.spec.expiresAt`
// +kubebuilder:printcolumn:name="Last Used",type=date,JSONPath=`.status.lastUsedTime`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Prefix",type=string,priority=1,JSONPath=`.status.keys[*].prefix`
type ApiKey struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what the key shall be.
	// +required
	Spec ApiKeySpec `json:"spec,omitzero"`
	// status is what the controller has seen.
	// +optional
	// +default={"conditions":[{"type":"Ready","status":"Unknown","reason":"Progressing","message":"Waiting for the controller.","lastTransitionTime":"1970-01-01T00:00:00Z"},{"type":"Accepted","status":"Unknown","reason":"Progressing","message":"Waiting for the controller.","lastTransitionTime":"1970-01-01T00:00:00Z"}]}
	Status ApiKeyStatus `json:"status,omitzero"`
}

// ApiKeySpec is what an ApiKey shall be.
type ApiKeySpec struct {
	// listRef names the ContactList that the key writes to. It can't be
	// changed: make another key instead, so that a form never starts to fill
	// another list.
	//
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec.listRef can't be changed: make another ApiKey"
	ListRef ListReference `json:"listRef,omitzero"`

	// scopes are what the key may do; a key without any is refused everywhere.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	Scopes []ApiKeyScope `json:"scopes,omitempty"`

	// source is what events that this key causes carry, and what
	// WebhookSubscriptions filter by: API (the default), Console or Recipient.
	//
	// +optional
	// +default="API"
	Source EventSource `json:"source,omitempty"`

	// secretRef names the Secret whose data key "key" holds the API key. A
	// Secret that does not exist is generated, and removed with this object; an
	// existing one is used as it is. Without secretRef the Secret has the
	// ApiKey's name.
	//
	// +optional
	SecretRef SecretReference `json:"secretRef,omitzero"`

	// expiresAt is when the key stops working, in RFC 3339, and in UTC not after the
	// year 9999. Without it the key does not expire.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Format=date-time
	// +kubebuilder:validation:Pattern=`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
	// +kubebuilder:validation:XValidation:rule="self.getFullYear() <= 9999",message="expiresAt must not be after the year 9999 in UTC"
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`

	// rotation says how a key is replaced when the annotation
	// postbus.dev/rotate asks for a new one.
	//
	// +optional
	Rotation KeyRotation `json:"rotation,omitzero"`

	// rateLimit bounds how often the key may be used. Without it the key has 100
	// requests a second.
	//
	// +optional
	RateLimit KeyRateLimit `json:"rateLimit,omitzero"`

	// suspend refuses the key while it is true, as if it did not exist. It
	// ends the overlap of a rotation: only the newer key works afterwards.
	//
	// +optional
	Suspend *bool `json:"suspend,omitempty"`
}

// KeyRotation says how a key is replaced.
type KeyRotation struct {
	// overlap is how long the older key works beside the new one, from the
	// moment that the new one works, and never longer than spec.expiresAt. 0s to
	// 720h, 24h by default. A change of it counts for later rotations only; a
	// rotation during an overlap ends that one, so there are never more than two
	// keys.
	//
	// +optional
	// +default="24h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('720h')",message="rotation.overlap must be between 0s and 720h"
	Overlap *metav1.Duration `json:"overlap,omitempty"`
}

// KeyRateLimit bounds how often a key may be used.
type KeyRateLimit struct {
	// requestsPerSecond is how many requests with this key one ingress replica
	// answers in a second, 1 to 10000; 100 when rateLimit is not set. As many may
	// come at once after a quiet second; those beyond get status 429 and
	// Retry-After. Each replica counts for itself: with several the bound is that
	// many times higher. An import is one request, however many contacts it has.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	RequestsPerSecond int32 `json:"requestsPerSecond,omitempty"`
}

// DefaultRequestsPerSecond is the rate of a key without spec.rateLimit. A form gets
// a few requests a second, a shop in a sale some tens, and a nightly synchronization
// that posts contact by contact gets through 360,000 in an hour; whoever has more
// imports a file, which is one request. It is a few percent of what one ingress on
// two cores accepts, so it takes tens of leaked keys to fill that.
const DefaultRequestsPerSecond = 100

// RequestsPerSecond returns how many requests with the key one ingress replica
// answers in a second.
func (k *ApiKey) RequestsPerSecond() int {
	if k.Spec.RateLimit.RequestsPerSecond == 0 {
		return DefaultRequestsPerSecond
	}
	return int(k.Spec.RateLimit.RequestsPerSecond)
}

// ApiKeyScope is one thing that a key may do: ContactsWrite adds and changes
// contacts, ContactsRemove unsubscribes and deletes them, ContactsImport takes
// files, ContactsRead reads back.
//
// +kubebuilder:validation:Enum=ContactsWrite;ContactsRemove;ContactsImport;ContactsRead
type ApiKeyScope string

// The scopes of a key.
const (
	ScopeContactsWrite  ApiKeyScope = "ContactsWrite"
	ScopeContactsRemove ApiKeyScope = "ContactsRemove"
	ScopeContactsImport ApiKeyScope = "ContactsImport"
	ScopeContactsRead   ApiKeyScope = "ContactsRead"
)

// ApiKeyStatus is what the controller has seen of an ApiKey.
type ApiKeyStatus struct {
	// conditions has Ready and Accepted: see the reasons at their names.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +patchStrategy=merge
	// +patchMergeKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`

	// observedGeneration is the metadata.generation that this status is about.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// ready repeats the Ready condition's status, so that a field selector can
	// name it: status.ready=False.
	//
	// +optional
	// +kubebuilder:validation:Enum="True";"False";Unknown
	Ready metav1.ConditionStatus `json:"ready,omitempty"`

	// keys are the keys that work now: the one in the Secret first, then, while
	// a rotation's overlap lasts, the one before it. Ingress finds a caller's
	// key by its digest, so it needs no right to read Secrets.
	//
	// +optional
	// +listType=map
	// +listMapKey=sha256
	// +kubebuilder:validation:MaxItems=2
	Keys []ApiKeyDigest `json:"keys,omitempty"`

	// lastHandledRotation is the value of the annotation postbus.dev/rotate
	// whose new key works.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	LastHandledRotation string `json:"lastHandledRotation,omitempty"`

	// lastUsedTime is when a caller last presented a key that worked, to about a
	// minute. Requests that were then refused, for their rate or their content,
	// count too.
	//
	// +optional
	LastUsedTime *metav1.Time `json:"lastUsedTime,omitempty"`

	// warnedExpiry is the spec.expiresAt that an Expiring event was sent for:
	// once, when a tenth of the key's lifetime is left, and at most 14 days.
	//
	// +optional
	WarnedExpiry *metav1.Time `json:"warnedExpiry,omitempty"`
}

// ApiKeyDigest is what may be known of a key: enough to recognise it, not
// enough to use it. A digest without salt is safe because only keys of at
// least 128 bits are taken.
type ApiKeyDigest struct {
	// prefix is the start of a generated key, for people to tell keys apart.
	// Empty for a key that was not generated by Postbus.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	Prefix string `json:"prefix,omitempty"`

	// sha256 is the SHA-256 digest of the key, in lower-case hexadecimal.
	//
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	// +kubebuilder:validation:MinLength=64
	// +kubebuilder:validation:MaxLength=64
	SHA256 string `json:"sha256,omitempty"`

	// notAfter is when this key stops working. Without it, it does not.
	//
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`
}

// ApiKeyList is a list of ApiKeys, as the API server answers it.
//
// +kubebuilder:object:root=true
type ApiKeyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []ApiKey `json:"items"`
}

// SecretName returns the name of the Secret that holds the key.
func (k *ApiKey) SecretName() string {
	if k.Spec.SecretRef.Name != "" {
		return k.Spec.SecretRef.Name
	}
	return k.Name
}

// Overlap returns how long the older key works after a rotation.
func (k *ApiKey) Overlap() time.Duration { return overlap(k.Spec.Rotation.Overlap) }

// RequestedRotation returns the value of RotateAnnotation as status echoes it,
// empty when there is none.
func (k *ApiKey) RequestedRotation() string { return requested(k, RotateAnnotation) }

// GetConditions returns the conditions of the status.
func (k *ApiKey) GetConditions() []metav1.Condition { return k.Status.Conditions }
