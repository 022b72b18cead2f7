package expression_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/expression"
)

// left is an Unsubscribe with something in each field.
func left() *contact.Event {
	at, code := time.Date(2025, 11, 11, 9, 27, 29, 5e8, time.UTC), 2
	return &contact.Event{
		Position: 371, ID: "evt_1", List: contact.ListKey{Namespace: "marketing", Name: "newsletter"}, Address: "max.muster@example.com",
		Type: contact.EventUnsubscribe, Source: contact.SourceRecipient, Time: at, Changed: []string{"FIRSTNAME", "special date"},
		Reason: &contact.Reason{Code: &code, Name: "other", Text: "moved"},
		Contact: contact.Contact{
			ID: 6049065, Email: "max.muster@example.com", ExternalID: "c-1", Permission: contact.PermissionDoubleOptIn,
			StandardFields: map[string]string{"FIRSTNAME": "Max", "COUNTRY": "DE"},
			CustomFields:   map[string]any{"special date": "2020-12-12", "score": 1.5, "vip": true},
			Source:         "form", SubscriptionPage: "https://example.com/", Revision: 3, CreatedAt: at, UpdatedAt: at.Add(time.Hour),
		},
	}
}

// bare is an event with as little in it as there can be.
func bare() *contact.Event {
	return &contact.Event{Type: contact.EventCreate, Source: contact.SourceAPI, Contact: contact.Contact{ID: 1, Email: "a@example.com"}}
}

func TestFilter(t *testing.T) {
	for source, want := range map[string]struct{ full, bare bool }{
		`event.contact.standardFields.COUNTRY == "DE"`:                                   {true, false},
		`event.contact.standardFields.COUNTRY != "DE"`:                                   {false, true},
		`event.contact.standardFields.COUNTRY in ["DE", "AT", ""]`:                       {true, true},
		`has(event.contact.standardFields.CITY)`:                                         {false, false},
		`has(event.contact.standardFields.COUNTRY)`:                                      {true, false},
		`event.type == "Unsubscribe" && event.source == "Recipient"`:                     {true, false},
		`event.id == "evt_1" && event.namespace == "marketing"`:                          {true, false},
		`event.list in ["newsletter"]`:                                                   {true, false},
		`event.timestamp > timestamp("2025-11-11T09:27:29Z")`:                            {true, false},
		`event.timestamp.getHours() == 9`:                                                {true, false},
		`event.timestamp.getHours("Europe/Berlin") == 10`:                                {true, false},
		`event.changed.exists(f, f.startsWith("special"))`:                               {true, false},
		`size(event.changed) == 0`:                                                       {false, true},
		`has(event.reason)`:                                                              {true, false},
		`has(event.reason.code) && event.reason.code == 2`:                               {true, false},
		`event.reason.name == "other"`:                                                   {true, false},
		`event.contact.email.endsWith("@example.com")`:                                   {true, true},
		`event.contact.email.lowerAscii().matches("^max[.].*")`:                          {true, false},
		`event.contact.id == "6049065" && event.contact.revision >= 3`:                   {true, false},
		`event.contact.permission in [4, 5]`:                                             {true, false},
		`has(event.contact.externalId)`:                                                  {true, false},
		`event.contact.customSource == "form"`:                                           {true, false},
		`event.contact.subscriptionPage.startsWith("https:")`:                            {true, false},
		`event.contact.updatedAt - event.contact.createdAt == duration("1h")`:            {true, false},
		`has(event.contact.customFields.score) && event.contact.customFields.score > 1`:  {true, false},
		`event.contact.customFields.?score.orValue(0) > 1`:                               {true, false},
		`event.contact.customFields[?"special date"].orValue("") == "2020-12-12"`:        {true, false},
		`"special date" in event.contact.customFields`:                                   {true, false},
		`event.contact.customFields.exists(name, name == "vip")`:                         {true, false},
		`event.contact.customFields.exists(name, value, name == "vip" && value == true)`: {true, false},
		`cel.bind(c, event.contact.standardFields.COUNTRY, c == "DE" || c == "AT")`:      {true, false},
		`sets.intersects(event.changed, ["FIRSTNAME"])`:                                  {true, false},
		`event.contact == event.contact && event != dyn(event.contact)`:                  {true, true},
		`dyn(event).contact.email == event.contact.email && has(dyn(event).contact)`:     {true, true},
		`event.contact.standardFields.?CITY.hasValue() || event.?reason.name.hasValue()`: {true, false},
		`true`: {true, true},
		`event.contact.email.replace("a", "b").substring(0, 1) == "m"`:                             {true, false},
		`event.contact.standardFields.FIRSTNAME.size() + 1 > 3`:                                    {true, false},
		`!(event.type in ["Create", "Delete"])`:                                                    {true, false},
		`event.contact.standardFields.LOCALE.split("_").size() == 1`:                               {true, true},
		`[event.contact.standardFields.FIRSTNAME, "x"].join("-") == "Max-x"`:                       {true, false},
		`event.contact.customFields == {} || event.contact.customFields.?vip == optional.of(true)`: {true, true},
	} {
		t.Run(source, func(t *testing.T) {
			g := NewWithT(t)
			filter, err := expression.CompileFilter(source)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(filter.Matches(left())).To(Equal(want.full))
			g.Expect(filter.Matches(bare())).To(Equal(want.bare))
		})
	}
}

func TestRefusedFilters(t *testing.T) {
	for name, row := range map[string]struct{ source, want string }{
		"nothing":                          {"", "1:1: Syntax error"},
		"half of it":                       {"event.type ==", "1:14: Syntax error"},
		"an error in the second line":      {"event.type ==\n  'Create' &&& true", "2:14: Syntax error"},
		"something else":                   {"contact.email == ''", "1:1: undeclared reference to 'contact'"},
		"a field that there is not":        {"event.email == ''", "1:6: undefined field 'email'"},
		"a standard field that is not one": {"event.contact.standardFields.COUNTY == ''", "1:29: undefined field 'COUNTY'"},
		"types that don't fit":             {"event.type == 1", "1:12: found no matching overload for '_==_' applied to '(string, int)'"},
		"a text":                           {"event.type", "1:1: the result is string, it must be a bool"},
		"a map":                            {"{'a': true}", "1:1: the result is map(string, bool), it must be a bool"},
		"a function that there is not":     {"now() > event.timestamp", "1:4: undeclared reference to 'now'"},
		"format, whose cost is not known":  {"'%s'.format([event.id]) == ''", "1:12: the function format can't be used"},
		"an encoder":                       {"base64.encode(b'x') == ''", "1:1: undeclared reference"},
		"a broken pattern":                 {"event.type.matches('[')", "1:20: invalid matches argument"},
		"a broken time":                    {"event.timestamp > timestamp('tomorrow')", "1:29: invalid timestamp argument"},
		"an object that is made":           {"postbus.Event{id: 'x'} == event", "1:14: objects can't be made: write a map"},
		"too costly":                       {"event.changed.all(a, event.changed.all(b, event.changed.all(c, a + b + c != '')))", "1:1: it could cost up to"},
		"too long a text":                  {strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300), "recursion"},
		"texts that grow": {
			"cel.bind(a, event.contact.email, cel.bind(b, a.replace('', a), cel.bind(c, b.replace('', b), c.replace('', c) == '')))", "1:1: it could cost up to",
		},
		"lists that grow":    {doubled(20, "l20 == l20"), "1:1: it could cost up to"},
		"an object by index": {`event["type"] == ""`, "1:6: found no matching overload for '_[_]'"},
		"types":              {"type(event) == type(event)", "1:1: it could cost up to"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := expression.CompileFilter(row.source)
			g.Expect(err).To(MatchError(ContainSubstring(row.want)))
			var told *expression.Error
			g.Expect(errors.As(err, &told)).To(BeTrue())
			g.Expect(strings.Contains(told.Message, "\n")).To(BeFalse())
		})
	}
}

// doubled is an expression in which lists l1, l2 … are twice as long each.
func doubled(times int, last string) string {
	for n := times; n > 0; n-- {
		last = fmt.Sprintf("cel.bind(l%d, l%d + l%d, %s)", n, n-1, n-1, last)
	}
	return "cel.bind(l0, ['x'], " + last + ")"
}

func TestTemplate(t *testing.T) {
	for source, want := range map[string]string{
		`{"mail": event.contact.email, "n": 1, "half": 0.5, "yes": true, "no": null}`: `{"half":0.5,"mail":"max.muster@example.com","n":1,"no":null,"yes":true}`,
		`[event.type, event.source]`: `["Unsubscribe","Recipient"]`,
		`event.contact`: `{"id":"6049065","email":"max.muster@example.com","externalId":"c-1","permission":4,
			"standardFields":{"COUNTRY":"DE","FIRSTNAME":"Max"},"customFields":{"score":1.5,"special date":"2020-12-12","vip":true},
			"customSource":"form","subscriptionPage":"https://example.com/","revision":3,
			"createdAt":"2025-11-11T09:27:29.5Z","updatedAt":"2025-11-11T10:27:29.5Z"}`,
		`event.reason`: `{"code":2,"name":"other","text":"moved"}`,
		`{"at": event.timestamp, "list": event.list}`:                                                      `{"at":"2025-11-11T09:27:29.5Z","list":"newsletter"}`,
		`{"changed": event.changed, "unset": event.contact.standardFields.CITY}`:                           `{"changed":["FIRSTNAME","special date"],"unset":""}`,
		`{?"city": event.contact.standardFields.?CITY, ?"country": event.contact.standardFields.?COUNTRY}`: `{"country":"DE"}`,
		`[?event.contact.customFields[?"nothing"]]`:                                                        `[]`,
		`{}`:                  `{}`,
		`[{}, [], {"a": []}]`: `[{},[],{"a":[]}]`,
		`event.contact.customFields.transformMap(name, value, name.upperAscii() + ":" + string(value))`: `{"score":"SCORE:1.5","special date":"SPECIAL DATE:2020-12-12","vip":"VIP:true"}`,
		`event.changed.map(f, {"name": f})`:                                                                            `[{"name":"FIRSTNAME"},{"name":"special date"}]`,
		`dyn({"b": b"bytes", "d": duration("90s"), "u": 1u, "max": 9223372036854775807})`:                              `{"b":"Ynl0ZXM=","d":"90s","max":9223372036854775807,"u":1}`,
		`{"subscribed": event.type == "Subscribe" ? "yes" : "no"}`:                                                     `{"subscribed":"no"}`,
		`cel.bind(c, event.contact, {"first": c.standardFields.FIRSTNAME, "score": c.customFields.?score.orValue(0)})`: `{"first":"Max","score":1.5}`,
	} {
		t.Run(source, func(t *testing.T) {
			g := NewWithT(t)
			template, err := expression.CompileTemplate(source)
			g.Expect(err).NotTo(HaveOccurred())
			first, err := template.Render(left())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(json.Valid(first)).To(BeTrue())
			g.Expect(string(first)).To(Equal(strings.NewReplacer("\n", "", "\t", "").Replace(want)))
			again, err := template.Render(left())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(again).To(Equal(first), "a retry carries the same bytes")
		})
	}
}

// An event without anything has nothing in JSON but what every event has.
func TestTemplateOfLittle(t *testing.T) {
	g := NewWithT(t)
	template, err := expression.CompileTemplate(`event`)
	g.Expect(err).NotTo(HaveOccurred())
	text, err := template.Render(bare())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(text)).To(MatchJSON(`{"type":"Create","timestamp":"0001-01-01T00:00:00Z","source":"API",
		"contact":{"id":"1","email":"a@example.com","permission":0,"revision":0,"createdAt":"0001-01-01T00:00:00Z","updatedAt":"0001-01-01T00:00:00Z"}}`))
}

// An operational event has an operation where others have a contact.
func TestOperationalEvents(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	operation := contact.Operation{
		Kind: "WebhookSubscription", Name: "crm", Reason: "HTTPStatus", HTTPStatus: 500, FailingSince: at,
		DeactivationDue: at, BufferedUntil: at, Events: 3, Replay: true, ExpiresAt: at,
	}
	for source, want := range map[string]struct{ full, little string }{
		`event`: {
			`{"id":"evt_1","type":"subscription.failing","timestamp":"2026-11-22T10:00:00Z","namespace":"marketing","operation":{
			"kind":"WebhookSubscription","name":"crm","reason":"HTTPStatus","httpStatus":500,"failingSince":"2026-11-22T10:00:00Z",
			"deactivationDue":"2026-11-22T10:00:00Z","bufferedUntil":"2026-11-22T10:00:00Z","bufferedEvents":3,"replay":true,
			"expiresAt":"2026-11-22T10:00:00Z"}}`,
			`{"type":"Create","timestamp":"0001-01-01T00:00:00Z","source":"API",
			"contact":{"id":"1","email":"a@example.com","permission":0,"revision":0,"createdAt":"0001-01-01T00:00:00Z","updatedAt":"0001-01-01T00:00:00Z"}}`,
		},
		`has(event.operation) ? {"name": event.operation.name} : {"email": event.contact.email}`: {`{"name":"crm"}`, `{"email":"a@example.com"}`},
		`{"events": event.operation.bufferedEvents, "by": event.contact.email}`:                  {`{"events":3,"by":""}`, `{"events":0,"by":"a@example.com"}`},
	} {
		g := NewWithT(t)
		template, err := expression.CompileTemplate(source)
		g.Expect(err).NotTo(HaveOccurred())
		text, err := template.Render(&contact.Event{
			ID: "evt_1", List: contact.ListKey{Namespace: "marketing"}, Type: contact.EventFailing, Time: at, Operation: &operation,
		})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(text)).To(MatchJSON(want.full), source)
		text, err = template.Render(bare())
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(text)).To(MatchJSON(want.little), source)
	}
}

func TestRefusedTemplates(t *testing.T) {
	for source, want := range map[string]string{
		`event.type`:              "1:1: the result is string, it must be a map or a list",
		`1`:                       "1:1: the result is int",
		`optional.of({"a": "b"})`: "1:1: the result is optional_type(map(string, string))",
		`{"a": event.nothing}`:    "1:12: undefined field 'nothing'",
		`{"a": }`:                 "1:7: Syntax error",
		`event.changed.map(a, event.changed.map(b, event.changed.map(c, a + b + c)))`: "1:1: it could cost up to",
	} {
		_, err := expression.CompileTemplate(source)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(want)), source)
	}
}

// What fails with one event is told without anything of the person.
func TestFailuresOfOneEvent(t *testing.T) {
	for source, want := range map[string]string{
		`{"a": event.contact.customFields.nothing}`:                                 "no such key",
		`{"a": event.contact.customFields["nothing at all"]}`:                       "no such key",
		`{"a": event.contact.customFields[event.contact.email]}`:                    "no such key",
		`{"a": int(event.contact.email)}`:                                           "",
		`{"a": timestamp(event.contact.email)}`:                                     "",
		`{"a": event.contact.customFields.vip + 1}`:                                 "no such overload",
		`{"a": 1 / (event.contact.revision - 3)}`:                                   "division by zero",
		`{"a": event.changed[7]}`:                                                   "index out of bounds",
		`{event.contact.revision: "a"}`:                                             "1:1: the result has something in it that JSON has not",
		`{"a": optional.none()}`:                                                    "1:1: the result has something in it that JSON has not",
		`{"a": 0.0 / 0.0}`:                                                          "1:1: the result has something in it that JSON has not",
		`{"a": type(event)}`:                                                        "1:1: the result has something in it that JSON has not",
		`dyn(event.contact.email)`:                                                  "1:1: the result is not a map or a list",
		`{"a": dyn(event).nothing}`:                                                 "no such field",
		`{"a": dyn(event)[1]}`:                                                      "no such field",
		`{"a": has(dyn(event).nothing)}`:                                            "no such field",
		`{"a": event.changed.map(f, event.changed.map(g, event.contact.email))[5]}`: "index out of bounds",
	} {
		t.Run(source, func(t *testing.T) {
			g := NewWithT(t)
			template, err := expression.CompileTemplate(source)
			g.Expect(err).NotTo(HaveOccurred())
			_, err = template.Render(left())
			g.Expect(err).To(MatchError(ContainSubstring(want)))
			var told *expression.Error
			g.Expect(errors.As(err, &told)).To(BeTrue())
			g.Expect(err.Error()).NotTo(Or(ContainSubstring("max.muster"), ContainSubstring("moved")))
		})
	}
	g := NewWithT(t)
	filter, err := expression.CompileFilter(`event.contact.customFields.nothing`)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = filter.Matches(left())
	g.Expect(err).To(MatchError("1:27: no such key"))
	filter, err = expression.CompileFilter(`dyn(event.type)`)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = filter.Matches(left())
	g.Expect(err).To(MatchError("1:1: the result is not a bool"))
}

// An event that makes an expression cost more than one evaluation may fails that
// event, although the estimate let the expression pass.
func TestCostOfOneEvent(t *testing.T) {
	g := NewWithT(t)
	filter, err := expression.CompileFilter(`event.changed.all(a, event.changed.exists(b, a.size() < b.size() || a == b))`)
	g.Expect(err).To(MatchError(ContainSubstring("it could cost up to")))
	g.Expect(filter).To(BeNil())
	template, err := expression.CompileTemplate(`event.changed.map(a, event.changed.map(b, a + b))`)
	g.Expect(err).NotTo(HaveOccurred())
	event := left()
	for range 200 {
		event.Changed = append(event.Changed, strings.Repeat("x", 64))
	}
	_, err = template.Render(event)
	g.Expect(err).To(MatchError(ContainSubstring("it cost more than one evaluation may")))
}

// Lists are joined without being copied, so a short expression can have a result
// that nobody could send.
func TestResultIsBounded(t *testing.T) {
	g := NewWithT(t)
	template, err := expression.CompileTemplate(doubled(40, "l40"))
	g.Expect(err).NotTo(HaveOccurred())
	_, err = template.Render(left())
	g.Expect(err).To(MatchError("1:1: the result is longer than 1 MiB"))
}

func TestEqualSourcesShareOneProgram(t *testing.T) {
	g := NewWithT(t)
	source := fmt.Sprintf(`event.id == "%d"`, time.Now().UnixNano())
	var first, other *expression.Filter
	var both sync.WaitGroup
	for _, to := range []**expression.Filter{&first, &other} {
		both.Go(func() {
			compiled, err := expression.CompileFilter(source)
			g.Expect(err).NotTo(HaveOccurred())
			*to = compiled
		})
	}
	both.Wait()
	g.Expect(first == other).To(BeTrue())
	first, other = nil, nil
	runtime.GC()
	g.Expect(expression.CompileFilter(source)).NotTo(BeNil(), "what nobody holds is made again")
}

func TestNumbersOfOneEventAreExact(t *testing.T) {
	g := NewWithT(t)
	template, err := expression.CompileTemplate(`[event.contact.revision]`)
	g.Expect(err).NotTo(HaveOccurred())
	event := left()
	event.Contact.Revision = math.MaxInt64
	g.Expect(template.Render(event)).To(Equal([]byte("[9223372036854775807]")))
}
