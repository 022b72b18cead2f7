package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/yaml"
)

var root = filepath.Join("..", "..")

// fromSource are the options with which make helm makes the chart.
func fromSource(t *testing.T) options {
	programs := os.Getenv("KUBEBUILDER_ASSETS")
	if programs == "" {
		programs = filepath.Join(root, "bin")
	}
	return options{
		kubectl: filepath.Join(programs, "kubectl"), config: filepath.Join(root, "config"),
		output: filepath.Join(t.TempDir(), "postbus"), version: "v1.2.3",
	}
}

// render makes the chart, and has Helm's own engine render it with these values.
func render(t *testing.T, values string) map[string]object {
	t.Helper()
	g := NewWithT(t)
	o := fromSource(t)
	g.Expect(command(t.Context(), []string{
		"--kubectl=" + o.kubectl, "--config=" + o.config, "--output=" + o.output, "--version=" + o.version,
	})).To(Succeed())
	chart, err := loader.Load(o.output)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(chart.Validate()).To(Succeed())
	var given map[string]any
	g.Expect(yaml.UnmarshalStrict([]byte(values), &given)).To(Succeed())
	filled, err := chartutil.ToRenderValues(chart, given, chartutil.ReleaseOptions{Name: "postbus", Namespace: "elsewhere"}, nil)
	g.Expect(err).NotTo(HaveOccurred())
	texts, err := engine.Engine{Strict: true}.Render(chart, filled)
	g.Expect(err).NotTo(HaveOccurred())
	for _, definition := range chart.CRDObjects() {
		texts[definition.Filename] = string(definition.File.Data)
	}
	rendered := map[string]object{}
	for file, text := range texts {
		if strings.TrimSpace(text) == "" {
			continue
		}
		for document := range strings.SplitSeq(text, "\n---\n") {
			if strings.TrimSpace(document) == "" {
				continue
			}
			var one object
			g.Expect(yaml.UnmarshalStrict([]byte(document), &one)).To(Succeed(), "%s:\n%s", file, document)
			key := one.kind() + " " + one.name()
			if _, twice := rendered[key]; twice {
				key += " in " + fmt.Sprint(at(one, "metadata", "namespace"))
			}
			rendered[key] = one
		}
	}
	return rendered
}

// Without values the chart has the objects of config/default, but for the release's
// namespace and the chart's version.
func TestSameObjects(t *testing.T) {
	g := NewWithT(t)
	text, err := fromSource(t).build(t.Context(), filepath.Join(root, "config", "default"))
	g.Expect(err).NotTo(HaveOccurred())
	replaced := strings.NewReplacer(
		"namespace: postbus-system", "namespace: elsewhere",
		"image: ghcr.io/postbus/postbus:latest", "image: ghcr.io/postbus/postbus:v1.2.3",
	).Replace(string(text))
	objects, err := parse([]byte(replaced))
	g.Expect(err).NotTo(HaveOccurred())
	want := map[string]object{}
	for _, one := range objects {
		if one.kind() != "Namespace" {
			want[one.kind()+" "+one.name()] = one
		}
	}
	g.Expect(want).To(HaveLen(len(objects) - 1))
	g.Expect(render(t, "{}")).To(Equal(want))
}

func TestValues(t *testing.T) {
	g := NewWithT(t)
	rendered := render(t, `
image: {repository: registry.example.com/postbus, tag: "7"}
store: {secrets: {owner: tables, ingress: database}, roles: {ingress: forms}}
networkPolicies: {enabled: true}
disruptionBudgets: {enabled: true}
serviceMonitor: {enabled: true}
ingress:
  replicas: 5
  args: ["--public-url=https://lists.example.com", "--tls-cert-file=/tls/tls.crt"]
  resources: {requests: {cpu: "2"}}
  volumes: [{name: tls, secret: {secretName: lists-tls}}]
  volumeMounts: [{name: tls, mountPath: /tls}]
`)
	g.Expect(rendered).To(And(
		HaveKey("NetworkPolicy postbus-call"), HaveKey("PodDisruptionBudget postbus-ingress"), HaveKey("ServiceMonitor postbus")))
	ingress := rendered["Deployment postbus-ingress"]
	g.Expect(at(ingress, "metadata", "namespace")).To(Equal("elsewhere"))
	g.Expect(at(ingress, "spec", "replicas")).To(BeEquivalentTo(5))
	pod := at(ingress, "spec", "template", "spec")
	g.Expect(at(pod, "containers", "image")).To(Equal("registry.example.com/postbus:7"))
	g.Expect(at(pod, "containers", "args")).To(ConsistOf("ingress", "--store-dsn-file=/etc/postbus/store/dsn",
		"--public-url=https://lists.example.com", "--tls-cert-file=/tls/tls.crt"))
	g.Expect(at(pod, "containers", "resources", "requests", "cpu")).To(Equal("2"))
	g.Expect(at(pod, "containers", "volumeMounts")).To(ContainElement(HaveKeyWithValue("mountPath", "/tls")))
	g.Expect(at(pod, "volumes")).To(And(
		ContainElement(HaveKeyWithValue("secret", HaveKeyWithValue("secretName", "database"))),
		ContainElement(HaveKeyWithValue("secret", HaveKeyWithValue("secretName", "lists-tls")))))
	controller := rendered["Deployment postbus-controller"]
	g.Expect(at(controller, "spec", "replicas")).To(BeEquivalentTo(2))
	pod = at(controller, "spec", "template", "spec")
	g.Expect(at(pod, "initContainers", "args")).To(HaveExactElements("migrate", "--store-dsn-file=/etc/postbus/store/dsn",
		"--controller-role=postbus_controller", "--ingress-role=forms", "--dispatcher-role=postbus_dispatcher"))
	g.Expect(at(pod, "initContainers", "image")).To(Equal("registry.example.com/postbus:7"))
	g.Expect(at(pod, "volumes")).To(And(
		ContainElement(HaveKeyWithValue("secret", HaveKeyWithValue("secretName", "postbus-store-controller"))),
		ContainElement(HaveKeyWithValue("secret", HaveKeyWithValue("secretName", "tables")))))
}

// With namespaces there are the bindings of config/namespaced in each of them, and no rights
// in all.
func TestNamespaces(t *testing.T) {
	g := NewWithT(t)
	rendered := render(t, "{namespaces: [marketing, sales], admissionPolicies: {enabled: false}}")
	text, err := fromSource(t).build(t.Context(), filepath.Join(root, "config", "namespaced", "default"))
	g.Expect(err).NotTo(HaveOccurred())
	bindings, err := parse([]byte(strings.ReplaceAll(string(text), "namespace: postbus-system", "namespace: elsewhere")))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(bindings).To(HaveLen(3))
	for _, want := range bindings {
		want["metadata"].(map[string]any)["namespace"] = "marketing"
		g.Expect(rendered).To(HaveKeyWithValue("RoleBinding "+want.name(), want))
		want["metadata"].(map[string]any)["namespace"] = "sales"
		g.Expect(rendered).To(HaveKeyWithValue("RoleBinding "+want.name()+" in sales", want))
	}
	for name, one := range rendered {
		g.Expect(name).NotTo(HavePrefix("ClusterRoleBinding "))
		g.Expect(name).NotTo(HavePrefix("ValidatingAdmissionPolicy"))
		if one.kind() == "Deployment" {
			g.Expect(at(one, "spec", "template", "spec", "containers", "args")).To(ContainElement("--namespaces=marketing,sales"))
		}
	}
}
