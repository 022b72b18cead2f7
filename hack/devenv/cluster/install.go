package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// fieldOwner is the name that fields applied from files belong to.
const fieldOwner = client.FieldOwner("postbus-devenv")

// establishTimeout bounds how long the API server may take to serve a CRD.
const establishTimeout = time.Minute

// ReadFolder returns the objects in the files that a folder's
// kustomization.yaml names, in its order. It knows no other field of a
// kustomization.
func ReadFolder(dir string) ([]*unstructured.Unstructured, error) {
	text, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err != nil {
		return nil, fmt.Errorf("read the kustomization: %w", err)
	}
	var kustomization struct {
		Resources []string `json:"resources"`
	}
	if err := yaml.Unmarshal(text, &kustomization); err != nil {
		return nil, fmt.Errorf("parse %s/kustomization.yaml: %w", dir, err)
	}
	var objects []*unstructured.Unstructured
	for _, file := range kustomization.Resources {
		path := filepath.Join(dir, file)
		inFile, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		objects = append(objects, inFile...)
	}
	return objects, nil
}

func readFile(path string) ([]*unstructured.Unstructured, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		switch err := decoder.Decode(object); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, err
		case len(object.Object) > 0:
			objects = append(objects, object)
		}
	}
}

// Apply applies objects in order, server side. A field that the API server
// does not know is an error: applying is always strict.
func Apply(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		configuration := client.ApplyConfigurationFromUnstructured(object.DeepCopy())
		if err := c.Apply(ctx, configuration, fieldOwner, client.ForceOwnership); err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// InstallCRDs applies the CRDs of a folder and waits until they are served.
func InstallCRDs(ctx context.Context, c client.Client, dir string) error {
	crds, err := ReadFolder(dir)
	if err != nil {
		return err
	}
	if err := Apply(ctx, c, crds); err != nil {
		return err
	}
	for _, crd := range crds {
		err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, establishTimeout, true,
			func(ctx context.Context) (bool, error) { return established(ctx, c, crd) })
		if err != nil {
			return fmt.Errorf("wait until %s is served: %w", crd.GetName(), err)
		}
	}
	return nil
}

func established(ctx context.Context, c client.Client, crd *unstructured.Unstructured) (bool, error) {
	current := &unstructured.Unstructured{}
	current.SetGroupVersionKind(crd.GroupVersionKind())
	if err := c.Get(ctx, client.ObjectKeyFromObject(crd), current); err != nil {
		return false, err
	}
	var typed apiextensionsv1.CustomResourceDefinition
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(current.Object, &typed); err != nil {
		return false, err
	}
	for _, condition := range typed.Status.Conditions {
		if condition.Type == apiextensionsv1.Established {
			return condition.Status == apiextensionsv1.ConditionTrue, nil
		}
	}
	return false, nil
}
