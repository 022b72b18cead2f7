package expression_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/expression"
)

// sources are where fuzzing begins.
var sources = []string{
	`event.contact.standardFields.COUNTRY == "DE"`, `has(event.reason.code) && event.reason.code == 2`,
	`event.changed.exists(f, f.startsWith("special"))`, `event.contact.email.lowerAscii().matches("^max[.].*")`,
	`event.contact.customFields[?"special date"].orValue("") == "2020-12-12"`, `sets.intersects(event.changed, ["FIRSTNAME"])`,
	`event.timestamp > timestamp("2025-11-11T09:27:29Z") + duration("1h")`, `dyn(event).contact.email == string(1.5e300)`,
	`{"mail": event.contact.email, ?"city": event.contact.standardFields.?CITY, "all": event}`,
	`event.contact.customFields.transformMap(name, value, name + string(value))`, `event.changed.map(f, {"name": f, 1u: b"x"})`,
	`cel.bind(c, event.contact, [c, c.email.split("@"), c.email.replace("a", "b")])`, `[1, -0.0, null, 0.0 / 0.0, optional.none()]`,
}

// Whatever somebody applies is refused, or fails an event, and never the process.
func FuzzFilter(f *testing.F) {
	for _, source := range sources {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		defer expectSoon(t, time.Now())
		filter, err := expression.CompileFilter(source)
		if err != nil {
			expectPlace(t, err)
			return
		}
		if _, err = filter.Matches(left()); err != nil {
			expectPlace(t, err)
		}
		if _, err = filter.Matches(bare()); err != nil {
			expectPlace(t, err)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, source := range sources {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		defer expectSoon(t, time.Now())
		template, err := expression.CompileTemplate(source)
		if err != nil {
			expectPlace(t, err)
			return
		}
		text, err := template.Render(left())
		if err != nil {
			expectPlace(t, err)
			return
		}
		g := NewWithT(t)
		g.Expect(json.Valid(text)).To(BeTrue(), string(text))
		g.Expect(len(text)).To(BeNumerically("<=", expression.MaxJSON))
		g.Expect(template.Render(left())).To(Equal(text))
	})
}

// expectSoon: what an expression may cost is some tenths of a second at most.
func expectSoon(t *testing.T, began time.Time) {
	t.Helper()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

func expectPlace(t *testing.T, err error) {
	t.Helper()
	var told *expression.Error
	if !errors.As(err, &told) || told.Line < 1 || told.Column < 1 || told.Message == "" {
		t.Errorf("%#v does not say where", err)
	}
}

func BenchmarkFilter(b *testing.B) {
	filter, err := expression.CompileFilter(`event.contact.standardFields.COUNTRY == "DE" && event.source != "Console"`)
	NewWithT(b).Expect(err).NotTo(HaveOccurred())
	event := left()
	for b.Loop() {
		if matches, err := filter.Matches(event); err != nil || !matches {
			b.Fatal(matches, err)
		}
	}
}
