package main

import (
	"io"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"postbus.dev/postbus/internal/testkit"
)

// TestManifestsHaveFlagsOfThisVersion has each process's flags read as the process
// would.
func TestManifestsHaveFlagsOfThisVersion(t *testing.T) {
	for folder, processes := range map[string]int{
		filepath.Join("config", "default"): 3, filepath.Join("config", "standalone"): 1,
		filepath.Join("hack", "e2e", "trial"): 3, filepath.Join("hack", "e2e", "standalone"): 1,
		filepath.Join("hack", "soak", "installation"): 3, filepath.Join("hack", "e2e", "single-role"): 3,
	} {
		t.Run(folder, func(t *testing.T) {
			g := NewWithT(t)
			found := 0
			for _, object := range testkit.Kustomize(t, folder) {
				if object.GetKind() != "Deployment" {
					continue
				}
				var deployment appsv1.Deployment
				g.Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &deployment)).To(Succeed())
				arguments := deployment.Spec.Template.Spec.Containers[0].Args
				_, err := parseSettings(arguments[0], arguments[1:], io.Discard)
				g.Expect(err).NotTo(HaveOccurred(), deployment.Name)
				for _, migration := range deployment.Spec.Template.Spec.InitContainers {
					arguments := append(migration.Args, "--print-grants", "--store-dsn-file=", "--ingress-role=any")
					g.Expect(run(t.Context(), arguments, io.Discard)).To(Succeed())
				}
				found++
			}
			g.Expect(found).To(Equal(processes))
		})
	}
}
