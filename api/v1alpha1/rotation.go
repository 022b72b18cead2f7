package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxRequestLength is how much of an annotation that asks for something counts,
// in characters.
const maxRequestLength = 256

// requested returns the value of an annotation that asks for something, as
// status echoes it; empty when there is none.
func requested(object metav1.Object, annotation string) string {
	value := []rune(object.GetAnnotations()[annotation])
	return string(value[:min(len(value), maxRequestLength)])
}

// defaultOverlap is how long what a rotation replaces stays good where the spec
// does not say.
const defaultOverlap = 24 * time.Hour

func overlap(spec *metav1.Duration) time.Duration {
	if spec == nil {
		return defaultOverlap
	}
	return spec.Duration
}
