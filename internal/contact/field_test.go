package contact_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

func TestCheckStandardFieldTakes(t *testing.T) {
	for name, row := range map[string]struct{ field, text, value string }{
		"a text":                          {"FIRSTNAME", "Max", "Max"},
		"a text with spaces around it":    {"LASTNAME", " von M ", " von M "},
		"a text with line breaks":         {"ADDRESS", "Some Street 1\r\nBackyard", "Some Street 1\r\nBackyard"},
		"255 characters of several bytes": {"CITY", strings.Repeat("ü", 255), strings.Repeat("ü", 255)},
		"an empty text, which clears":     {"ZIP", "", ""},
		"a day":                           {"BIRTHDAY", "1980-02-29", "1980-02-29"},
		"a day and time":                  {"NAMEDAY", "1980-02-28 23:59:59", "1980-02-28 23:59:59"},
		"an empty day, which clears":      {"BIRTHDAY", " ", ""},
		"gender m":                        {"GENDER", "m", "m"},
		"gender f":                        {"GENDER", "f", "f"},
		"gender d":                        {"GENDER", " d ", "d"},
		"an empty gender, which clears":   {"GENDER", "", ""},
		"a language":                      {"LOCALE", "de", "de"},
		"a language and country":          {"LOCALE", "de_AT", "de_AT"},
		"an empty locale, which clears":   {"LOCALE", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			value, err := contact.CheckStandardField(row.field, row.text)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(value).To(Equal(row.value))
		})
	}
}

func TestCheckStandardFieldKnowsAll17(t *testing.T) {
	for field, text := range map[string]string{
		"ADDRESS": "x", "BIRTHDAY": "2000-01-01", "CITY": "x", "COUNTRY": "x", "FIRSTNAME": "x", "FULLNAME": "x",
		"GENDER": "m", "HNR": "x", "LASTNAME": "x", "LOCALE": "de", "NAMEDAY": "2000-01-01", "ORGANIZATION": "x",
		"REGION": "x", "SALUTATION": "x", "STATE": "x", "TITLE": "x", "ZIP": "x",
	} {
		t.Run(field, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(contact.CheckStandardField(field, text)).To(Equal(text))
		})
	}
}

func TestCheckStandardFieldRefuses(t *testing.T) {
	const noDay = "must be a date as yyyy-MM-dd or yyyy-MM-dd HH:mm:ss"
	for name, row := range map[string]struct{ field, text, message string }{
		"a text of 256 characters": {"CITY", strings.Repeat("ü", 256), "illegal standard field value: CITY must have at most 255 characters"},
		"a NUL":                    {"CITY", "a\x00b", "illegal standard field value: CITY must not contain control characters"},
		"bytes that are no UTF-8":  {"CITY", "a\xff", "illegal standard field value: CITY must be valid UTF-8"},
		"a gender by another name": {"GENDER", "male", "illegal standard field value: GENDER must be m, f or d"},
		"a gender in capitals":     {"GENDER", "M", "illegal standard field value: GENDER must be m, f or d"},
		"a locale with a hyphen":   {"LOCALE", "de-DE", "illegal standard field value: LOCALE must be a language such as de or a language and country such as de_DE"},
		"a locale of three":        {"LOCALE", "deu", "illegal standard field value: LOCALE must be a language such as de or a language and country such as de_DE"},
		"a German date":            {"BIRTHDAY", "29.02.1980", "illegal standard field value: BIRTHDAY " + noDay},
		"no day of the calendar":   {"BIRTHDAY", "1981-02-29", "illegal standard field value: BIRTHDAY " + noDay},
		"an hour of one digit":     {"BIRTHDAY", "1980-02-29 1:00:00", "illegal standard field value: BIRTHDAY " + noDay},
		"a fraction of a second":   {"NAMEDAY", "1980-02-29 01:00:00.5", "illegal standard field value: NAMEDAY " + noDay},
		"a time with a T":          {"NAMEDAY", "1980-02-29T01:00:00", "illegal standard field value: NAMEDAY " + noDay},
		"a field that none is":     {"SHOESIZE", "42", "unknown standard field: SHOESIZE is not a standard field"},
		"a field in lower case":    {"firstname", "Max", "unknown standard field: firstname is not a standard field"},
		"a very long name":         {strings.Repeat("n", 100), "x", "unknown standard field: " + strings.Repeat("n", 64) + "… is not a standard field"},
		"PERMISSION_STATUS":        {"PERMISSION_STATUS", "4", "illegal standard field value: PERMISSION_STATUS is read-only"},
		"SENDOUT_STATUS":           {"SENDOUT_STATUS", "", "illegal standard field value: SENDOUT_STATUS is read-only"},
		"CUSTOM_SOURCE":            {"CUSTOM_SOURCE", "x", "illegal standard field value: CUSTOM_SOURCE is read-only"},
		"CHECKSUM":                 {"CHECKSUM", "x", "illegal standard field value: CHECKSUM is read-only"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := contact.CheckStandardField(row.field, row.text)
			g.Expect(err).To(MatchError(row.message))
			var input *contact.InputError
			g.Expect(errors.As(err, &input)).To(BeTrue())
			g.Expect(input.Parameter).To(Equal("standard_" + row.field))
		})
	}
}

// declared has a custom field of each type.
var declared = []v1alpha1.CustomField{
	{Name: "nickname", Type: v1alpha1.CustomFieldString},
	{Name: "children", Type: v1alpha1.CustomFieldInteger},
	{Name: "height", Type: v1alpha1.CustomFieldFloat},
	{Name: "vegan", Type: v1alpha1.CustomFieldBoolean},
	{Name: "special date", Type: v1alpha1.CustomFieldDate},
}

func TestCheckCustomFieldTakes(t *testing.T) {
	for name, row := range map[string]struct {
		field, text string
		value       any
	}{
		"a text":                               {"nickname", " Maxi ", " Maxi "},
		"an empty text, which clears":          {"nickname", "", nil},
		"a whole number":                       {"children", " 3 ", 3.0},
		"the smallest whole number":            {"children", "-2147483648", -2147483648.0},
		"the largest whole number":             {"children", "2147483647", 2147483647.0},
		"an empty number, which clears":        {"children", "", nil},
		"a decimal number":                     {"height", "1.85", 1.85},
		"a number with an exponent":            {"height", "-2E+3", -2000.0},
		"minus zero, stored as zero":           {"height", "-0.0", 0.0},
		"true":                                 {"vegan", "true", true},
		"false":                                {"vegan", " false", false},
		"an empty truth value, which clears":   {"vegan", " ", nil},
		"a date":                               {"special date", "2020-12-12", "2020-12-12"},
		"the vendor's own date":                {"special date", "12.12.2020", "2020-12-12"},
		"a date and time, which is dropped":    {"special date", "2020-12-12 23:59:59", "2020-12-12"},
		"a German date and time":               {"special date", "12.12.2020 23:59", "2020-12-12"},
		"a time of RFC 3339, as it is written": {"special date", "2020-12-12T23:59:59.123+02:00", "2020-12-12"},
		"an empty date, which clears":          {"special date", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			value, err := contact.CheckCustomField(declared, row.field, row.text)
			g.Expect(err).NotTo(HaveOccurred())
			if row.value == nil {
				g.Expect(value).To(BeNil())
				return
			}
			g.Expect(value).To(Equal(row.value))
		})
	}
}

func TestCheckCustomFieldRefuses(t *testing.T) {
	const whole = "must be a whole number from -2147483648 to 2147483647"
	const number = "must be a decimal number of 64 bits, such as -12.5"
	const date = "must be a date as yyyy-MM-dd or dd.MM.yyyy"
	for name, row := range map[string]struct{ field, text, rule string }{
		"a text of 256 characters":       {"nickname", strings.Repeat("x", 256), "must have at most 255 characters"},
		"an escape character":            {"nickname", "\x1b[2J", "must not contain control characters"},
		"a whole number above 32 bits":   {"children", "2147483648", whole},
		"a decimal where whole is meant": {"children", "1.5", whole},
		"a word":                         {"children", "three", whole},
		"not a number":                   {"height", "NaN", number},
		"infinity":                       {"height", "-Inf", number},
		"a number above 64 bits":         {"height", "1e309", number},
		"a hexadecimal number":           {"height", "0x1p-2", number},
		"a decimal comma":                {"height", "1,85", number},
		"yes":                            {"vegan", "yes", "must be true or false"},
		"1 as a truth value":             {"vegan", "1", "must be true or false"},
		"TRUE in capitals":               {"vegan", "TRUE", "must be true or false"},
		"no day of the calendar":         {"special date", "31.11.2020", date},
		"an American date":               {"special date", "12/31/2020", date},
		"a month of one digit":           {"special date", "2020-1-12", date},
		"a time that none is":            {"special date", "2020-12-12 25:00", date},
		"a T without a time":             {"special date", "2020-12-12T", date},
		"text behind a date":             {"special date", "2020-12-12 noon", date},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := contact.CheckCustomField(declared, row.field, row.text)
			g.Expect(err).To(MatchError("illegal custom field value: " + row.field + " " + row.rule))
		})
	}
}

func TestCheckCustomFieldKnowsOnlyDeclaredNames(t *testing.T) {
	for name, field := range map[string]string{
		"another name":        "shoe size",
		"another case":        "Nickname",
		"a standard field":    "FIRSTNAME",
		"no name at all":      "",
		"a space at the end":  "nickname ",
		"percent-encoded yet": "special%20date",
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := contact.CheckCustomField(declared, field, "")
			g.Expect(err).To(MatchError("unknown custom field: " + field + " is not declared by the list"))
		})
	}
}

func FuzzCheckDates(f *testing.F) {
	for _, seed := range []string{
		"2020-12-12", "12.12.2020", "2020-12-12 10:11:12", "2020-12-12T10:11:12Z", "0000-00-00", "2020-02-30", " 1.1.2020", "2020-12-12 ",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g := NewWithT(t)
		if value, err := contact.CheckCustomField(declared, "special date", text); err == nil && value != nil {
			_, err := time.Parse(time.DateOnly, value.(string))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(contact.CheckCustomField(declared, "special date", value.(string))).To(Equal(value))
		}
		if value, err := contact.CheckStandardField("BIRTHDAY", text); err == nil && value != "" {
			_, err := time.Parse(time.DateOnly, value[:len(time.DateOnly)])
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(contact.CheckStandardField("BIRTHDAY", value)).To(Equal(value))
		}
	})
}
