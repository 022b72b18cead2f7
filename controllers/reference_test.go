package controllers

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

func TestCacheKeepsNamesOnly(t *testing.T) {
	g := NewWithT(t)
	secret := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: "marketing", Name: "form", ResourceVersion: "7",
		Labels:      map[string]string{"a": "b"},
		Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: `{"data":{"key":"c2VjcmV0"}}`},
	}}
	kept, err := nameOnly(secret)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(kept).To(Equal(&metav1.PartialObjectMetadata{
		ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: "form", ResourceVersion: "7"},
	}))

	gone := cache.DeletedFinalStateUnknown{Key: "marketing/form"}
	kept, err = nameOnly(gone)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(kept).To(Equal(gone))
}
