package expression

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/cel-go/cel"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
)

// largest is an event in which all is as large as it can be.
func largest() *contact.Event {
	e := &contact.Event{
		ID: "evt_1", Type: contact.EventCreate, Time: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
		Contact: contact.Contact{
			ID: 1, Email: strings.Repeat("é", 200) + "@example.com", SubscriptionPage: strings.Repeat("é", maxText),
			CustomFields: map[string]any{},
		},
	}
	for n := range maxFields {
		e.Changed = append(e.Changed, fmt.Sprintf("%0*d", maxFieldName, n))
	}
	for n := range maxCustomFields {
		e.Contact.CustomFields[fmt.Sprint("field", n)] = strings.Repeat("1", maxValue)
	}
	return e
}

// costly are expressions that do one thing over and over, with what makes it slow: text is
// 2,048 characters of two bytes, long ten times that.
var costly = map[string]string{
	"matches, small":   `event.changed.map(f, text.matches("^.*x$"))`,
	"matches, large":   `event.changed.map(f, f.matches("(.*a.*b|.*c.*d|.{0,30}x.{0,30}y)$"))`,
	"matches, retries": `event.changed.map(f, f.matches("(0|[0-9])*(0|[0-9]){0,20}x$"))`,
	"size":             `event.changed.map(f, long.size())`,
	"equal":            `event.changed.map(f, long == long + "x")`,
	"equal to nothing": `event.changed.map(f, long == "")`,
	"less":             `event.changed.map(f, long < text)`,
	"contains":         `event.changed.map(f, text.contains("éx"))`,
	"contains nothing": `event.changed.map(f, long.contains(""))`,
	"startsWith":       `event.changed.map(f, long.startsWith(text))`,
	"endsWith":         `event.changed.map(f, long.endsWith("x"))`,
	"add":              `event.changed.map(f, text + text)`,
	"replace":          `event.changed.map(f, f.replace("0", "ab"))`,
	"replace nothing":  `event.changed.map(f, f.replace("", "ab"))`,
	"split":            `event.changed.map(f, f.split(""))`,
	"join":             `event.changed.map(f, event.changed.join("xyz"))`,
	"indexOf":          `event.changed.map(f, text.indexOf("éx"))`,
	"lastIndexOf":      `event.changed.map(f, text.lastIndexOf("xé"))`,
	"substring":        `event.changed.map(f, text.substring(1, 2))`,
	"charAt":           `event.changed.map(f, text.charAt(7))`,
	"lowerAscii":       `event.changed.map(f, f.lowerAscii())`,
	"trim":             `event.changed.map(f, f.trim())`,
	"reverse":          `event.changed.map(f, f.reverse())`,
	"quote":            `event.changed.map(f, strings.quote(f))`,
	"to a double":      `event.changed.map(f, double(event.contact.customFields.field1))`,
	"to an int":        `event.changed.map(f, int(f))`,
	"to a time":        `event.changed.map(f, timestamp("2026-11-22T10:00:00Z"))`,
	"to a duration":    `event.changed.map(f, duration("1h2m3s"))`,
	"to bytes":         `event.changed.map(f, bytes(f))`,
	"to a text":        `event.changed.map(f, string(1.5e300))`,
	"hours of a zone":  `event.changed.map(f, event.timestamp.getHours("America/Argentina/ComodRivadavia"))`,
	"hours":            `event.changed.map(f, event.timestamp.getHours())`,
	"in":               `event.changed.map(f, f in event.changed)`,
	"sets":             `event.changed.map(f, sets.contains(["x"], event.changed))`,
	"map":              `event.changed.map(f, {"a": f, "b": f})`,
	"list":             `event.changed.map(f, [f, f, f])`,
	"add lists":        `event.changed.map(f, event.changed + event.changed)`,
	"equal lists":      `event.changed.map(f, event.changed == event.changed)`,
	"equal objects":    `event.changed.map(f, event.contact == event.contact)`,
	"a field":          `event.changed.map(f, event.contact.email)`,
	"a custom field":   `event.changed.map(f, event.contact.customFields["field" + "1"])`,
	"custom fields":    `event.changed.map(f, event.contact.customFields.exists(k, k == f))`,
	"all of them":      `event.changed.map(f, event.contact.customFields.transformMap(k, v, v))`,
	"arithmetic":       `event.changed.map(f, 1 + 2 * 3 - 4)`,
	"type":             `event.changed.map(f, type(f) == string)`,
	"optional":         `event.changed.map(f, event.contact.customFields[?f].orValue("x"))`,
}

// measured compiles an expression without a limit, and returns what evaluates it.
func measured(t testing.TB, source string) func() (took time.Duration, cost uint64) {
	t.Helper()
	g := NewWithT(t)
	source = `cel.bind(text, event.contact.subscriptionPage, cel.bind(long, text + text + text + text + text + text + text + text + text + text, ` + source + `))`
	env, err := environment()
	g.Expect(err).NotTo(HaveOccurred())
	checked, issues := env.Compile(source)
	g.Expect(issues.Err()).NotTo(HaveOccurred(), source)
	compiled, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostTracking(chargesOf(checked)))
	g.Expect(err).NotTo(HaveOccurred())
	event := largest()
	return func() (time.Duration, uint64) {
		began := time.Now()
		_, details, err := compiled.Eval(map[string]any{variable: event})
		took := time.Since(began)
		if err != nil && !strings.Contains(err.Error(), "type conversion") {
			g.Expect(err).NotTo(HaveOccurred(), source)
		}
		return took, *details.ActualCost()
	}
}

// BenchmarkCostUnits measures how long a unit of cost takes in each function. One that takes
// more than 20 times as long as a usual one, of some 50 ns, is to be charged more in cost.go.
func BenchmarkCostUnits(b *testing.B) {
	for name, source := range costly {
		b.Run(name, func(b *testing.B) {
			evaluate := measured(b, source)
			var took time.Duration
			var cost uint64
			for b.Loop() {
				t, c := evaluate()
				took, cost = took+t, cost+c
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(cost), "ns/unit")
			b.ReportMetric(float64(cost)/float64(b.N), "units")
		})
	}
}

// An evaluation that takes too long, for all that its cost says, fails its event.
func TestEvaluationEndsByTheClock(t *testing.T) {
	g := NewWithT(t)
	filter, err := CompileFilter(`event.changed.all(f, f != "nothing")`)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(filter.Matches(largest())).To(BeTrue())
	hasty := Filter{program: &program{ast: filter.program.ast, cel: filter.program.cel, atMost: time.Nanosecond}}
	_, err = hasty.Matches(largest())
	g.Expect(err).To(MatchError("1:1: it took longer than one evaluation may"))
}
