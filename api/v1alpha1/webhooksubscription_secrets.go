package v1alpha1

import (
	"slices"
	"strings"
)

// SecretVersion tells in which version a Secret of the same namespace was seen.
type SecretVersion struct {
	// name is the Secret's metadata.name.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// version is the Secret's metadata.resourceVersion.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Version string `json:"version,omitempty"`
}

// SecretNames returns the names of all Secrets that the subscription needs, each
// once.
func (s *WebhookSubscription) SecretNames() []string {
	names := append(s.Spec.Callback.secretNames(), s.SigningSecretName(), s.Spec.Payload.Encryption.KeySecretRef.Name)
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}

// SecretVersion returns the version of a Secret that status tells; empty when it
// tells none.
func (s *WebhookSubscriptionStatus) SecretVersion(name string) string {
	for _, secret := range s.Secrets {
		if secret.Name == name {
			return secret.Version
		}
	}
	return ""
}

// SetSecretVersion has status tell the version of a Secret, or none where it is
// empty.
func (s *WebhookSubscriptionStatus) SetSecretVersion(name, version string) {
	at, found := slices.BinarySearchFunc(s.Secrets, name, func(secret SecretVersion, name string) int {
		return strings.Compare(secret.Name, name)
	})
	switch {
	case found && version == "":
		s.Secrets = slices.Delete(s.Secrets, at, at+1)
	case found:
		s.Secrets[at].Version = version
	case version != "":
		s.Secrets = slices.Insert(s.Secrets, at, SecretVersion{Name: name, Version: version})
	}
}
