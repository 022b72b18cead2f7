package contact

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// InputError is a parameter whose name or value breaks a rule. Its text is
// meant for the caller and never holds the value.
type InputError struct {
	// Problem is what kind of rule is broken.
	Problem Problem
	// Parameter is the parameter as callers write it, such as standard_GENDER.
	Parameter string
	// Name is what the text calls it, such as GENDER.
	Name string
	// Rule says what would be right, such as "must be m, f or d".
	Rule string
}

// Problem is the kind of rule that an InputError is about, in Maileon's words
// where Maileon has any.
type Problem string

// The problems.
const (
	IllegalParameter     Problem = "illegal parameter value"
	IllegalStandardField Problem = "illegal standard field value"
	IllegalCustomField   Problem = "illegal custom field value"
	UnknownStandardField Problem = "unknown standard field"
	UnknownCustomField   Problem = "unknown custom field"
)

// Error returns the text as Maileon words it, for example "illegal standard
// field value: GENDER must be m, f or d".
func (e *InputError) Error() string {
	return fmt.Sprintf("%s: %s %s", e.Problem, Shorten(e.Name), e.Rule)
}

// shownName is how many characters of a name that a caller made up are shown:
// as many as the longest custom field can have.
const shownName = 64

// Shorten returns a name that a caller made up in a length that fits a message.
func Shorten(name string) string {
	if utf8.RuneCountInString(name) <= shownName {
		return name
	}
	return string([]rune(name)[:shownName]) + "…"
}

// maxText is how many characters a text may have. The number is Maileon's.
const maxText = 255

// checkText returns the rule that a text of at most this many characters
// breaks, or nothing. Control characters other than tab and line breaks are
// refused: no form field sends them, and PostgreSQL can't store NUL.
func checkText(text string, longest int) (rule string) {
	switch {
	case !utf8.ValidString(text):
		return "must be valid UTF-8"
	case utf8.RuneCountInString(text) > longest:
		return fmt.Sprintf("must have at most %d characters", longest)
	}
	for _, r := range text {
		if unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' {
			return "must not contain control characters"
		}
	}
	return ""
}
