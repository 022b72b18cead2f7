// Package v1alpha1 answers: what may a user write?
//
// It holds the custom resources of Postbus. A ContactList is a mailing list, an
// ApiKey lets a form or shop add contacts to it, and a WebhookSubscription has
// a callback called when something happens to those contacts.
//
// The package imports apimachinery only, so a program that reads or writes
// these resources needs nothing else of Postbus.
//
// +kubebuilder:object:generate=true
// +groupName=postbus.dev
package v1alpha1
