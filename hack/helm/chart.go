package main

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// object is one object of a kustomization.
type object map[string]any

// at returns what is at a path of maps, and of lists whose first item is meant.
func at(value any, path ...string) any {
	for _, name := range path {
		if list, ok := value.([]any); ok && len(list) > 0 {
			value = list[0]
		}
		switch fields := value.(type) {
		case object:
			value = fields[name]
		case map[string]any:
			value = fields[name]
		default:
			return nil
		}
	}
	return value
}

func (o object) kind() string { return fmt.Sprint(at(o, "kind")) }

func (o object) name() string { return fmt.Sprint(at(o, "metadata", "name")) }

// component is the component that an object belongs to, such as ingress.
func (o object) component() string {
	return fmt.Sprint(at(o, "metadata", "labels", "app.kubernetes.io/component"))
}

// extras are the components of config/components that only add objects, by the value
// that turns each on.
var extras = map[string]string{
	"networkPolicies":   "network-policies",
	"disruptionBudgets": "disruption-budgets",
	"serviceMonitor":    "service-monitor",
}

// semantic is what a version by semver.org begins with; one made from a commit does not.
var semantic = regexp.MustCompile(`^\d+\.\d+\.\d+($|[-+])`)

// files returns the chart's files by their names.
func (o options) files(ctx context.Context) (map[string]string, error) {
	text, err := o.build(ctx, filepath.Join(o.config, "default"))
	if err != nil {
		return nil, err
	}
	objects, err := parse(text)
	if err != nil {
		return nil, err
	}
	version := strings.TrimPrefix(o.version, "v")
	if !semantic.MatchString(version) {
		version = "0.0.0" // Helm takes no other, and nobody publishes this one
	}
	files := map[string]string{
		"Chart.yaml":  fmt.Sprintf(chartFile, version, o.version),
		"values.yaml": valuesFile,
	}
	for _, one := range objects {
		switch one.kind() {
		case "Namespace": // Helm's own --create-namespace
			continue
		case "CustomResourceDefinition":
			if files["crds/"+one.name()+".yaml"], err = marshal(one); err != nil {
				return nil, err
			}
			continue
		case "Deployment":
			values, err := deploymentValues(one)
			if err != nil {
				return nil, err
			}
			files["values.yaml"] += values
		}
		text, err := template(one)
		if err != nil {
			return nil, err
		}
		files[fileOf(one)] = conditional(one, text)
	}
	return files, o.addExtras(ctx, files)
}

// conditional returns the template of an object that values leave out, or replace.
func conditional(one object, text string) string {
	switch one.kind() {
	case "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding":
		return fmt.Sprintf("{{- if .Values.admissionPolicies.enabled }}\n%s{{- end }}\n", text)
	case "ClusterRoleBinding": // the same rights in some namespaces, as config/namespaced has them
		inOne := strings.Replace(text, "kind: ClusterRoleBinding", "kind: RoleBinding", 1)
		inOne = strings.Replace(inOne, "  name: "+one.name()+"\n", "  name: "+one.name()+"-objects\n  namespace: {{ . }}\n", 1)
		inOne = strings.ReplaceAll(inOne, ".Release", "$.Release")
		return "{{- range .Values.namespaces }}\n---\n" + inOne + "{{- else }}\n" + text + "{{- end }}\n"
	}
	return text
}

// addExtras adds the objects of components, each between its condition.
func (o options) addExtras(ctx context.Context, files map[string]string) error {
	for value, component := range extras {
		folder := filepath.Join(o.config, "components", component)
		text, err := o.build(ctx, folder)
		if err != nil {
			return err
		}
		objects, err := parse(text)
		if err != nil {
			return err
		}
		for _, one := range objects {
			text, err := template(one)
			if err != nil {
				return err
			}
			files[fileOf(one)] = fmt.Sprintf("{{- if .Values.%s.enabled }}\n%s{{- end }}\n", value, text)
		}
	}
	return nil
}

func fileOf(one object) string {
	return fmt.Sprintf("templates/%s-%s.yaml", strings.ToLower(one.kind()), one.name())
}

// parse reads a stream of objects.
func parse(text []byte) ([]object, error) {
	var objects []object
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		one := object{}
		if err := yaml.Unmarshal([]byte(document), &one); err != nil {
			return nil, fmt.Errorf("read an object: %w", err)
		}
		objects = append(objects, one)
	}
	return objects, nil
}

func marshal(value any) (string, error) {
	text, err := yaml.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("write an object: %w", err)
	}
	return string(text), nil
}

// substitution is a line of an object, and what stands in its place in a template. %[1]s
// in it is the object's component, %[2]s the line's indentation.
type substitution struct {
	line *regexp.Regexp
	with string
}

// everywhere are the substitutions in all objects.
var everywhere = []substitution{
	{regexp.MustCompile(`(?m)^( *)(- )?namespace: postbus-system$`), "%[2]s${2}namespace: {{ .Release.Namespace }}"},
}

// inDeployments are the substitutions in deployments. Each must be found in each.
var inDeployments = []substitution{
	{regexp.MustCompile(`(?m)^( *)replicas: \d+$`), "%[2]sreplicas: {{ .Values.%[1]s.replicas }}"},
	{
		regexp.MustCompile(`(?m)^( *)image: .*$`),
		`%[2]simage: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"`,
	},
	{regexp.MustCompile(`(?m)^( *)imagePullPolicy: .*$`), "%[2]simagePullPolicy: {{ .Values.image.pullPolicy }}"},
	{
		regexp.MustCompile(`(?m)^( *)secretName: postbus-store-(controller|ingress|dispatcher)$`),
		"%[2]ssecretName: {{ .Values.store.secrets.${2} }}",
	},
	{
		regexp.MustCompile(`(?m)^( *)resources:\n +limits:\n +memory: .*\n +requests:\n +cpu: .*\n +memory: .*$`),
		"%[2]sresources:\n%[2]s  {{- toYaml .Values.%[1]s.resources | nindent 10 }}",
	},
	{regexp.MustCompile(`(?m)^( *)(- (?:controller|ingress|dispatcher)\n *- --store-dsn-file=.*)$`), "%[2]s${2}" + namespaces + list("args")},
	{regexp.MustCompile(`(?m)^( *)(volumeMounts:)$`), "%[2]s${2}" + list("volumeMounts")},
	{regexp.MustCompile(`(?m)^( *)(volumes:)$`), "%[2]s${2}" + list("volumes")},
}

// inMigration are the substitutions in the deployment whose pods migrate the store.
var inMigration = []substitution{
	{regexp.MustCompile(`(?m)^( *)secretName: postbus-store-owner$`), "%[2]ssecretName: {{ .Values.store.secrets.owner }}"},
	{
		regexp.MustCompile(`(?m)^( *)- --(controller|ingress|dispatcher)-role=.*$`),
		"%[2]s- --${2}-role={{ .Values.store.roles.${2} }}",
	},
}

// namespaces is the flag that names the namespaces, when there are some.
const namespaces = "\n%[2]s{{- with .Values.namespaces }}\n%[2]s- --namespaces={{ join \",\" . }}\n%[2]s{{- end }}"

// list returns what adds the items of a value to a list.
func list(value string) string {
	return "\n%[2]s{{- range .Values.%[1]s." + value + " }}\n%[2]s- {{ toJson . }}\n%[2]s{{- end }}"
}

// template returns an object as a template.
func template(one object) (string, error) {
	text, err := marshal(one)
	if err != nil {
		return "", err
	}
	if strings.Contains(text, "{{") {
		return "", fmt.Errorf("make a template of %s %s: it has braces of its own", one.kind(), one.name())
	}
	for _, s := range everywhere {
		text = s.in(text, one.component())
	}
	if one.kind() != "Deployment" {
		return text, nil
	}
	substitutions := inDeployments
	if at(one, "spec", "template", "spec", "initContainers") != nil {
		substitutions = slices.Concat(inDeployments, inMigration)
	}
	for _, s := range substitutions {
		if !s.line.MatchString(text) {
			return "", fmt.Errorf("make a template of %s: it has no line like %s", one.name(), s.line)
		}
		text = s.in(text, one.component())
	}
	return text, nil
}

func (s substitution) in(text, component string) string {
	return s.line.ReplaceAllString(text, strings.NewReplacer("%[1]s", component, "%[2]s", "${1}").Replace(s.with))
}

// deploymentValues returns the values of a deployment, as it has them itself.
func deploymentValues(one object) (string, error) {
	resources := at(one, "spec", "template", "spec", "containers", "resources")
	text, err := marshal(map[string]any{one.component(): map[string]any{
		"replicas": at(one, "spec", "replicas"), "resources": resources,
		"args": []any{}, "volumes": []any{}, "volumeMounts": []any{},
	}})
	return "\n" + text, err
}

const chartFile = `apiVersion: v2
name: postbus
description: Webhooks for mailing lists, declared in Kubernetes
type: application
version: %s
appVersion: %q
`

const valuesFile = `# The image. Without a tag it is that of the chart's version.
image:
  repository: ghcr.io/postbus/postbus
  tag: ""
  pullPolicy: IfNotPresent

# The Secrets with the connection strings of PostgreSQL under the key dsn, and the roles in the
# connection strings of the processes. All must exist. The owner of the tables migrates them and
# grants each role its rights. Without roles, all entries may name the Secret of the owner.
store:
  secrets:
    owner: postbus-store-owner
    controller: postbus-store-controller
    ingress: postbus-store-ingress
    dispatcher: postbus-store-dispatcher
  roles:
    controller: postbus_controller
    ingress: postbus_ingress
    dispatcher: postbus_dispatcher

# The namespaces to watch, such as [marketing, sales]. Each process has its rights only in these
# namespaces. Empty means all namespaces.
namespaces: []

# The ValidatingAdmissionPolicies of config/policies, for Kubernetes 1.30 and newer. They are
# cluster-scoped. Without them, a user who can write WebhookSubscriptions in a namespace can send
# its Secrets to any URL.
admissionPolicies: {enabled: true}

# What may be added to the installation.
networkPolicies: {enabled: false}
disruptionBudgets: {enabled: false}
serviceMonitor: {enabled: false}

# Each component's replicas and resources; args are flags that are added, such as
# --public-url=https://lists.example.com, volumes and volumeMounts what they read, such
# as certificates.
`
