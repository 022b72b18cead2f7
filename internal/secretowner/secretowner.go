// Package secretowner implements the rule that keeps a Secret which was generated for one object
// of Postbus from being used by another. The controller applies it before it accepts an object, the
// dispatcher before it uses a value.
package secretowner

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"postbus.dev/postbus/api/v1alpha1"
)

// Other returns the controller reference of a Secret that was generated for an object of Postbus
// other than the one with the given UID, and nil for every other Secret. An object that was deleted
// and created again under its name has another UID, so it is another object. Owners of other API
// groups, such as a SealedSecret, bring Secrets for users to name.
func Other(secret *corev1.Secret, uid types.UID) *metav1.OwnerReference {
	reference := metav1.GetControllerOf(secret)
	if reference == nil || reference.UID == uid {
		return nil
	}
	version, err := schema.ParseGroupVersion(reference.APIVersion)
	if err != nil || version.Group != v1alpha1.GroupVersion.Group {
		return nil
	}
	return reference
}
