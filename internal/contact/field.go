package contact

import (
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

// The prefixes of the parameters that set fields.
const (
	StandardPrefix = "standard_"
	CustomPrefix   = "custom_"
)

// A valueCheck returns a value in the form in which it is stored, or the rule
// that it breaks.
type valueCheck func(text string) (value, rule string)

// standardFields are the fields that every contact can have. The set is
// Maileon's.
var standardFields = map[string]valueCheck{
	"ADDRESS":      checkPlainText,
	"BIRTHDAY":     checkDay,
	"CITY":         checkPlainText,
	"COUNTRY":      checkPlainText,
	"FIRSTNAME":    checkPlainText,
	"FULLNAME":     checkPlainText,
	"GENDER":       checkGender,
	"HNR":          checkPlainText,
	"LASTNAME":     checkPlainText,
	"LOCALE":       checkLocale,
	"NAMEDAY":      checkDay,
	"ORGANIZATION": checkPlainText,
	"REGION":       checkPlainText,
	"SALUTATION":   checkPlainText,
	"STATE":        checkPlainText,
	"TITLE":        checkPlainText,
	"ZIP":          checkPlainText,
}

// StandardFields returns the names of the fields that every contact can have,
// sorted.
func StandardFields() []string { return slices.Sorted(maps.Keys(standardFields)) }

// readOnlyFields are the standard fields that a call can't set.
var readOnlyFields = []string{"CHECKSUM", "CUSTOM_SOURCE", "PERMISSION_STATUS", "SENDOUT_STATUS"}

// CheckStandardField returns the value to store for a standard field; empty
// means that the field is cleared. The error is an *InputError.
func CheckStandardField(name, text string) (string, error) {
	check, known := standardFields[name]
	switch {
	case slices.Contains(readOnlyFields, name):
		return "", standardFieldError(IllegalStandardField, name, "is read-only")
	case !known:
		return "", standardFieldError(UnknownStandardField, name, "is not a standard field")
	case text == "":
		return "", nil
	}
	value, rule := check(text)
	if rule != "" {
		return "", standardFieldError(IllegalStandardField, name, rule)
	}
	return value, nil
}

func standardFieldError(problem Problem, name, rule string) error {
	return &InputError{Problem: problem, Parameter: StandardPrefix + name, Name: name, Rule: rule}
}

// CheckCustomField returns the value to store for a field that one of these
// declarations names: a string, a float64 or a bool, see Contact.CustomFields;
// nil means that the field is cleared. The error is an *InputError.
func CheckCustomField(declared []v1alpha1.CustomField, name, text string) (any, error) {
	i := slices.IndexFunc(declared, func(field v1alpha1.CustomField) bool { return field.Name == name })
	if i < 0 {
		return nil, customFieldError(UnknownCustomField, name, "is not declared by the list")
	}
	kind := declared[i].Type
	if kind != v1alpha1.CustomFieldString {
		text = strings.TrimSpace(text)
	}
	if text == "" {
		return nil, nil
	}
	value, rule := checkCustomValue(kind, text)
	if rule != "" {
		return nil, customFieldError(IllegalCustomField, name, rule)
	}
	return value, nil
}

func customFieldError(problem Problem, name, rule string) error {
	return &InputError{Problem: problem, Parameter: CustomPrefix + name, Name: name, Rule: rule}
}

func checkCustomValue(kind v1alpha1.CustomFieldType, text string) (value any, rule string) {
	switch kind {
	case v1alpha1.CustomFieldInteger:
		number, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return nil, "must be a whole number from -2147483648 to 2147483647"
		}
		return float64(number), ""
	case v1alpha1.CustomFieldFloat:
		return checkFloat(text)
	case v1alpha1.CustomFieldBoolean:
		switch text {
		case "true":
			return true, ""
		case "false":
			return false, ""
		}
		return nil, "must be true or false"
	case v1alpha1.CustomFieldDate:
		day, ok := parseDate(text)
		if !ok {
			return nil, "must be a date as yyyy-MM-dd or dd.MM.yyyy"
		}
		return day, ""
	default:
		return text, checkText(text, maxText)
	}
}

// decimal is a number as JSON writes one, and a plus sign or a leading zero,
// which people write. strconv takes hexadecimal, Inf and NaN too.
var decimal = regexp.MustCompile(`^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

func checkFloat(text string) (value any, rule string) {
	number, err := strconv.ParseFloat(text, 64)
	if err != nil || !decimal.MatchString(text) {
		return nil, "must be a decimal number of 64 bits, such as -12.5"
	}
	if number == 0 {
		return math.Abs(number), "" // JSON brings -0 back, which nobody means
	}
	return number, ""
}

func checkPlainText(text string) (value, rule string) {
	return text, checkText(text, maxText)
}

func checkGender(text string) (value, rule string) {
	switch value = strings.TrimSpace(text); value {
	case "", "m", "f", "d":
		return value, ""
	}
	return "", "must be m, f or d"
}

var locale = regexp.MustCompile(`^([a-z]{2}(_[A-Z]{2})?)?$`)

func checkLocale(text string) (value, rule string) {
	value = strings.TrimSpace(text)
	if !locale.MatchString(value) {
		return "", "must be a language such as de or a language and country such as de_DE"
	}
	return value, ""
}

const dayAndTime = time.DateOnly + " " + time.TimeOnly

func checkDay(text string) (value, rule string) {
	value = strings.TrimSpace(text)
	if value == "" || isExactly(time.DateOnly, value) || isExactly(dayAndTime, value) {
		return value, ""
	}
	return "", "must be a date as yyyy-MM-dd or yyyy-MM-dd HH:mm:ss"
}

// isExactly tells whether a text is a time in this layout. time.Parse alone
// would also take an hour of one digit and fractions of a second.
func isExactly(layout, text string) bool {
	parsed, err := time.Parse(layout, text)
	return err == nil && parsed.Format(layout) == text
}

// timesOfDay are the forms of a time behind a date. time.Parse takes fractions
// of a second with each.
var timesOfDay = []string{"15:04", "15:04Z07:00", "15:04:05", "15:04:05Z07:00"}

// parseDate returns the date that a text holds as yyyy-MM-dd. It takes dd.MM.yyyy
// too, and a time behind either, parted by a space or a T, which it drops.
func parseDate(text string) (day string, ok bool) {
	day = text
	if end := strings.IndexAny(text, " T"); end >= 0 {
		if !isTimeOfDay(text[end+1:]) {
			return "", false
		}
		day = text[:end]
	}
	const german = "02.01.2006"
	if parsed, err := time.Parse(german, day); err == nil {
		day = parsed.Format(time.DateOnly)
	}
	return day, isExactly(time.DateOnly, day)
}

func isTimeOfDay(text string) bool {
	return slices.ContainsFunc(timesOfDay, func(layout string) bool {
		_, err := time.Parse(layout, text)
		return err == nil
	})
}
