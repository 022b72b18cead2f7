package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RotateSigningAnnotation on a WebhookSubscription asks for a new signing secret.
// Any new value, usually the time, is a new request; the same value again asks for
// nothing. Of values that are longer than 256 characters the first 256 count. The
// value that a subscription is made with asks for nothing either, since its secret
// is new.
//
// The new secret is generated into the Secret, and the one before it signs beside
// it for spec.signing.rotation.overlap. A Secret that Postbus did not generate is
// not touched: the Accepted message says so, and whoever keeps it puts the new
// secret under the data key "secret" and the one before it under "previous".
const RotateSigningAnnotation = "postbus.dev/rotate-signing"

// Signing says how calls are signed, and with which secret.
type Signing struct {
	// secretRef names the Secret whose data key "secret" holds the signing
	// secret as Standard Webhooks writes it: whsec_ and 24 to 64 bytes in
	// Base64, which signs by HMAC, or whsk_ and an Ed25519 private key in
	// Base64. A second one under the data key "previous" signs too. A Secret
	// that does not exist is generated, and removed with this object; an
	// existing one is used as it is. Without secretRef the Secret is called like
	// the subscription, followed by "-signing".
	//
	// +optional
	SecretRef SecretReference `json:"secretRef,omitzero"`

	// algorithm is what a secret that is generated is for: HMAC, the default
	// (HMAC-SHA256, v1 of Standard Webhooks; the receiver has the same secret),
	// or Ed25519 (v1a; the receiver has the public key, which can't sign). A
	// change counts from the next rotation on. A Secret that exists signs as
	// its prefix says.
	//
	// +optional
	// +default="HMAC"
	Algorithm SigningAlgorithm `json:"algorithm,omitempty"`

	// rotation says how a signing secret is replaced when the annotation
	// postbus.dev/rotate-signing asks for a new one.
	//
	// +optional
	Rotation SigningRotation `json:"rotation,omitzero"`
}

// SigningAlgorithm names how calls are signed.
//
// +kubebuilder:validation:Enum=HMAC;Ed25519
type SigningAlgorithm string

// The algorithms that calls are signed by.
const (
	SigningHMAC    SigningAlgorithm = "HMAC"
	SigningEd25519 SigningAlgorithm = "Ed25519"
)

// SigningRotation says how a signing secret is replaced.
type SigningRotation struct {
	// overlap is how long the secret before it signs beside a new one. 0s to
	// 720h, 24h by default. A change of it counts for later rotations only; a
	// rotation during an overlap ends that one, so there are never more than two
	// signatures.
	//
	// +optional
	// +default="24h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('720h')",message="signing.rotation.overlap must be between 0s and 720h"
	Overlap *metav1.Duration `json:"overlap,omitempty"`
}

// SigningStatus is what is known of a subscription's signing secret.
type SigningStatus struct {
	// publicKey is what receivers verify calls with where they are signed by
	// Ed25519: whpk_ and the public key in Base64. It is no secret. Not set for
	// HMAC.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	PublicKey string `json:"publicKey,omitempty"`

	// previousUntil is until when the secret before the present one signs, too.
	// Not set while one secret signs, nor where people keep the Secret.
	//
	// +optional
	PreviousUntil *metav1.Time `json:"previousUntil,omitempty"`

	// lastHandledRotation is the value of the annotation
	// postbus.dev/rotate-signing whose new secret signs.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	LastHandledRotation string `json:"lastHandledRotation,omitempty"`
}

// SigningSecretName returns the name of the Secret that holds the signing secret.
func (s *WebhookSubscription) SigningSecretName() string {
	if s.Spec.Signing.SecretRef.Name != "" {
		return s.Spec.Signing.SecretRef.Name
	}
	return s.Name + "-signing"
}

// RequestedSigningRotation returns the value of RotateSigningAnnotation as status
// echoes it, empty when there is none.
func (s *WebhookSubscription) RequestedSigningRotation() string {
	return requested(s, RotateSigningAnnotation)
}

// SigningOverlap returns how long the secret before a new one signs too.
func (s *WebhookSubscription) SigningOverlap() time.Duration {
	return overlap(s.Spec.Signing.Rotation.Overlap)
}
