package recipient

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// Field is one field of the profile form.
type Field struct {
	// Name is the parameter that the form sends, such as standard_CITY.
	Name string
	// Label is what people read.
	Label string
	// Value is what the form has in it.
	Value string
	// Error is what is wrong with the value, empty when nothing is.
	Error string
	// Options are what can be chosen; without any the value is written.
	Options []Option
	// Type and InputMode are the attributes of the input element.
	Type, InputMode string
	// Autocomplete is the attribute by which browsers fill in what they know of
	// the person (WCAG 2.2, 1.3.5).
	Autocomplete string

	rule string
	// tooLong says the same where the values of all fields together are too long.
	tooLong string
}

// Option is one of the things that can be chosen.
type Option struct{ Value, Label string }

// maxShown is how many characters of a refused value the form has in it: more
// than any good value has.
const maxShown = 300

// NewField returns an empty field of a contact: a standard field, or one of
// these declarations. It is not ok when nothing is called so.
func NewField(name string, declared []v1alpha1.CustomField, language v1alpha1.Language) (field Field, ok bool) {
	words := fieldWords[language]
	if label, standard := words.labels[name]; standard {
		field = Field{Name: contact.StandardPrefix + name, Label: label, Type: "text", Autocomplete: autocompletes[name], rule: words.text, tooLong: words.tooLong}
		switch name {
		case "GENDER":
			field.Options, field.rule = words.genders, words.choice
		case "BIRTHDAY", "NAMEDAY":
			field.Type, field.rule = "date", words.date
		case "LOCALE":
			field.rule = words.locale
		}
		return field, true
	}
	i := slices.IndexFunc(declared, func(custom v1alpha1.CustomField) bool { return custom.Name == name })
	if i < 0 {
		return Field{}, false
	}
	field = Field{Name: contact.CustomPrefix + name, Label: name, Type: "text", rule: words.text, tooLong: words.tooLong}
	switch declared[i].Type {
	case v1alpha1.CustomFieldBoolean:
		field.Options, field.rule = words.booleans, words.choice
	case v1alpha1.CustomFieldDate:
		field.Type, field.rule = "date", words.date
	case v1alpha1.CustomFieldInteger:
		field.InputMode, field.rule = "numeric", words.integer
	case v1alpha1.CustomFieldFloat:
		field.InputMode, field.rule = "decimal", words.float
	case v1alpha1.CustomFieldString:
	}
	return field, true
}

// Show puts what is stored into the form, as far as browsers show it there: of a
// time the date, and nothing of what a field of this type can't hold. A list may
// have changed the type since.
func (f *Field) Show(stored string) {
	switch {
	case f.Type == "date":
		stored = stored[:min(len(stored), len(time.DateOnly))]
		if day, err := time.Parse(time.DateOnly, stored); err != nil || day.Year() == 0 {
			stored = ""
		}
	case len(f.Options) > 0 && !slices.ContainsFunc(f.Options, func(o Option) bool { return o.Value == stored }):
		stored = ""
	}
	f.Value = stored
}

// Refuse puts the value back into the form, with what would be right.
func (f *Field) Refuse(value string) {
	if utf8.RuneCountInString(value) > maxShown {
		value = string([]rune(value)[:maxShown])
	}
	f.Value, f.Error = value, f.rule
}

// RefuseTotal puts the value back into the form that makes the contact larger than
// contact.MaxValueBytes.
func (f *Field) RefuseTotal() { f.Error = f.tooLong }

// Multiline tells whether the value has lines, which an input would join.
func (f Field) Multiline() bool { return strings.Contains(f.Value, "\n") }

// autocompletes are the attribute autocomplete of standard fields, by HTML's
// list of autofill field names.
var autocompletes = map[string]string{
	"ADDRESS":      "street-address",
	"BIRTHDAY":     "bday",
	"CITY":         "address-level2",
	"COUNTRY":      "country-name",
	"FIRSTNAME":    "given-name",
	"FULLNAME":     "name",
	"LASTNAME":     "family-name",
	"ORGANIZATION": "organization",
	"STATE":        "address-level1",
	"TITLE":        "honorific-prefix",
	"ZIP":          "postal-code",
}
