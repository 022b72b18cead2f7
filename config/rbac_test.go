package config_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/testkit"
)

// rights are "verb resource" each, all that an account has: everything else must be
// refused. Resources are as kubectl names them; a name behind a colon is the only one.
type rights struct {
	// anywhere are had in every namespace, athome in the account's own beside those.
	anywhere, athome []string
}

var (
	ingressRights    = verbs("get list watch", "apikeys.postbus.dev", "contactlists.postbus.dev")
	dispatcherRights = slices.Concat(
		verbs("get list watch", "contactlists.postbus.dev", "webhooksubscriptions.postbus.dev"),
		verbs("get", "secrets"))
	controllerRights = slices.Concat(
		verbs("get list watch", "apikeys.postbus.dev", "contactlists.postbus.dev", "webhooksubscriptions.postbus.dev", "configmaps"),
		verbs("patch", "apikeys.postbus.dev", "contactlists.postbus.dev", "webhooksubscriptions.postbus.dev",
			"apikeys.postbus.dev/status", "contactlists.postbus.dev/status", "webhooksubscriptions.postbus.dev/status"),
		verbs("update", "apikeys.postbus.dev/finalizers", "contactlists.postbus.dev/finalizers", "webhooksubscriptions.postbus.dev/finalizers"),
		verbs("get list watch create patch delete", "secrets"),
		verbs("create patch", "events.events.k8s.io"),
		verbs("get", "namespaces"))
	leaseRights = slices.Concat(
		verbs("create", "leases.coordination.k8s.io"),
		verbs("get update", "leases.coordination.k8s.io:controller.postbus.dev"))
)

// accounts are the ServiceAccounts of both installations.
var accounts = map[string]struct {
	installation installation
	rights       rights
}{
	"postbus-controller": {installation{base: "default"}, rights{controllerRights, leaseRights}},
	"postbus-ingress":    {installation{base: "default"}, rights{anywhere: ingressRights}},
	"postbus-dispatcher": {installation{base: "default"}, rights{anywhere: dispatcherRights}},
	"postbus-standalone": {installation{base: "standalone"}, rights{slices.Concat(controllerRights, ingressRights, dispatcherRights), leaseRights}},
}

// verbs returns each verb of a list on each resource.
func verbs(list string, resources ...string) []string {
	var all []string
	for _, resource := range resources {
		for verb := range strings.FieldsSeq(list) {
			all = append(all, verb+" "+resource)
		}
	}
	return all
}

// TestRights asks the API server for all rules that an account has.
func TestRights(t *testing.T) {
	for account, want := range accounts {
		t.Run(account, func(t *testing.T) {
			g := NewWithT(t)
			install(t, want.installation)
			other := plane.Namespace(t)
			access := identity(t, account)
			g.Eventually(func() []string { return rulesOf(t, access, other) }, "10s").
				Should(ConsistOf(unique(want.rights.anywhere)))
			g.Eventually(func() []string { return rulesOf(t, access, namespace) }, "10s").
				Should(ConsistOf(unique(want.rights.anywhere, want.rights.athome)))
		})
	}
}

// TestAttempts makes every attempt that the table of resources and verbs allows to
// think of, with the account's token, and sees which ones the API server does not
// refuse.
func TestAttempts(t *testing.T) {
	for account, want := range accounts {
		t.Run(account, func(t *testing.T) {
			g := NewWithT(t)
			install(t, want.installation)
			access := identity(t, account)
			g.Eventually(func() []string { return rulesOf(t, access, namespace) }, "10s").
				Should(ConsistOf(unique(want.rights.anywhere, want.rights.athome)))
			caller, err := dynamic.NewForConfig(access)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(granted(t, caller, plane.Namespace(t))).To(ConsistOf(attempted(want.rights.anywhere)))
			g.Expect(granted(t, caller, namespace)).To(ConsistOf(attempted(want.rights.anywhere, want.rights.athome)))
		})
	}
}

// TestSecretsByNamespace: with the component the dispatcher gets Secrets in the
// namespaces that are named.
func TestSecretsByNamespace(t *testing.T) {
	g := NewWithT(t)
	install(t, installation{"default", []string{"secrets-by-namespace"}})
	named, other := plane.Namespace(t), plane.Namespace(t)
	g.Expect(plane.Client.Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: named, Name: "postbus-dispatcher-secrets"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "postbus-dispatcher-secrets"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "postbus-dispatcher"}},
	})).To(Succeed())

	access := identity(t, "postbus-dispatcher")
	without := slices.DeleteFunc(slices.Clone(dispatcherRights), func(right string) bool { return right == "get secrets" })
	g.Eventually(func() []string { return rulesOf(t, access, named) }, "10s").Should(ConsistOf(dispatcherRights))
	g.Eventually(func() []string { return rulesOf(t, access, other) }, "10s").Should(ConsistOf(without))
	g.Expect(rulesOf(t, access, namespace)).To(ConsistOf(without))
}

// TestNamespaced: with the component a process has its rights where config/namespaced binds
// them, and in its own namespace no more than its Lease. The ClusterRoleBindings that other
// tests have applied are deleted first.
func TestNamespaced(t *testing.T) {
	for account, want := range accounts {
		t.Run(account, func(t *testing.T) {
			g := NewWithT(t)
			bindings := &rbacv1.ClusterRoleBindingList{}
			g.Expect(plane.Client.List(t.Context(), bindings, client.MatchingLabels{"app.kubernetes.io/name": "postbus"})).To(Succeed())
			for i := range bindings.Items {
				g.Expect(plane.Client.Delete(t.Context(), &bindings.Items[i])).To(Succeed())
			}
			install(t, installation{want.installation.base, []string{"namespaced"}})
			named, other := plane.Namespace(t), plane.Namespace(t)
			for _, object := range testkit.Kustomize(t, filepath.Join("namespaced", want.installation.base)) {
				object.SetNamespace(named)
				g.Expect(apply(t, object)).To(Succeed())
			}
			access := identity(t, account)
			g.Eventually(func() []string { return rulesOf(t, access, named) }, "10s").Should(ConsistOf(unique(want.rights.anywhere)))
			g.Eventually(func() []string { return rulesOf(t, access, other) }, "10s").Should(BeEmpty())
			g.Eventually(func() []string { return rulesOf(t, access, namespace) }, "10s").Should(ConsistOf(unique(want.rights.athome)))
			caller, err := dynamic.NewForConfig(access)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(granted(t, caller, other)).To(BeEmpty())
		})
	}
}

// install applies what of an installation the API server knows.
func install(t *testing.T, i installation) {
	t.Helper()
	for _, object := range i.build(t) {
		if _, elsewhere := operators[object.GroupVersionKind().GroupKind().String()]; !elsewhere {
			NewWithT(t).Expect(apply(t, object)).To(Succeed())
		}
	}
}

// identity returns the access that a pod under a ServiceAccount has: its token, and
// nothing else.
func identity(t *testing.T, account string) *rest.Config {
	t.Helper()
	token := &authenticationv1.TokenRequest{}
	NewWithT(t).Expect(plane.Client.SubResource("token").Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}}, token)).To(Succeed())
	access := rest.AnonymousClientConfig(plane.Config)
	access.BearerToken = token.Status.Token
	access.QPS = -1
	return access
}

// rulesOf returns all rules that an account has in a namespace, but for those that
// every account has.
func rulesOf(t *testing.T, access *rest.Config, in string) []string {
	t.Helper()
	g := NewWithT(t)
	nobody := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "nobody"}}
	g.Expect(client.IgnoreAlreadyExists(plane.Client.Create(t.Context(), nobody))).To(Succeed())
	everybody := review(t, identity(t, nobody.Name), in)
	own := slices.DeleteFunc(review(t, access, in), func(rule string) bool { return slices.Contains(everybody, rule) })
	return unique(own)
}

func review(t *testing.T, access *rest.Config, in string) []string {
	t.Helper()
	g := NewWithT(t)
	caller, err := client.New(access, client.Options{Scheme: kube.NewScheme()})
	g.Expect(err).NotTo(HaveOccurred())
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: in}}
	g.Expect(caller.Create(t.Context(), review)).To(Succeed())
	g.Expect(review.Status.Incomplete).To(BeFalse())
	var rules []string
	for _, rule := range review.Status.ResourceRules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				rules = append(rules, spell(rule.Verbs, group, resource, rule.ResourceNames)...)
			}
		}
	}
	for _, rule := range review.Status.NonResourceRules {
		rules = append(rules, verbs(strings.Join(rule.Verbs, " "), rule.NonResourceURLs...)...)
	}
	return rules
}

// spell writes rules as the tables above do.
func spell(verbsOf []string, group, resource string, names []string) []string {
	resource, sub, found := strings.Cut(resource, "/")
	if group != "" {
		resource += "." + group
	}
	if found {
		resource += "/" + sub
	}
	if len(names) > 0 {
		resource += ":" + strings.Join(names, ",")
	}
	return verbs(strings.Join(verbsOf, " "), resource)
}

func unique(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}

// target is a resource that attempts are made on.
type target struct {
	resource schema.GroupVersionResource
	sub      string
	kind     string
	// name is what is asked for, or given to what is made.
	name        string
	clusterWide bool
}

// targets are the resources of Postbus's roles, with all of their subresources, and
// those that a thief would want next.
var targets = []target{
	{resource: ours("webhooksubscriptions"), kind: "WebhookSubscription", name: "some"},
	{resource: ours("webhooksubscriptions"), sub: "status", kind: "WebhookSubscription", name: "some"},
	{resource: ours("apikeys"), kind: "ApiKey", name: "some"},
	{resource: ours("apikeys"), sub: "status", kind: "ApiKey", name: "some"},
	{resource: ours("contactlists"), kind: "ContactList", name: "some"},
	{resource: ours("contactlists"), sub: "status", kind: "ContactList", name: "some"},
	{resource: schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, kind: "Secret", name: "some"},
	{resource: schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, kind: "ConfigMap", name: "some"},
	{resource: schema.GroupVersionResource{Version: "v1", Resource: "pods"}, kind: "Pod", name: "some"},
	{resource: schema.GroupVersionResource{Version: "v1", Resource: "services"}, kind: "Service", name: "some"},
	{resource: schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, kind: "ServiceAccount", name: "some"},
	{resource: schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, kind: "Namespace", name: "some", clusterWide: true},
	{resource: schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, kind: "Node", name: "some", clusterWide: true},
	{resource: schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, kind: "Deployment", name: "some"},
	{resource: schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}, kind: "Event", name: "some"},
	{resource: leases, kind: "Lease", name: "controller.postbus.dev"},
	{resource: leases, kind: "Lease", name: "some"},
	{resource: rbac("roles"), kind: "Role", name: "some"},
	{resource: rbac("rolebindings"), kind: "RoleBinding", name: "some"},
	{resource: rbac("clusterroles"), kind: "ClusterRole", name: "some", clusterWide: true},
	{resource: rbac("clusterrolebindings"), kind: "ClusterRoleBinding", name: "some", clusterWide: true},
	{
		resource: schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
		kind:     "CustomResourceDefinition", name: "some.example.com", clusterWide: true,
	},
}

var leases = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}

func ours(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "postbus.dev", Version: "v1alpha1", Resource: resource}
}

func rbac(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: rbacv1.GroupName, Version: "v1", Resource: resource}
}

// attempts are what can be done to a target by each verb, nothing of which stays.
var attempts = map[string]func(context.Context, dynamic.ResourceInterface, target) error{
	"get": func(ctx context.Context, on dynamic.ResourceInterface, to target) error {
		_, err := on.Get(ctx, to.name, metav1.GetOptions{}, to.subs()...)
		return err
	},
	"list": func(ctx context.Context, on dynamic.ResourceInterface, _ target) error {
		_, err := on.List(ctx, metav1.ListOptions{})
		return err
	},
	"watch": func(ctx context.Context, on dynamic.ResourceInterface, _ target) error {
		watch, err := on.Watch(ctx, metav1.ListOptions{})
		if err == nil {
			watch.Stop()
		}
		return err
	},
	"create": func(ctx context.Context, on dynamic.ResourceInterface, to target) error {
		_, err := on.Create(ctx, to.object(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}, to.subs()...)
		return err
	},
	"update": func(ctx context.Context, on dynamic.ResourceInterface, to target) error {
		_, err := on.Update(ctx, to.object(), metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}}, to.subs()...)
		return err
	},
	"patch": func(ctx context.Context, on dynamic.ResourceInterface, to target) error {
		_, err := on.Patch(ctx, to.name, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, to.subs()...)
		return err
	},
	"delete": func(ctx context.Context, on dynamic.ResourceInterface, to target) error {
		return on.Delete(ctx, to.name, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}, to.subs()...)
	},
	"deletecollection": func(ctx context.Context, on dynamic.ResourceInterface, _ target) error {
		return on.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}, metav1.ListOptions{})
	},
}

// ofSubresources are the verbs that one has; the others are of a whole.
var ofSubresources = []string{"get", "update", "patch"}

func (to target) subs() []string {
	if to.sub == "" {
		return nil
	}
	return []string{to.sub}
}

func (to target) object() *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(to.resource.GroupVersion().WithKind(to.kind))
	object.SetName(to.name)
	return object
}

// granted makes all attempts in a namespace and returns those that were not refused,
// whatever else came of them.
func granted(t *testing.T, caller dynamic.Interface, in string) []string {
	t.Helper()
	var passed []string
	for _, to := range targets {
		var on dynamic.ResourceInterface = caller.Resource(to.resource)
		if !to.clusterWide {
			on = caller.Resource(to.resource).Namespace(in)
		}
		for verb, attempt := range attempts {
			if to.sub != "" && !slices.Contains(ofSubresources, verb) {
				continue
			}
			if err := attempt(t.Context(), on, to); !apierrors.IsForbidden(err) {
				passed = append(passed, to.spell(verb))
			}
		}
	}
	return unique(passed)
}

// spell names the attempt as rights do.
func (to target) spell(verb string) string {
	resource := to.resource.Resource
	if to.sub != "" {
		resource += "/" + to.sub
	}
	var names []string
	if to.resource == leases && to.name != "some" && verb != "create" {
		names = []string{to.name}
	}
	return spell([]string{verb}, to.resource.Group, resource, names)[0]
}

// attempted are the rights that attempts can show: finalizers are only checked beside
// another change.
func attempted(lists ...[]string) []string {
	return slices.DeleteFunc(unique(lists...), func(right string) bool { return strings.HasSuffix(right, "/finalizers") })
}
