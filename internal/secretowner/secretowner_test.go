package secretowner_test

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"postbus.dev/postbus/internal/secretowner"
)

func TestOther(t *testing.T) {
	const ours = "postbus.dev/v1alpha1"
	for name, row := range map[string]struct {
		owners []metav1.OwnerReference
		other  bool
	}{
		"no owner":                    {nil, false},
		"the object itself":           {[]metav1.OwnerReference{{APIVersion: ours, Kind: "WebhookSubscription", Name: "crm", UID: "1", Controller: ptr.To(true)}}, false},
		"another object":              {[]metav1.OwnerReference{{APIVersion: ours, Kind: "WebhookSubscription", Name: "shop", UID: "2", Controller: ptr.To(true)}}, true},
		"a predecessor of its name":   {[]metav1.OwnerReference{{APIVersion: ours, Kind: "WebhookSubscription", Name: "crm", UID: "0", Controller: ptr.To(true)}}, true},
		"an object of another kind":   {[]metav1.OwnerReference{{APIVersion: ours, Kind: "ApiKey", Name: "crm", UID: "2", Controller: ptr.To(true)}}, true},
		"another version of the API":  {[]metav1.OwnerReference{{APIVersion: "postbus.dev/v2", Kind: "ApiKey", Name: "crm", UID: "2", Controller: ptr.To(true)}}, true},
		"an owner of another group":   {[]metav1.OwnerReference{{APIVersion: "bitnami.com/v1alpha1", Kind: "SealedSecret", Name: "crm", UID: "2", Controller: ptr.To(true)}}, false},
		"an owner of the core group":  {[]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "crm", UID: "2", Controller: ptr.To(true)}}, false},
		"an owner without control":    {[]metav1.OwnerReference{{APIVersion: ours, Kind: "ApiKey", Name: "crm", UID: "2"}}, false},
		"an owner of no real version": {[]metav1.OwnerReference{{APIVersion: "a/b/c", Kind: "ApiKey", Name: "crm", UID: "2", Controller: ptr.To(true)}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			found := secretowner.Other(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{OwnerReferences: row.owners}}, "1")
			NewWithT(t).Expect(found != nil).To(Equal(row.other))
		})
	}
}
