// Package docs_test answers whether the pages under docs/spec say what the API
// is: every field, every condition, every reason, and examples that work.
package docs_test

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	strictyaml "sigs.k8s.io/yaml"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/testkit"
)

var plane *testkit.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(testkit.Run(m, func(p *testkit.ControlPlane) { plane = p }))
}

// pages are the kinds, and the part of file names that is theirs in config/crd;
// a page is called like the kind in lower case.
var pages = map[string]string{
	"ContactList":         "contactlists",
	"ApiKey":              "apikeys",
	"WebhookSubscription": "webhooksubscriptions",
}

// readPage returns the text of a kind's page.
func readPage(t *testing.T, kind string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("spec", "v1alpha1", strings.ToLower(kind)+".md"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// fence is a block of code, with its language and its text.
var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// headings returns the headings of a level, in order.
func headings(text string, level int) []string {
	marks := strings.Repeat("#", level) + " "
	var found []string
	for line := range strings.Lines(fence.ReplaceAllString(text, "")) {
		if heading, ok := strings.CutPrefix(line, marks); ok {
			found = append(found, strings.TrimSpace(heading))
		}
	}
	return found
}

// section returns the text under the heading of a level.
func section(text string, level int, heading string) string {
	marks := strings.Repeat("#", level) + " "
	_, rest, _ := strings.Cut(text, "\n"+marks+heading+"\n")
	for above := 1; above <= level; above++ {
		rest, _, _ = strings.Cut(rest, "\n"+strings.Repeat("#", above)+" ")
	}
	return rest
}

func TestEveryKindHasAPage(t *testing.T) {
	g := NewWithT(t)
	crds, err := filepath.Glob("../config/crd/postbus.dev_*.yaml")
	g.Expect(err).NotTo(HaveOccurred())
	written, err := filepath.Glob("spec/v1alpha1/*.md")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(crds).To(HaveLen(len(pages)))
	g.Expect(written).To(HaveLen(len(pages)))
}

// link is a link to a file of this repository, or to a heading.
var link = regexp.MustCompile(`\]\(([^):#]*)(?:#([^)]+))?\)`)

func TestLinksLead(t *testing.T) {
	var files []string
	for _, pattern := range []string{"*.md", "spec/*/*.md"} {
		found, err := filepath.Glob(pattern)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		files = append(files, found...)
	}
	for _, file := range append(files, "../README.md", "../CONTRIBUTING.md") {
		g := NewWithT(t)
		text, err := os.ReadFile(file)
		g.Expect(err).NotTo(HaveOccurred())
		for _, parts := range link.FindAllStringSubmatch(string(text), -1) {
			target := filepath.Join(filepath.Dir(file), parts[1])
			if parts[1] == "" {
				target = file
			}
			g.Expect(target).To(Or(BeAnExistingFile(), BeADirectory()), "linked in %s", file)
			if parts[2] != "" && !strings.Contains(target, "reference") {
				g.Expect(anchorsIn(t, target)).To(ContainElement(parts[2]), "%s links to it in %s", file, target)
			}
		}
	}
}

// notInAnchors is what GitHub leaves out of a heading's anchor.
var notInAnchors = regexp.MustCompile(`[^a-z0-9 _-]`)

func anchorsIn(t *testing.T, file string) (anchors []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for level := 1; level <= 4; level++ {
		for _, heading := range headings(string(text), level) {
			plain := notInAnchors.ReplaceAllString(strings.ToLower(heading), "")
			anchors = append(anchors, strings.ReplaceAll(plain, " ", "-"))
		}
	}
	return anchors
}

func TestPagesHaveOneOutline(t *testing.T) {
	for kind := range pages {
		NewWithT(t).Expect(headings(readPage(t, kind), 2)).To(Equal([]string{
			"Example", "Writing a" + article(kind) + " " + kind + " spec", "Working with " + kind + "s", kind + " status", "Debugging",
		}), kind)
	}
}

// article returns what the word "a" needs before a kind.
func article(kind string) string {
	if strings.HasPrefix(kind, "A") {
		return "n"
	}
	return ""
}

func TestEveryFieldHasAHeading(t *testing.T) {
	for kind, plural := range pages {
		g := NewWithT(t)
		schema := readSchema(t, plural)
		page := readPage(t, kind)
		for part, chapter := range map[string]string{
			"spec":   "Writing a" + article(kind) + " " + kind + " spec",
			"status": kind + " status",
		} {
			var written []string
			for _, heading := range headings(section(page, 2, chapter), 3) {
				if strings.HasPrefix(heading, ".") {
					written = append(written, heading)
				}
			}
			g.Expect(written).To(ConsistOf(fieldsOf("."+part, schema.Properties[part])), "%s.%s", kind, part)
		}
	}
}

func readSchema(t *testing.T, plural string) *apiextensionsv1.JSONSchemaProps {
	t.Helper()
	g := NewWithT(t)
	text, err := os.ReadFile(filepath.Join("..", "config", "crd", "postbus.dev_"+plural+".yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	var crd apiextensionsv1.CustomResourceDefinition
	g.Expect(strictyaml.UnmarshalStrict(text, &crd)).To(Succeed())
	g.Expect(crd.Spec.Versions).To(HaveLen(1))
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

// fieldsOf returns the full paths of the fields below a path. Those of a
// condition are Kubernetes' and not told.
func fieldsOf(path string, schema apiextensionsv1.JSONSchemaProps) (fields []string) {
	for name, field := range schema.Properties {
		below := path + "." + name
		fields = append(fields, below)
		if below == ".status.conditions" {
			continue
		}
		if field.Items != nil && field.Items.Schema != nil {
			fields = append(fields, fieldsOf(below+"[]", *field.Items.Schema)...)
		}
		fields = append(fields, fieldsOf(below, field)...)
	}
	return fields
}

// told are the conditions and reasons that a page has headings for.
type told struct{ conditions, reasons []string }

func readTold(t *testing.T, kind string) (told told) {
	t.Helper()
	status := section(readPage(t, kind), 2, kind+" status")
	for _, heading := range headings(status, 3) {
		if !strings.HasPrefix(heading, ".") {
			told.conditions = append(told.conditions, heading)
		}
	}
	for _, heading := range headings(status, 4) {
		reason, _, _ := strings.Cut(heading, ":")
		told.reasons = append(told.reasons, reason)
	}
	return told
}

func TestEveryConditionAndReasonHasAHeading(t *testing.T) {
	g := NewWithT(t)
	declared := constants(t)
	var all told
	for kind := range pages {
		page := readTold(t, kind)
		g.Expect(page.conditions).To(ContainElement("Ready"), kind)
		all.conditions = append(all.conditions, page.conditions...)
		all.reasons = append(all.reasons, page.reasons...)
	}
	g.Expect(unique(all.conditions)).To(ConsistOf(declared["Condition"]))
	g.Expect(unique(all.reasons)).To(ConsistOf(slices.Concat(declared["Reason"], declared["Failure"])))

	failures := section(readPage(t, "WebhookSubscription"), 3, "Reachable")
	for _, reason := range declared["Failure"] {
		g.Expect(failures).To(ContainSubstring("\n#### " + reason + ": False\n"))
	}
}

func TestEveryStateIsTold(t *testing.T) {
	for _, state := range constants(t)["State"] {
		NewWithT(t).Expect(section(readPage(t, "WebhookSubscription"), 3, ".status.state")).To(ContainSubstring("\n| `" + state + "` |"))
	}
}

func unique(words []string) []string {
	slices.Sort(words)
	return slices.Compact(words)
}

// constants returns the values of the API's text constants by the word that
// their names begin with.
func constants(t *testing.T) map[string][]string {
	t.Helper()
	g := NewWithT(t)
	files, err := filepath.Glob("../api/v1alpha1/*.go")
	g.Expect(err).NotTo(HaveOccurred())
	found := map[string][]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		g.Expect(err).NotTo(HaveOccurred())
		ast.Inspect(file, func(node ast.Node) bool {
			if spec, ok := node.(*ast.ValueSpec); ok {
				addConstant(found, spec)
			}
			return true
		})
	}
	return found
}

// firstWord is the first word of an exported name.
var firstWord = regexp.MustCompile(`^[A-Z][a-z]+`)

func addConstant(found map[string][]string, spec *ast.ValueSpec) {
	if len(spec.Names) != 1 || len(spec.Values) != 1 {
		return
	}
	if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
		value, _ := strconv.Unquote(literal.Value) // what was parsed is quoted well
		word := firstWord.FindString(spec.Names[0].Name)
		found[word] = append(found[word], value)
	}
}

func TestEveryExampleIsAccepted(t *testing.T) {
	for kind := range pages {
		t.Run(kind, func(t *testing.T) {
			g := NewWithT(t)
			namespace := plane.Namespace(t)
			var kinds []string
			for _, block := range fence.FindAllStringSubmatch(readPage(t, kind), -1) {
				if block[1] != "yaml" {
					continue
				}
				for _, object := range objectsIn(t, block[2]) {
					kinds = append(kinds, object.GetKind())
					g.Expect(object.GetNamespace()).To(Equal("marketing"), "the examples are about one namespace")
					object.SetNamespace(namespace)
					// Applied server side, a field that is not in the schema is an error.
					g.Expect(plane.Client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object),
						client.FieldOwner("docs"), client.ForceOwnership)).To(Succeed(), object.GetName())
				}
			}
			g.Expect(kinds).To(ContainElement(kind))
		})
	}
}

// TestStatusThatIsShownIsOne has the example of a status read as one of this version.
func TestStatusThatIsShownIsOne(t *testing.T) {
	shown := 0
	for _, block := range fence.FindAllStringSubmatch(readPage(t, "WebhookSubscription"), -1) {
		_, status, found := strings.Cut(block[2], "\nstatus:\n")
		if !found {
			continue
		}
		var subscription v1alpha1.WebhookSubscription
		NewWithT(t).Expect(strictyaml.UnmarshalStrict([]byte("status:\n"+status), &subscription)).To(Succeed())
		shown++
	}
	NewWithT(t).Expect(shown).To(Equal(1))
}

func objectsIn(t *testing.T, text string) (objects []*unstructured.Unstructured) {
	t.Helper()
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewBufferString(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		objects = append(objects, object)
	}
}
