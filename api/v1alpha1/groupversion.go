package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of this package's kinds.
var GroupVersion = schema.GroupVersion{Group: "postbus.dev", Version: "v1alpha1"}

// AddToScheme makes a scheme know this package's kinds.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&ContactList{}, &ContactListList{},
		&ApiKey{}, &ApiKeyList{},
		&WebhookSubscription{}, &WebhookSubscriptionList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
