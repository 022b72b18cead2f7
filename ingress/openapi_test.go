package ingress_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/ingress"
)

// readDocument returns docs/openapi.yaml, valid as OpenAPI 3.1.
func readDocument(t *testing.T) *openapi3.T {
	t.Helper()
	g := NewWithT(t)
	document, err := openapi3.NewLoader().LoadFromFile("../docs/openapi.yaml")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(document.Validate(t.Context())).To(Succeed())
	return document
}

func TestDocumentHasEveryPath(t *testing.T) {
	g := NewWithT(t)
	posted, _ := ingress.PostParameters()
	contacts, probes := ingress.ReadPaths()
	document := readDocument(t)
	g.Expect(document.Paths.Keys()).To(ConsistOf(slices.Concat(slices.Collect(maps.Keys(posted)), contacts, probes)))
	for path, item := range document.Paths.Map() {
		method := http.MethodGet
		if posted[path] != nil {
			method = http.MethodPost
		}
		g.Expect(item.Operations()).To(And(HaveLen(1), HaveKey(method)), path)
	}
}

func TestDocumentHasEveryParameter(t *testing.T) {
	document := readDocument(t)
	known, fields := ingress.PostParameters()
	for path, parameters := range known {
		t.Run(path, func(t *testing.T) {
			g := NewWithT(t)
			operation := document.Paths.Value(path).Post
			inURL := operation.Parameters.GetByInAndName(openapi3.ParameterInQuery, "parameters")
			g.Expect(inURL.Style).To(Equal(openapi3.SerializationForm))
			schemas := []*openapi3.Schema{inURL.Schema.Value}
			body := operation.RequestBody.Value.Content
			for _, form := range []string{"application/json", "application/x-www-form-urlencoded"} {
				if media := body[form]; media != nil {
					schemas = append(schemas, media.Schema.Value)
				}
			}
			for _, schema := range schemas {
				names, patterns := propertiesOf(schema)
				g.Expect(names).To(ConsistOf(parameters))
				if fields[path] {
					g.Expect(patterns).To(ConsistOf(HavePrefix("^standard_"), HavePrefix("^custom_")))
				} else {
					g.Expect(patterns).To(BeEmpty())
				}
			}
		})
	}
}

// propertiesOf returns the names of a schema's properties, and the patterns of
// those that have one.
func propertiesOf(schema *openapi3.Schema) (names, patterns []string) {
	names = slices.Collect(maps.Keys(schema.Properties))
	patterns = slices.Collect(maps.Keys(schema.PatternProperties))
	for _, part := range schema.AllOf {
		more, morePatterns := propertiesOf(part.Value)
		names, patterns = append(names, more...), append(patterns, morePatterns...)
	}
	return names, patterns
}

func TestDocumentNamesCallsThatCanBeNamed(t *testing.T) {
	for path, item := range readDocument(t).Paths.Map() {
		for _, operation := range item.Operations() {
			named := operation.Parameters.GetByInAndName(openapi3.ParameterInHeader, ingress.IdempotencyHeader) != nil
			NewWithT(t).Expect(named).To(Equal(operation.Responses.Status(http.StatusUnprocessableEntity) != nil), path)
		}
	}
}

func TestDocumentHasEveryError(t *testing.T) {
	g := NewWithT(t)
	written := map[string]string{}
	for _, item := range readDocument(t).Paths.Map() {
		for _, operation := range item.Operations() {
			for status, response := range operation.Responses.Map() {
				for _, code := range codesOf(response.Value) {
					written[code] = status
				}
			}
		}
	}
	g.Expect(written).To(Equal(declaredCodes(t)))
}

// codesOf returns the codes that the errors of a response can have.
func codesOf(response *openapi3.Response) (codes []string) {
	media := response.Content["application/json"]
	if media == nil {
		return nil
	}
	for _, part := range media.Schema.Value.AllOf {
		if problem := part.Value.Properties["error"]; problem != nil && problem.Value.Properties["code"] != nil {
			for _, code := range problem.Value.Properties["code"].Value.Enum {
				codes = append(codes, code.(string))
			}
		}
	}
	return codes
}

// declaredCodes returns the status of each code that ingress can answer. What
// is logged of callers that have gone is no answer; its status is not HTTP's.
func declaredCodes(t *testing.T) map[string]string {
	t.Helper()
	g := NewWithT(t)
	statuses := map[string]int{}
	for status := 400; status < 600; status++ {
		statuses["Status"+strings.NewReplacer(" ", "", "-", "").Replace(http.StatusText(status))] = status
	}
	codes := map[string]string{}
	for _, code := range ingress.InputCodes {
		codes[code] = strconv.Itoa(http.StatusBadRequest)
	}
	files, err := filepath.Glob("*.go")
	g.Expect(err).NotTo(HaveOccurred())
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		g.Expect(err).NotTo(HaveOccurred())
		ast.Inspect(file, func(node ast.Node) bool {
			if literal, ok := node.(*ast.CompositeLit); ok {
				if status, code := problemIn(literal); status != "" && code != "" {
					g.Expect(statuses).To(HaveKey(status))
					codes[code] = strconv.Itoa(statuses[status])
				}
			}
			return true
		})
	}
	return codes
}

// problemIn returns the name of the status and the code of a problem.
func problemIn(literal *ast.CompositeLit) (status, code string) {
	if kind, ok := literal.Type.(*ast.Ident); !ok || kind.Name != "problem" {
		return "", ""
	}
	for _, element := range literal.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		switch value := pair.Value.(type) {
		case *ast.SelectorExpr:
			status = value.Sel.Name
		case *ast.BasicLit:
			if name, ok := pair.Key.(*ast.Ident); ok && name.Name == "code" {
				code, _ = strconv.Unquote(value.Value) // what was parsed is quoted well
			}
		}
	}
	return status, code
}

func TestAnswersAreAsDocumented(t *testing.T) {
	f := start(t)
	document := readDocument(t)
	all := f.issue(t, "all", func(key *v1alpha1.ApiKey) {
		key.Spec.Scopes = []v1alpha1.ApiKeyScope{
			v1alpha1.ScopeContactsWrite, v1alpha1.ScopeContactsRemove, v1alpha1.ScopeContactsImport, v1alpha1.ScopeContactsRead,
		}
	})
	bearer := map[string]string{"Authorization": "Bearer " + all}
	post := func(path, query string) request {
		return request{path: path, query: "key=" + all + query}
	}
	get := func(path string) request { return request{method: http.MethodGet, path: path, header: bearer} }
	importOf := func(body string) request {
		return request{
			path: "/webhooks/contacts/import", body: body, contentType: "application/x-ndjson", header: bearer,
		}
	}
	const list, one = "/v1/lists/{list}/contacts", "/v1/lists/{list}/contacts/{email}"
	for _, step := range []struct {
		template string
		request  request
		status   int
	}{
		{contactPath, post(contactPath, "&email=ada@example.com&external_id=1&permission=2&custom_children=2&src=fair"), 200},
		{contactPath, post(contactPath, "&email=ada"), 400},
		{contactPath, post(contactPath, "&email=ada@example.com&standard_SHOE=1"), 400},
		{contactPath, request{}, 401},
		{contactPath, request{header: map[string]string{"Origin": "https://example.com"}}, 403},
		{contactPath, request{method: http.MethodPut}, 405},
		{contactPath, post(contactPath, "&email=bob@example.com&external_id=1"), 409},
		{contactPath, request{body: "x"}, 415},
		{list, get("/v1/lists/newsletter/contacts"), 200},
		{list, request{method: http.MethodGet, path: "/v1/lists/newsletter/contacts"}, 401},
		{list, get("/v1/lists/other/contacts"), 403},
		{one, get("/v1/lists/newsletter/contacts/ada@example.com"), 200},
		{one, get("/v1/lists/newsletter/contacts/bob@example.com"), 404},
		{"/webhooks/contacts/unsubscribe", post("/webhooks/contacts/unsubscribe", "&email=ada@example.com&reason=32"), 200},
		{"/webhooks/contacts/delete", post("/webhooks/contacts/delete", "&email=ada@example.com&forget=true"), 200},
		{"/webhooks/contacts/import", importOf(`{"email":"ada@example.com"}` + "\n" + `{"email":"bob"}`), 200},
		{"/webhooks/contacts/import", post("/webhooks/contacts/import", ""), 415},
		{"/healthz", request{method: http.MethodGet, path: "/healthz"}, 200},
		{"/healthz", request{path: "/healthz"}, 405},
		{"/readyz", request{method: http.MethodGet, path: "/readyz"}, 200},
	} {
		got := f.send(t, step.request)
		g := NewWithT(t)
		g.Expect(got.status).To(Equal(step.status), got.body)
		expectDocumented(t, document.Paths.Value(step.template), got)
	}
}

// expectDocumented expects an answer to be one that the document has.
func expectDocumented(t *testing.T, path *openapi3.PathItem, got answer) {
	t.Helper()
	g := NewWithT(t)
	for _, operation := range path.Operations() {
		response := operation.Responses.Status(got.status)
		g.Expect(response).NotTo(BeNil(), "status %d", got.status)
		for name, header := range response.Value.Headers {
			if header.Value.Required {
				g.Expect(got.header).To(HaveKey(name))
			}
		}
		media := response.Value.Content.Get(got.header.Get("Content-Type"))
		g.Expect(media).NotTo(BeNil(), got.header.Get("Content-Type"))
		bodies := []string{got.body}
		if strings.HasSuffix(got.header.Get("Content-Type"), "ndjson") {
			bodies = slices.Collect(strings.Lines(got.body))
		}
		for _, body := range bodies {
			var value any = body
			if !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") {
				g.Expect(json.Unmarshal([]byte(body), &value)).To(Succeed())
			}
			g.Expect(media.Schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020())).To(Succeed(), body)
		}
	}
}
