package expression_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/expression"
)

// stallingPattern has some 4,000 instructions in 21 characters. CEL takes its cost by its
// length, and each match took 30 ms.
const stallingPattern = `.{0,1000}.{0,1000}xb`

// stalling is a filter that took 0.2 s for each event, and was accepted.
func stalling() string {
	matches := make([]string, 7)
	for n := range matches {
		matches[n] = fmt.Sprintf("s.matches(%q)", stallingPattern)
	}
	return fmt.Sprintf("cel.bind(s, event.id + %q, %s)", strings.Repeat("a", 1900), strings.Join(matches, " || "))
}

// longAlternation is one word for each letter.
func longAlternation() string {
	var words []string
	for letter := 'a'; letter <= 'z'; letter++ {
		words = append(words, strings.Repeat(string(letter), 20))
	}
	return strings.Join(words, "|")
}

func TestRefusedPatterns(t *testing.T) {
	for name, row := range map[string]struct{ source, want string }{
		"counted repetitions":                              {stalling(), `the pattern ".{0,1000}.{0,1000}xb" compiles to `},
		"counted repetitions in the function's other form": {`matches(event.id, ".{0,1000}x")`, "the limit is 200"},
		"a long alternation": {
			fmt.Sprintf("event.id.matches(%q)", longAlternation()), `the pattern "aaaaaaaaaaaaaaaaaaaa|bbbbbbbbbbbbbbbbbbb…" compiles to`,
		},
		"a pattern that the event has":   {`event.id.matches(event.list)`, "must be a text in quotes"},
		"a pattern that is put together": {`event.id.matches("a" + "b")`, "must be a text in quotes"},
		"a pattern of a variable":        {`cel.bind(p, ".*", event.id.matches(p))`, "must be a text in quotes"},
		"one that is no pattern":         {`matches(event.id, "[")`, `the pattern "[" is not a regular expression of RE2`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := expression.CompileFilter(row.source)
			g.Expect(err).To(MatchError(ContainSubstring(row.want)))
			var told *expression.Error
			g.Expect(errors.As(err, &told)).To(BeTrue())
			_, err = expression.CompileTemplate(fmt.Sprintf(`{"a": %s}`, row.source))
			g.Expect(err).To(MatchError(ContainSubstring(row.want)), "a template is no way around it")
		})
	}
}

// Patterns as people write them are well below the limit.
func TestAcceptedPatterns(t *testing.T) {
	for _, pattern := range []string{
		`^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\\.[a-zA-Z]{2,}$`, `(?i)@(gmail|googlemail|outlook|hotmail|yahoo|gmx|web)\\.`, `^\\d{4}-\\d{2}-\\d{2}$`,
		`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`, `^\\+?[0-9 ()/-]{6,20}$`,
	} {
		_, err := expression.CompileFilter(fmt.Sprintf(`event.contact.email.matches("%s")`, pattern))
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), pattern)
	}
}

// nested is an expression in which each list has the one before it twice.
func nested(times int, last string) string {
	for n := times; n > 0; n-- {
		last = fmt.Sprintf("cel.bind(n%d, [n%d, n%d], %s)", n, n-1, n-1, last)
	}
	return "cel.bind(n0, ['x'], " + last + ")"
}

// A comparison of lists in lists would go on for minutes, for a cost of a few hundred.
func TestRefusedComparisons(t *testing.T) {
	for _, comparison := range []string{
		"n20 == n20", "n20 != n20", "n20 in [n20]", "sets.contains([n20], [n20])", "dyn(n20) == dyn(n20)", "{'a': n20} == {'a': n20}",
		"[n20].exists(n, n == n20)", "optional.of(n20) == optional.of(n20)", "[1, 2].map(n, n20) == [n20, n20]", "(true ? n20 : dyn(n19)) == n20",
	} {
		_, err := expression.CompileFilter(nested(20, comparison))
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("lists or maps that have others in them are compared")), comparison)
	}
}

func TestAcceptedComparisons(t *testing.T) {
	for _, comparison := range []string{
		"event.contact.customFields == {}", "event.contact.customFields.a == event.contact.customFields.b", "event.changed == []",
		"event.contact.customFields == event.contact.customFields", "[[1, 2], [3]] == [[1, 2], [3]]", "event.contact == event.contact",
		"event.contact.customFields.?a == optional.of(true)", "event.contact.email.split('@') == ['a', 'b']",
		"event.contact.customFields.all(k, k != '')", "event.contact.customFields.a in ['x', 'y']", "event.changed.map(f, [f]) == [['a']]",
		"event.list in event.contact.email.split('')",
	} {
		_, err := expression.CompileFilter(comparison)
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), comparison)
	}
}
