// Package config_test answers whether what is in this folder installs Postbus as it
// should: each kustomization builds, a real API server takes all of it, its pods keep
// the restricted standard of pod security, and nobody may do more than they need.
package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"postbus.dev/postbus/internal/testkit"
)

var plane *testkit.ControlPlane

func TestMain(m *testing.M) {
	if os.Getenv("USE_EXISTING_CLUSTER") == "true" {
		fmt.Fprintln(os.Stderr, "WARNING: config is NOT tested: its tests would install into the existing cluster; make e2e does")
		os.Exit(0)
	}
	os.Exit(testkit.Run(m, func(p *testkit.ControlPlane) { plane = p }))
}

// namespace is where all of it is installed.
const namespace = "postbus-system"

// installation is a folder that is applied, and the components that are added to it.
type installation struct {
	base       string
	components []string
}

// installations are what users apply. Each component is in one at least.
var installations = map[string]installation{
	"three deployments":                 {base: "default"},
	"one pod":                           {base: "standalone"},
	"a trial":                           {"default", []string{"trial-postgresql"}},
	"a database by an operator":         {"default", []string{"cloudnativepg"}},
	"a database with one role":          {"default", []string{"single-role"}},
	"TLS with a Secret":                 {"default", []string{"tls"}},
	"one pod with TLS":                  {"standalone", []string{"tls"}},
	"TLS by cert-manager":               {"default", []string{"tls-cert-manager"}},
	"one pod with all that is for it":   {"standalone", []string{"tls-cert-manager", "network-policies", "service-monitor"}},
	"three deployments with everything": {"default", everything},
	"one pod in some namespaces":        {"standalone", []string{"namespaced"}},
	"three without policies":            {"default", []string{"namespaced", "without-policies"}},
	"three deployments that are tried":  {base: filepath.Join("..", "hack", "soak", "installation")},
}

var everything = []string{
	"cloudnativepg", "tls-cert-manager", "network-policies", "disruption-budgets", "autoscaling", "service-monitor",
	"secrets-by-namespace",
}

// build returns an installation's objects.
func (i installation) build(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	g := NewWithT(t)
	if len(i.components) == 0 {
		return testkit.Kustomize(t, i.base)
	}
	overlay := t.TempDir()
	config, err := filepath.Abs(".")
	g.Expect(err).NotTo(HaveOccurred())
	way, err := filepath.Rel(overlay, config) // kustomize takes no other
	g.Expect(err).NotTo(HaveOccurred())
	text := "resources: [" + filepath.Join(way, i.base) + "]\ncomponents:\n"
	for _, component := range i.components {
		text += "- " + filepath.Join(way, "components", component) + "\n"
	}
	g.Expect(os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(text), 0o600)).To(Succeed())
	return testkit.Kustomize(t, overlay)
}

func TestEachComponentIsInstalled(t *testing.T) {
	g := NewWithT(t)
	folders, err := os.ReadDir("components")
	g.Expect(err).NotTo(HaveOccurred())
	var used []string
	for _, installation := range installations {
		used = append(used, installation.components...)
	}
	for _, folder := range folders {
		g.Expect(used).To(ContainElement(folder.Name()))
	}
}

// TestApplied has a real API server take everything, and try a pod of each template
// under the restricted standard.
func TestApplied(t *testing.T) {
	for name, installation := range installations {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			for _, object := range installation.build(t) {
				if strict, elsewhere := operators[object.GroupVersionKind().GroupKind().String()]; elsewhere {
					text, err := yaml.Marshal(object)
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(yaml.UnmarshalStrict(text, strict())).To(Succeed(), object.GetKind())
					continue
				}
				g.Expect(apply(t, object)).To(Succeed(), "%s %s", object.GetKind(), object.GetName())
			}
			for _, pod := range pods(t, installation.build(t)) {
				g.Expect(plane.Client.Create(t.Context(), pod, client.DryRunAll)).To(Succeed(), pod.GenerateName)
			}
		})
	}
}

// TestAppliedBySoak has it take what a trial of an installation works with.
func TestAppliedBySoak(t *testing.T) {
	for _, object := range testkit.Kustomize(t, filepath.Join("..", "hack", "soak", "objects")) {
		NewWithT(t).Expect(apply(t, object)).To(Succeed(), "%s %s", object.GetKind(), object.GetName())
	}
}

// apply applies an object. A field that the API server does not know is an error.
func apply(t *testing.T, object *unstructured.Unstructured) error {
	t.Helper()
	configuration := client.ApplyConfigurationFromUnstructured(object.DeepCopy())
	return plane.Client.Apply(t.Context(), configuration, client.FieldOwner("config-test"), client.ForceOwnership)
}

// The namespace that is installed refuses pods that are not restricted, or the test
// above would say nothing.
func TestNamespaceIsRestricted(t *testing.T) {
	g := NewWithT(t)
	objects := installation{base: "default"}.build(t)
	for _, object := range objects {
		if object.GetKind() == "Namespace" {
			g.Expect(apply(t, object)).To(Succeed())
		}
	}
	for _, pod := range pods(t, objects) {
		pod.Spec.SecurityContext.RunAsNonRoot = new(false)
		err := plane.Client.Create(t.Context(), pod, client.DryRunAll)
		g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
		g.Expect(err).To(MatchError(ContainSubstring("PodSecurity")))
	}
}

// pods returns a pod of each template.
func pods(t *testing.T, objects []*unstructured.Unstructured) []*corev1.Pod {
	t.Helper()
	var made []*corev1.Pod
	for _, object := range objects {
		var template corev1.PodTemplateSpec
		switch object.GetKind() {
		case "Deployment":
			template = typed[appsv1.Deployment](t, object).Spec.Template
		case "StatefulSet":
			set := typed[appsv1.StatefulSet](t, object)
			template = set.Spec.Template
			for _, claim := range set.Spec.VolumeClaimTemplates { // the controller of StatefulSets would
				template.Spec.Volumes = append(template.Spec.Volumes, corev1.Volume{
					Name: claim.Name, VolumeSource: corev1.VolumeSource{
						PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name},
					},
				})
			}
		default:
			continue
		}
		made = append(made, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: object.GetName() + "-", Labels: template.Labels},
			Spec:       template.Spec,
		})
	}
	NewWithT(t).Expect(made).NotTo(BeEmpty())
	return made
}

func typed[T any](t *testing.T, object *unstructured.Unstructured) *T {
	t.Helper()
	into := new(T)
	NewWithT(t).Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, into)).To(Succeed())
	return into
}

// shutdowns are how many seconds each component takes at most to end, by its first
// argument: its shutdown timeout, what ingress waits before, and room for the last write.
var shutdowns = map[string]int64{"controller": 10 + 5, "ingress": 5 + 20 + 5, "dispatcher": 10 + 5, "standalone": 20 + 10 + 5}

// TestPods looks at what the restricted standard leaves open.
func TestPods(t *testing.T) {
	for name, installation := range installations {
		t.Run(name, func(t *testing.T) {
			for _, pod := range pods(t, installation.build(t)) {
				g := NewWithT(t)
				g.Expect(pod.Spec.Containers).To(HaveLen(1))
				container := pod.Spec.Containers[0]
				g.Expect(container.SecurityContext.ReadOnlyRootFilesystem).To(HaveValue(BeTrue()), pod.GenerateName)
				g.Expect(container.Resources.Requests).To(And(HaveKey(corev1.ResourceCPU), HaveKey(corev1.ResourceMemory)))
				g.Expect(container.Resources.Limits).To(And(HaveKey(corev1.ResourceMemory), Not(HaveKey(corev1.ResourceCPU))))
				g.Expect(container.ReadinessProbe).NotTo(BeNil())
				if container.Name != "postbus" {
					continue
				}
				g.Expect(container.Image).To(HavePrefix("ghcr.io/postbus/postbus:"))
				g.Expect(container.LivenessProbe.HTTPGet.Path).To(Equal("/healthz"))
				g.Expect(container.ReadinessProbe.HTTPGet.Path).To(Equal("/readyz"))
				g.Expect(shutdowns).To(HaveKey(container.Args[0]))
				g.Expect(*pod.Spec.TerminationGracePeriodSeconds).To(BeNumerically(">=", shutdowns[container.Args[0]]))
			}
		})
	}
}

// TestOwnerOfTheTables: the owner's connection string is in one container, which ends before those
// start that talk to anybody. Each process has its own.
func TestOwnerOfTheTables(t *testing.T) {
	g := NewWithT(t)
	own := map[string]string{}
	for _, pod := range pods(t, installation{base: "default"}.build(t)) {
		secrets := map[string]string{}
		for _, volume := range pod.Spec.Volumes {
			secrets[volume.Name] = volume.Secret.SecretName
		}
		for _, mount := range pod.Spec.Containers[0].VolumeMounts {
			own[pod.Spec.Containers[0].Args[0]] += secrets[mount.Name]
		}
		if pod.Spec.Containers[0].Args[0] != "controller" {
			g.Expect(pod.Spec.InitContainers).To(BeEmpty())
			g.Expect(secrets).To(HaveLen(1))
			continue
		}
		g.Expect(pod.Spec.InitContainers).To(HaveLen(1))
		migration := pod.Spec.InitContainers[0]
		g.Expect(migration.Args[0]).To(Equal("migrate"))
		g.Expect(migration.Image).To(Equal(pod.Spec.Containers[0].Image))
		g.Expect(migration.SecurityContext).To(Equal(pod.Spec.Containers[0].SecurityContext))
		g.Expect(migration.VolumeMounts).To(HaveLen(1))
		g.Expect(secrets[migration.VolumeMounts[0].Name]).To(Equal("postbus-store-owner"))
	}
	g.Expect(own).To(Equal(map[string]string{
		"controller": "postbus-store-controller", "ingress": "postbus-store-ingress", "dispatcher": "postbus-store-dispatcher",
	}))
}

// TestSelectors sees to it that whatever selects pods selects some.
func TestSelectors(t *testing.T) {
	for name, installation := range installations {
		t.Run(name, func(t *testing.T) {
			objects := installation.build(t)
			running := pods(t, objects)
			for _, object := range objects {
				selector, found := selectorOf(t, object)
				if !found {
					continue
				}
				selected := 0
				for _, pod := range running {
					if matches(t, selector, pod.Labels) {
						selected++
					}
				}
				NewWithT(t).Expect(selected).To(BeNumerically(">", 0), "%s %s", object.GetKind(), object.GetName())
			}
		})
	}
}

// selectorOf returns which pods an object selects, if it selects any.
func selectorOf(t *testing.T, object *unstructured.Unstructured) (metav1.LabelSelector, bool) {
	t.Helper()
	g := NewWithT(t)
	field := map[string][]string{
		"Deployment": {"spec", "selector"}, "StatefulSet": {"spec", "selector"}, "PodDisruptionBudget": {"spec", "selector"},
		"NetworkPolicy": {"spec", "podSelector"}, "Service": {"spec", "selector"},
	}[object.GetKind()]
	if field == nil {
		return metav1.LabelSelector{}, false
	}
	fields, found, err := unstructured.NestedMap(object.Object, field...)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(BeTrue(), object.GetName())
	if object.GetKind() == "Service" {
		fields = map[string]any{"matchLabels": fields}
	}
	var selector metav1.LabelSelector
	g.Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &selector)).To(Succeed())
	return selector, true
}

func matches(t *testing.T, selector metav1.LabelSelector, of map[string]string) bool {
	t.Helper()
	compiled, err := metav1.LabelSelectorAsSelector(&selector)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return compiled.Matches(labels.Set(of))
}

// TestAutoscaledDeploymentsHaveNoReplicas: a number would set back the autoscaler's
// whenever it is applied.
func TestAutoscaledDeploymentsHaveNoReplicas(t *testing.T) {
	g := NewWithT(t)
	replicas := map[string]bool{}
	for _, object := range (installation{"default", everything}).build(t) {
		if object.GetKind() != "Deployment" {
			continue
		}
		_, found, err := unstructured.NestedInt64(object.Object, "spec", "replicas")
		g.Expect(err).NotTo(HaveOccurred())
		replicas[object.GetName()] = found
	}
	g.Expect(replicas).To(Equal(map[string]bool{
		"postbus-controller": true, "postbus-ingress": false, "postbus-dispatcher": false,
	}))
}
