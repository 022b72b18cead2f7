package ingress_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

const (
	importPath = "/webhooks/contacts/import"
	ndjsonType = "application/x-ndjson"
	csvType    = "text/csv"
)

// importer makes a key that may import contacts, and nothing else.
func (f *fixture) importer(t *testing.T) string {
	t.Helper()
	return f.issue(t, "importer", func(key *v1alpha1.ApiKey) {
		key.Spec.Scopes = []v1alpha1.ApiKeyScope{v1alpha1.ScopeContactsImport}
	})
}

// imported is a line of the answer, of either kind.
type imported struct {
	Line    int64
	Contact *struct {
		ID      string
		List    string
		Created bool
	}
	Error    *struct{ Message, Code, Parameter string }
	Complete *bool
	Lines    int64
	Failed   int64
}

// importFile imports a file and returns the results of its lines and the last.
func (f *fixture) importFile(t *testing.T, r request) (lines []imported, last imported) {
	t.Helper()
	g := NewWithT(t)
	r.path = importPath
	got := f.send(t, r)
	g.Expect(got.status).To(Equal(http.StatusOK), got.body)
	g.Expect(got.header.Get("Content-Type")).To(Equal(ndjsonType))
	for text := range strings.SplitSeq(strings.TrimSpace(got.body), "\n") {
		var one imported
		g.Expect(json.Unmarshal([]byte(text), &one)).To(Succeed(), text)
		lines = append(lines, one)
	}
	last = lines[len(lines)-1]
	g.Expect(last.Complete).NotTo(BeNil(), "the last line says whether it is all")
	return lines[:len(lines)-1], last
}

// outcomes says what became of lines, in short.
func outcomes(lines []imported) (texts []string) {
	for _, l := range lines {
		switch {
		case l.Error != nil:
			texts = append(texts, fmt.Sprintf("%d %s: %s", l.Line, l.Error.Code, l.Error.Message))
		case l.Contact.Created:
			texts = append(texts, fmt.Sprintf("%d created", l.Line))
		default:
			texts = append(texts, fmt.Sprintf("%d kept", l.Line))
		}
	}
	return texts
}

func TestImport(t *testing.T) {
	f := start(t)
	key := f.importer(t)
	ndjson := strings.Join([]string{
		`{"email":"WHO1@example.com","permission":2,"standard_FIRSTNAME":"Ada","custom_special+date":"12.12.2020"}`,
		`{"email":"WHO2@example.com","standard_GENDER":"x"}`,
		`{"email":"WHO1@example.com","standard_FIRSTNAME":"Eva"}`,
		`not json`,
		`{"email":"WHO3@example.com","email":"WHO4@example.com"}`,
		`{"email":"WHO3@example.com","external_id":"EXT"}`,
		`{"email":"WHO5@example.com","external_id":"EXT"}`,
	}, "\n")
	for name, row := range map[string]struct {
		contentType, file string
		want              []string
	}{
		"NDJSON": {ndjsonType, ndjson, []string{
			"1 created", "2 IllegalValue: illegal standard field value: GENDER must be m, f or d", "3 kept",
			"4 Malformed: malformed request: the body must be one JSON object",
			"5 TooManyValues: too many values: email is given more than once", "6 created",
			"7 ExternalIDTaken: illegal parameter value: external_id belongs to another contact of the list",
		}},
		"CSV": {csvType, "\ufeffemail,permission,standard_FIRSTNAME,standard_GENDER,custom_special date,external_id\r\n" +
			"WHO1@example.com,2,\"Ada\",,12.12.2020,\r\n" +
			"WHO2@example.com,,,x,,\r\n" +
			"WHO1@example.com,,Eva,,,\r\n" +
			"WHO4@example.com\r\n" +
			"WHO3@example.com,,,,,EXT\r\n" +
			"WHO5@example.com,,,,,EXT\r\n", []string{
			"1 created", "2 IllegalValue: illegal standard field value: GENDER must be m, f or d", "3 kept",
			"4 Malformed: malformed request: the line has 1 cells, the first line has 6", "5 created",
			"6 ExternalIDTaken: illegal parameter value: external_id belongs to another contact of the list",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			prefix := strings.ToLower(name)
			file := strings.NewReplacer("WHO", prefix, "EXT", prefix).Replace(row.file)
			lines, last := f.importFile(t, request{
				query: "sync_mode=1&src=fair&key=" + key, contentType: row.contentType, body: file, chunked: true,
			})
			g.Expect(outcomes(lines)).To(Equal(row.want))
			g.Expect(*last.Complete).To(BeTrue())
			g.Expect(last.Lines).To(Equal(int64(len(row.want))))
			g.Expect(last.Lines - last.Failed).To(Equal(int64(3)))
			stored := f.contact(t, prefix+"1@example.com")
			g.Expect(stored.StandardFields).To(Equal(map[string]string{"FIRSTNAME": "Eva"}), "a later line sees the earlier one")
			g.Expect(stored.CustomFields).To(Equal(map[string]any{"special date": "2020-12-12"}))
			g.Expect(stored.Permission).To(Equal(contact.PermissionSingleOptIn))
			g.Expect(stored.Source).To(Equal("fair"), "the URL has the defaults of every line")
			g.Expect(f.events(t, prefix+"1@example.com")).To(BeEmpty(), "an import raises nothing")
		})
	}
}

func TestImportWithEvents(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	f.importFile(t, request{
		query: "events=true", contentType: ndjsonType, body: `{"email":"ada@example.com","permission":"2"}`,
		header: map[string]string{"Authorization": "Bearer " + f.importer(t)},
	})
	g.Expect(f.events(t, "ada@example.com")).To(Equal([]string{"Create API", "Subscribe API"}))
}

// An import that was cut off goes on behind the last line that had a result.
func TestImportIsResumed(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	var file strings.Builder
	for n := range 10 {
		fmt.Fprintf(&file, "{\"email\":\"ada.%d@example.com\"}\n", n)
	}
	lines, last := f.importFile(t, request{
		query: "skip=7&events=true&key=" + f.importer(t), contentType: ndjsonType, body: file.String(),
	})
	g.Expect(outcomes(lines)).To(Equal([]string{"8 created", "9 created", "10 created"}))
	g.Expect(last.Lines).To(Equal(int64(10)))
	g.Expect(f.contact(t, "ada.6@example.com")).To(BeNil())
}

func TestImportEndsWithAReason(t *testing.T) {
	f := start(t)
	key := f.importer(t)
	const good = `{"email":"ada@example.com"}` + "\n"
	for name, row := range map[string]struct {
		contentType, body string
		lines             int64
		message           string
	}{
		"a line that is too long":       {ndjsonType, good + `{"email":"` + strings.Repeat("a", 70000), 1, "malformed request: a line must have at most 65536 bytes"},
		"a quote that is never closed":  {csvType, "email\nada@example.com\n\"" + strings.Repeat("a", 200000), 1, "malformed request: a line must have at most 65536 bytes"},
		"a quote in the middle of CSV":  {csvType, "email\nada@example.com\na\"b\n", 1, "malformed request: the file is not CSV: bare \" in non-quoted-field"},
		"a first line that is too long": {csvType, strings.Repeat("email,", 20000), 0, "malformed request: a line must have at most 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			lines, last := f.importFile(t, request{query: "key=" + key, contentType: row.contentType, body: row.body})
			g.Expect(*last.Complete).To(BeFalse())
			g.Expect(last.Error.Message).To(Equal(row.message))
			g.Expect(last.Lines).To(Equal(row.lines))
			g.Expect(lines).To(HaveLen(int(row.lines)), "what came before is imported")
		})
	}
	t.Run("an empty file", func(t *testing.T) {
		g := NewWithT(t)
		lines, last := f.importFile(t, request{query: "key=" + key, contentType: csvType})
		g.Expect(lines).To(BeEmpty())
		g.Expect(*last.Complete).To(BeTrue())
	})
	t.Run("a store that is down", func(t *testing.T) {
		g := NewWithT(t)
		f.closeStore(t)
		lines, last := f.importFile(t, request{query: "key=" + key, contentType: ndjsonType, body: good})
		g.Expect(lines).To(BeEmpty())
		g.Expect(last.Error.Code).To(Equal("Unavailable"))
		g.Expect(last.Lines).To(BeZero())
	})
}

func TestImportIsRefused(t *testing.T) {
	f := start(t)
	key := f.importer(t)
	for name, row := range map[string]struct {
		request request
		status  int
		message string
	}{
		"no key":                 {request{contentType: csvType}, http.StatusUnauthorized, "'key' parameter not found or too many values."},
		"a key in both places":   {request{contentType: csvType, query: "key=" + key, header: map[string]string{"Authorization": "Bearer " + key}}, http.StatusUnauthorized, "'key' parameter not found or too many values."},
		"an unknown key":         {request{contentType: csvType, query: "key=nonsense"}, http.StatusUnauthorized, "no such api key"},
		"a key that writes":      {request{contentType: csvType, query: "key=" + f.key}, http.StatusForbidden, "the api key does not have the scope ContactsImport"},
		"a form":                 {request{contentType: formType, query: "key=" + key}, http.StatusUnsupportedMediaType, "the content type must be application/x-ndjson or text/csv, in UTF-8 and not compressed"},
		"a GET":                  {request{method: http.MethodGet, query: "key=" + key}, http.StatusMethodNotAllowed, "the method must be POST"},
		"events that is no flag": {request{contentType: csvType, query: "events=1&key=" + key}, http.StatusBadRequest, "illegal parameter value: events must be true or false"},
		"skip that is no number": {request{contentType: csvType, query: "skip=-1&key=" + key}, http.StatusBadRequest, "illegal parameter value: skip must be a number of lines"},
		"a parameter twice":      {request{contentType: csvType, query: "src=a&src=b&key=" + key}, http.StatusBadRequest, "too many values: src is given more than once"},
	} {
		t.Run(name, func(t *testing.T) {
			row.request.path = importPath
			expectRefusal(t, f.send(t, row.request), row.status, row.message)
		})
	}
}

// Results come while the file is still being sent, so neither side holds it.
func TestImportStreams(t *testing.T) {
	g := NewWithT(t)
	f := start(t)
	key := f.importer(t)
	body, file := io.Pipe()
	sent, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.address+importPath+"?key="+key, body)
	g.Expect(err).NotTo(HaveOccurred())
	sent.Header.Set("Content-Type", ndjsonType)
	const batch, batches = 256, 40
	received := make(chan struct{})
	go func() {
		defer func() { _ = file.Close() }() // a pipe has nothing to say
		for b := range batches {
			for n := range batch {
				fmt.Fprintf(file, "{\"email\":\"ada.%d.%d@example.com\"}\n", b, n)
			}
			<-received // the results of this batch, before the next is sent
		}
	}()
	response, err := http.DefaultTransport.RoundTrip(sent)
	g.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	results := bufio.NewScanner(response.Body)
	for n := 1; n <= batch*batches; n++ {
		g.Expect(results.Scan()).To(BeTrue())
		g.Expect(results.Text()).To(HavePrefix(fmt.Sprintf(`{"line":%d,"contact":{"id":`, n)))
		if n%batch == 0 {
			received <- struct{}{}
		}
	}
	g.Expect(results.Scan()).To(BeTrue())
	g.Expect(results.Text()).To(Equal(fmt.Sprintf(`{"complete":true,"lines":%d,"failed":0}`, batch*batches)))
	g.Expect(results.Scan()).To(BeFalse())
	g.Expect(f.store.Count(t.Context(), f.list())).To(Equal(contact.Counts{Contacts: batch * batches}))
}
