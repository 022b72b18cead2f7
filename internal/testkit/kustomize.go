package testkit

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Kustomize returns the objects that the kustomization in a folder builds, in the
// order in which `kubectl apply -k` applies them.
func Kustomize(t testing.TB, folder string) []*unstructured.Unstructured {
	t.Helper()
	var built, problem bytes.Buffer
	command := exec.CommandContext(t.Context(), Kubectl(t), "kustomize", folder)
	command.Stdout, command.Stderr = &built, &problem
	if err := command.Run(); err != nil {
		t.Fatalf("build the kustomization in %s: %v\n%s", folder, err, problem.String())
	}
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(&built, 4096)
	for {
		object := &unstructured.Unstructured{}
		switch err := decoder.Decode(object); {
		case errors.Is(err, io.EOF):
			return objects
		case err != nil:
			t.Fatalf("read what the kustomization in %s builds: %v", folder, err)
		}
		objects = append(objects, object)
	}
}

// Kubectl returns the path of kubectl.
func Kubectl(t testing.TB) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(assets(root), "kubectl")
}
