package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/testkit"
)

// secretFields are all fields that name a Secret, each with a spec that names the Secret
// "payroll" there and nowhere else.
var secretFields = map[string]string{
	"ApiKey spec.secretRef": `
listRef: {name: newsletter}
scopes: [ContactsWrite]
secretRef: {name: payroll}`,
	"WebhookSubscription spec.signing.secretRef": `
callback: {url: https://example.com}
signing: {secretRef: {name: payroll}}`,
	"WebhookSubscription spec.payload.encryption.keySecretRef": `
callback: {url: https://example.com}
payload: {encryption: {algorithm: JWE, keySecretRef: {name: payroll, key: password}}}`,
	"WebhookSubscription spec.callback.urlSecretRef": `
callback: {urlSecretRef: {name: payroll, key: password}}`,
	"WebhookSubscription spec.callback.tls.caSecretRef": `
callback: {url: https://example.com, tls: {caSecretRef: {name: payroll}}}`,
	"WebhookSubscription spec.callback.tls.clientCertSecretRef": `
callback: {url: https://example.com, tls: {clientCertSecretRef: {name: payroll}}}`,
	"WebhookSubscription spec.callback.oauth2.clientSecretRef": `
callback: {url: https://example.com, oauth2: {tokenURL: https://example.com, clientSecretRef: {name: payroll}}}`,
	"WebhookSubscription spec.callback.headers[X-Stolen].secretRef": `
callback: {url: https://example.com, headers: [{name: X-Stolen, secretRef: {name: payroll, key: password}}]}`,
}

// ourKinds are the kinds whose fields are looked through.
var ourKinds = map[string]any{
	"ApiKey": v1alpha1.ApiKey{}.Spec, "ContactList": v1alpha1.ContactList{}.Spec, "WebhookSubscription": v1alpha1.WebhookSubscription{}.Spec,
}

// TestSecretFieldsAreKnown fails when a field that names a Secret is not in the table, which
// the tests below hold the policy to.
func TestSecretFieldsAreKnown(t *testing.T) {
	g := NewWithT(t)
	var fields, known []string
	for kind, spec := range ourKinds {
		fields = append(fields, secretFieldsOf(reflect.TypeOf(spec), kind+" spec")...)
	}
	for field := range secretFields {
		known = append(known, strings.ReplaceAll(field, "X-Stolen", ""))
	}
	g.Expect(known).To(ConsistOf(fields))
}

// TestNoOtherFieldIsCalledSecret: a reference of another type would escape the test above.
func TestNoOtherFieldIsCalledSecret(t *testing.T) {
	g := NewWithT(t)
	files, err := filepath.Glob(filepath.Join("crd", "postbus.dev_*.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files).To(HaveLen(len(ourKinds)))
	for _, file := range files {
		text, err := os.ReadFile(file)
		g.Expect(err).NotTo(HaveOccurred())
		var definition apiextensions.CustomResourceDefinition
		g.Expect(yaml.Unmarshal(text, &definition)).To(Succeed())
		kind := definition.Spec.Names.Kind
		for _, version := range definition.Spec.Versions {
			for _, field := range calledSecret(version.Schema.OpenAPIV3Schema.Properties["spec"], kind+" spec") {
				g.Expect(secretFields).To(HaveKey(strings.ReplaceAll(field, "[]", "[X-Stolen]")))
			}
		}
	}
}

// secretFieldsOf returns the paths of the fields of a struct that name a Secret.
func secretFieldsOf(of reflect.Type, path string) (found []string) {
	switch of {
	case reflect.TypeFor[v1alpha1.SecretReference](), reflect.TypeFor[v1alpha1.SecretKeyReference]():
		return []string{path}
	}
	switch of.Kind() {
	case reflect.Pointer:
		return secretFieldsOf(of.Elem(), path)
	case reflect.Slice, reflect.Map:
		return secretFieldsOf(of.Elem(), path+"[]")
	case reflect.Struct:
		for field := range of.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			found = append(found, secretFieldsOf(field.Type, path+"."+name)...)
		}
	default: // it has no fields
	}
	return found
}

// calledSecret returns the paths of the fields of a schema whose names have "secret" in them.
func calledSecret(schema apiextensions.JSONSchemaProps, path string) (found []string) {
	if schema.Items != nil {
		return calledSecret(*schema.Items.Schema, path+"[]")
	}
	for name, property := range schema.Properties {
		if strings.Contains(strings.ToLower(name), "secret") {
			found = append(found, path+"."+name)
			continue
		}
		found = append(found, calledSecret(property, path+"."+name)...)
	}
	return found
}

// policed is a namespace with the policies, and users with rights there.
type policed struct {
	Gomega
	t         *testing.T
	namespace string
}

// everyVerb is what a tenant has on our kinds.
var everyVerb = rbacv1.PolicyRule{
	APIGroups: []string{"postbus.dev"}, Resources: []string{"webhooksubscriptions", "apikeys", "contactlists"}, Verbs: []string{"*"},
}

// getSecrets is the right to get these Secrets, all when none is named.
func getSecrets(names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}, ResourceNames: names}
}

// police installs the policies and waits until they are enforced.
func police(t *testing.T) *policed {
	t.Helper()
	p := &policed{Gomega: NewWithT(t), t: t, namespace: plane.Namespace(t)}
	for _, object := range testkit.Kustomize(t, "policies") {
		p.Expect(apply(t, object)).To(Succeed())
	}
	stranger := p.user("stranger", everyVerb)
	refused := p.object(sortedFields()[0], "refused")
	p.Eventually(func() error { return stranger.Create(t.Context(), refused.DeepCopy(), client.DryRunAll) }, "20s").
		Should(MatchError(ContainSubstring("postbus-secret-references")))
	kept := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "postbus.dev/v1alpha1", "kind": "ContactList", "metadata": map[string]any{"name": "kept", "namespace": p.namespace},
	}}
	p.Expect(plane.Client.Create(t.Context(), kept)).To(Succeed())
	patcher := p.user("patcher", rbacv1.PolicyRule{APIGroups: []string{"postbus.dev"}, Resources: []string{"contactlists"}, Verbs: []string{"patch"}})
	p.Eventually(func() error {
		return patcher.Patch(t.Context(), kept.DeepCopy(), merge(`{"metadata":{"labels":{"a":"b"}}}`), client.DryRunAll)
	}, "20s").Should(MatchError(ContainSubstring("postbus-annotations")))
	return p
}

// user returns the client of a user who has these rights in the namespace and no others.
func (p *policed) user(name string, rules ...rbacv1.PolicyRule) client.Client {
	p.t.Helper()
	name = p.namespace + "-" + name
	p.grant(name, rules...)
	access := rest.CopyConfig(plane.Config)
	access.Impersonate.UserName = name
	caller, err := client.New(access, client.Options{Scheme: kube.NewScheme()})
	p.Expect(err).NotTo(HaveOccurred())
	return caller
}

// grant gives rights to a user.
func (p *policed) grant(name string, rules ...rbacv1.PolicyRule) {
	p.t.Helper()
	in := metav1.ObjectMeta{Namespace: p.namespace, Name: name}
	p.Expect(plane.Client.Create(p.t.Context(), &rbacv1.Role{ObjectMeta: in, Rules: rules})).To(Succeed())
	p.Expect(plane.Client.Create(p.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: in,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	})).To(Succeed())
}

// object returns an object with the spec of a field of the table.
func (p *policed) object(field, name string) *unstructured.Unstructured {
	kind, _, _ := strings.Cut(field, " ")
	return p.declared(kind, name, secretFields[field])
}

// declared returns an object with this spec.
func (p *policed) declared(kind, name, spec string) *unstructured.Unstructured {
	p.t.Helper()
	var fields map[string]any
	p.Expect(yaml.Unmarshal([]byte(spec), &fields)).To(Succeed())
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "postbus.dev/v1alpha1", "kind": kind,
		"metadata": map[string]any{"name": name, "namespace": p.namespace}, "spec": fields,
	}}
}

func sortedFields() []string {
	var all []string
	for field := range secretFields {
		all = append(all, field)
	}
	slices.Sort(all)
	return all
}

func merge(patch string) client.Patch { return client.RawPatch(types.MergePatchType, []byte(patch)) }

// forSecret matches the refusal of a reference.
func forSecret(field, secret string) OmegaMatcher {
	_, path, _ := strings.Cut(field, " ")
	return And(
		WithTransform(apierrors.IsForbidden, BeTrue()),
		MatchError(ContainSubstring(path+`: you must be allowed to get the Secret "`+secret+`"`)))
}

// TestSecretReferences tries every field that names a Secret, in every way to write it.
func TestSecretReferences(t *testing.T) {
	p := police(t)
	tenant := p.user("tenant", everyVerb)
	keeper := p.user("keeper", everyVerb, getSecrets("payroll"))
	other := p.user("other", everyVerb, getSecrets("crm"))
	bare := map[string]string{
		"ApiKey": "{listRef: {name: newsletter}, scopes: [ContactsWrite]}", "WebhookSubscription": "{callback: {url: 'https://example.com'}}",
	}
	for n, field := range sortedFields() {
		t.Run(field, func(t *testing.T) {
			g := NewWithT(t)
			kind, _, _ := strings.Cut(field, " ")
			refused := forSecret(field, "payroll")
			name := fmt.Sprintf("field-%d", n)
			object := p.object(field, name)
			for _, caller := range []client.Client{tenant, other} {
				g.Expect(caller.Create(t.Context(), object.DeepCopy())).To(refused)
				g.Expect(caller.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object.DeepCopy()), client.FieldOwner("tenant"))).To(refused)
				generated := object.DeepCopy()
				generated.SetName("")
				generated.SetGenerateName("generated-")
				g.Expect(caller.Create(t.Context(), generated)).To(refused)
			}

			// Without a Secret the object is anybody's.
			mine := p.declared(kind, name, bare[kind])
			g.Expect(tenant.Create(t.Context(), mine)).To(Succeed())
			spec, err := yaml.YAMLToJSON([]byte(secretFields[field]))
			g.Expect(err).NotTo(HaveOccurred())
			patch := merge(`{"spec":` + strings.Replace(string(spec), `"urlSecretRef"`, `"url":null,"urlSecretRef"`, 1) + `}`)
			g.Expect(tenant.Patch(t.Context(), mine.DeepCopy(), patch)).To(refused)
			updated := object.DeepCopy()
			updated.SetResourceVersion(mine.GetResourceVersion())
			g.Expect(tenant.Update(t.Context(), updated)).To(refused)
			g.Expect(tenant.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object.DeepCopy()),
				client.FieldOwner("tenant"), client.ForceOwnership)).NotTo(Succeed())

			// Whoever may get it may name it, and others may go on with the object.
			g.Expect(keeper.Patch(t.Context(), mine, patch)).To(Succeed())
			g.Expect(tenant.Patch(t.Context(), mine, merge(`{"metadata":{"labels":{"a":"b"},"annotations":{"c":"d"}}}`))).To(Succeed())
			again := mine.DeepCopy()
			again.SetLabels(nil)
			g.Expect(tenant.Update(t.Context(), again)).To(Succeed())
		})
	}
}

// TestAnotherKeyOfASecret: a reference that names another data key is another reference.
func TestAnotherKeyOfASecret(t *testing.T) {
	p := police(t)
	tenant := p.user("tenant", everyVerb)
	const field = "WebhookSubscription spec.signing.secretRef"
	p.Expect(plane.Client.Create(t.Context(), p.object(field, "crm"))).To(Succeed())
	crm := p.object(field, "crm")
	p.Expect(tenant.Patch(t.Context(), crm.DeepCopy(), merge(`{"spec":{"callback":{"headers":[
		{"name":"X-Stolen","secretRef":{"name":"payroll","key":"secret"}}]}}}`))).To(forSecret(
		"x spec.callback.headers[X-Stolen].secretRef", "payroll"))
	const encrypted = "WebhookSubscription spec.payload.encryption.keySecretRef"
	p.Expect(plane.Client.Create(t.Context(), p.object(encrypted, "erp"))).To(Succeed())
	p.Expect(tenant.Patch(t.Context(), p.object(encrypted, "erp"),
		merge(`{"spec":{"payload":{"encryption":{"keySecretRef":{"key":"other"}}}}}`))).To(forSecret(encrypted, "payroll"))
}

// rich is a subscription that an administrator has made.
const rich = `
callback:
  url: https://crm.example.com/api
  timeout: 3s
  headers: [{name: Authorization, secretRef: {name: payroll, key: password}}, {name: X-Tenant, value: "42"}]
payload: {format: Template, template: "{'a': 'b'}"}
signing: {secretRef: {name: crm-signing}}`

// TestEditsOfASubscriptionWithSecrets has a tenant edit each field of a subscription that
// an administrator made: where and how values are sent needs the right, the rest does not.
func TestEditsOfASubscriptionWithSecrets(t *testing.T) {
	p := police(t)
	tenant := p.user("tenant", everyVerb)
	half := p.user("half", everyVerb, getSecrets("payroll"))
	keeper := p.user("keeper", everyVerb, getSecrets("payroll", "crm-signing"))
	p.Expect(plane.Client.Create(t.Context(), p.declared("WebhookSubscription", "crm", rich))).To(Succeed())
	harmless := map[string]string{
		"app": `"crm"`, "events": `["Subscribe"]`, "sources": `["API"]`, "lists": `["newsletter"]`, "filter": `"true"`,
		"retry": `{"intervals":["1m"]}`, "ordering": `"None"`, "rateLimit": `{"maxInFlight":1}`, "deactivation": `{"policy":"Never"}`,
		"buffer": `{"window":"1h"}`, "replay": `{"requestsPerSecond":1}`, "operationalEvents": `["apikey.expiring"]`,
		"notify": `{"emails":["a@example.com"]}`, "suspend": `true`,
		"signing": `{"rotation":{"overlap":"1h"}}`, "callback": `{"timeout":"4s"}`,
	}
	telling := map[string]string{
		"another URL":         `{"callback":{"url":"https://evil.example.com"}}`,
		"another path":        `{"callback":{"url":"https://crm.example.com/other"}}`,
		"another header":      `{"callback":{"headers":[{"name":"Authorization","secretRef":{"name":"payroll","key":"password"}},{"name":"X-Tenant","value":"7"}]}}`,
		"no other header":     `{"callback":{"headers":[{"name":"Authorization","secretRef":{"name":"payroll","key":"password"}}]}}`,
		"tokens by OAuth2":    `{"callback":{"headers":[{"name":"X-Secret","secretRef":{"name":"payroll","key":"password"}}],"oauth2":{"tokenURL":"https://evil.example.com","clientSecretRef":{"name":"payroll"}}}}`,
		"trust":               `{"callback":{"tls":{"caSecretRef":{"name":"payroll"}}}}`,
		"another template":    `{"payload":{"template":"{'c': 'd'}"}}`,
		"another format":      `{"payload":{"format":"Standard","template":null}}`,
		"GET":                 `{"operationalEvents":null,"callback":{"method":"GET"},"payload":{"format":"MailUp","template":null,"parameters":[{"name":"a","value":"b"}]}}`,
		"a URL from a Secret": `{"callback":{"url":null,"urlSecretRef":{"name":"payroll","key":"password"}}}`,
	}
	var fields []string
	for field := range reflect.TypeFor[v1alpha1.WebhookSubscriptionSpec]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "payload" {
			fields = append(fields, name)
		}
	}
	for name := range harmless {
		p.Expect(fields).To(ContainElement(name))
	}
	p.Expect(harmless).To(HaveLen(len(fields)), "each field of spec is looked at")
	crm := p.declared("WebhookSubscription", "crm", rich)
	for field, value := range harmless {
		p.Expect(tenant.Patch(t.Context(), crm.DeepCopy(), merge(fmt.Sprintf(`{"spec":{%q:%s}}`, field, value)))).To(Succeed(), field)
	}
	for name, spec := range telling {
		patch := merge(`{"spec":` + spec + `}`)
		p.Expect(tenant.Patch(t.Context(), crm.DeepCopy(), patch, client.DryRunAll)).To(And(
			WithTransform(apierrors.IsForbidden, BeTrue()),
			MatchError(MatchRegexp(`you must be allowed to get the Secret "(payroll|crm-signing)" .*for every Secret that the object names`))), name)
		p.Expect(half.Patch(t.Context(), crm.DeepCopy(), patch, client.DryRunAll)).To(
			forSecret("x spec.signing.secretRef", "crm-signing"), name)
		p.Expect(keeper.Patch(t.Context(), crm.DeepCopy(), patch, client.DryRunAll)).To(Succeed(), name)
	}
	// Dropping all references with the URL takes nothing along.
	p.Expect(tenant.Patch(t.Context(), crm.DeepCopy(),
		merge(`{"spec":{"callback":{"url":"https://evil.example.com","headers":null},"signing":{"secretRef":null}}}`))).To(Succeed())
}

// TestManySecrets stays within the API server's limits of cost with the largest object.
func TestManySecrets(t *testing.T) {
	p := police(t)
	named := func(distinct int) (spec string, names []string) {
		at := func(n int) string { return fmt.Sprintf("s-%d", n%distinct) }
		headers := make([]string, 20)
		for n := range headers {
			headers[n] = fmt.Sprintf("{name: %s%02d, secretRef: {name: %s, key: k}}", strings.Repeat("X", 126), n, at(n))
		}
		spec = fmt.Sprintf(`
callback:
  urlSecretRef: {name: %s, key: k}
  tls: {caSecretRef: {name: %s}, clientCertSecretRef: {name: %s}}
  oauth2: {tokenURL: https://example.com, clientSecretRef: {name: %s}}
  headers: [%s]
payload: {encryption: {algorithm: JWE, keySecretRef: {name: %s, key: k}}}
signing: {secretRef: {name: %s}}`, at(20), at(21), at(22), at(23), strings.Join(headers, ", "), at(24), at(25))
		for n := range distinct {
			names = append(names, at(n))
		}
		return spec, names
	}
	all := p.user("all", everyVerb, getSecrets())
	tenant := p.user("tenant", everyVerb)
	for _, distinct := range []int{1, 8, 9, 26} {
		spec, names := named(distinct)
		object := p.declared("WebhookSubscription", fmt.Sprintf("many-%d", distinct), spec)
		each := p.user(fmt.Sprintf("each-%d", distinct), everyVerb, getSecrets(names...))
		if distinct > 8 {
			refused := MatchError(ContainSubstring(fmt.Sprintf("name %d Secrets: for more than 8 you must be allowed to get every Secret", distinct)))
			p.Expect(each.Create(t.Context(), object.DeepCopy())).To(refused)
			p.Expect(tenant.Create(t.Context(), object.DeepCopy())).To(refused)
		} else {
			p.Expect(each.Create(t.Context(), object.DeepCopy(), client.DryRunAll)).To(Succeed())
			p.Expect(tenant.Create(t.Context(), object.DeepCopy())).To(MatchError(ContainSubstring(`you must be allowed to get the Secret "s-`)))
			partly := p.user(fmt.Sprintf("partly-%d", distinct), everyVerb, getSecrets(append(slices.Clone(names[:distinct-1]), "none")...))
			p.Expect(partly.Create(t.Context(), object.DeepCopy())).To(MatchError(ContainSubstring(
				fmt.Sprintf(`you must be allowed to get the Secret "s-%d"`, distinct-1))))
		}
		p.Expect(all.Create(t.Context(), object)).To(Succeed())
		p.Expect(tenant.Patch(t.Context(), object.DeepCopy(), merge(`{"spec":{"app":"crm"}}`))).To(Succeed())
		p.Expect(tenant.Patch(t.Context(), object.DeepCopy(), merge(`{"spec":{"payload":{"cloudEvents":true}}}`))).
			To(WithTransform(apierrors.IsForbidden, BeTrue()))
		p.Expect(all.Patch(t.Context(), object.DeepCopy(), merge(`{"spec":{"payload":{"cloudEvents":true}}}`))).To(Succeed())
	}
}
