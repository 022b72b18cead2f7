package ingress_test

import (
	"strings"
	"testing"
)

// textFields are the standard fields that hold any text.
var textFields = []string{
	"ADDRESS", "CITY", "COUNTRY", "FIRSTNAME", "FULLNAME", "HNR", "LASTNAME", "ORGANIZATION", "REGION", "SALUTATION", "STATE", "TITLE", "ZIP",
}

// TestSpecStandardFields has the 17 standard fields and the read-only ones.
func TestSpecStandardFields(t *testing.T) {
	rows := map[string]specRow{
		"a name that is no standard field": {
			given: []string{"standard_SHOE", "42"}, parameter: "standard_SHOE", refused: "unknown standard field: SHOE is not a standard field",
		},
		"a name in another case": {
			given: []string{"standard_firstname", "Max"}, parameter: "standard_firstname",
			refused: "unknown standard field: firstname is not a standard field",
		},
		"an empty value clears a field": {
			before: [][]string{{"standard_CITY", "Kassel", "standard_ZIP", "34117"}}, given: []string{"sync_mode", "1", "standard_CITY", ""},
			want: hasStandard("ZIP", "34117"), raises: []string{"ChangeProfile API [CITY]"}, revision: 2,
		},
		"an empty value of a field that was not set changes nothing": {
			before: [][]string{{}}, given: []string{"sync_mode", "1", "standard_CITY", "", "standard_GENDER", "", "standard_BIRTHDAY", "", "standard_LOCALE", ""},
		},
		"the same value again changes nothing": {
			before: [][]string{{"standard_CITY", "Kassel"}}, given: []string{"sync_mode", "1", "standard_CITY", "Kassel"}, want: hasStandard("CITY", "Kassel"),
		},
	}
	longest := strings.Repeat("ü", 255)
	for _, name := range textFields {
		rows[name+": text of 255 characters"] = standardRow(name, longest)
		rows[name+": text of 256 characters"] = standardRefusal(name, longest+"x", "must have at most 255 characters")
		rows[name+": text as it was written"] = standardRow(name, ` Max & "Moritz" = 100 %; +1 <b> `)
	}
	for _, name := range []string{"BIRTHDAY", "NAMEDAY"} {
		const rule = "must be a date as yyyy-MM-dd or yyyy-MM-dd HH:mm:ss"
		for _, good := range []string{"1980-02-29", "1980-02-29 23:59:59", "0001-01-01"} {
			rows[name+": "+good] = standardRow(name, good)
		}
		for _, bad := range []string{"1981-02-29", "29.02.1980", "1980-02-29 24:00:00", "1980-02-29T10:00:00", "1980-2-29", "29/02/1980", "yesterday"} {
			rows[name+": "+bad] = standardRefusal(name, bad, rule)
		}
	}
	for _, good := range []string{"m", "f", "d"} {
		rows["GENDER: "+good] = standardRow("GENDER", good)
	}
	for _, bad := range []string{"M", "w", "x", "male", "md"} {
		rows["GENDER: "+bad] = standardRefusal("GENDER", bad, "must be m, f or d")
	}
	for _, good := range []string{"de", "de_DE", "en_GB"} {
		rows["LOCALE: "+good] = standardRow("LOCALE", good)
	}
	for _, bad := range []string{"DE", "de-DE", "de_de", "deu", "de_", "german"} {
		rows["LOCALE: "+bad] = standardRefusal("LOCALE", bad, "must be a language such as de or a language and country such as de_DE")
	}
	for _, name := range []string{"PERMISSION_STATUS", "SENDOUT_STATUS", "CUSTOM_SOURCE", "CHECKSUM"} {
		rows[name+": read-only"] = standardRefusal(name, "4", "is read-only")
		rows[name+": read-only, cleared too"] = standardRefusal(name, "", "is read-only")
	}
	start(t).holds(t, rows)
}

func standardRow(name, value string) specRow {
	return specRow{given: []string{"standard_" + name, value}, want: hasStandard(name, value)}
}

func standardRefusal(name, value, rule string) specRow {
	return specRow{
		given: []string{"standard_" + name, value}, parameter: "standard_" + name,
		refused: "illegal standard field value: " + name + " " + rule,
	}
}

// TestSpecCustomFields has the types of custom fields. Which names a list can
// declare is checked when it is applied, see TestContactListValidation of api/v1alpha1.
func TestSpecCustomFields(t *testing.T) {
	const (
		integer = "must be a whole number from -2147483648 to 2147483647"
		float   = "must be a decimal number of 64 bits, such as -12.5"
		truth   = "must be true or false"
		date    = "must be a date as yyyy-MM-dd or dd.MM.yyyy"
	)
	longest := strings.Repeat("ü", 255)
	rows := map[string]specRow{
		"a name that the list does not declare": {
			given: []string{"custom_shoe", "42"}, parameter: "custom_shoe", refused: "unknown custom field: shoe is not declared by the list",
		},
		"String: 255 characters": customRow("nickname", longest, longest),
		"String: 256 characters": customRefusal("nickname", longest+"x", "must have at most 255 characters"),
		"String: true is text":   customRow("nickname", "true", "true"),
		"an empty value clears fields of all types": {
			before: [][]string{{
				"custom_nickname", "x", "custom_children", "0", "custom_height", "1", "custom_vegan", "false", "custom_special date", "2020-12-12",
			}},
			given: []string{
				"sync_mode", "1", "custom_nickname", "", "custom_children", "", "custom_height", "", "custom_vegan", "", "custom_special date", "",
			},
			raises: []string{"ChangeProfile API [children height nickname special date vegan]"}, revision: 2,
		},
	}
	for text, value := range map[string]float64{"0": 0, "-3": -3, "+3": 3, "2147483647": 2147483647, "-2147483648": -2147483648} {
		rows["Integer: "+text] = customRow("children", text, value)
	}
	for _, bad := range []string{"2147483648", "-2147483649", "1.5", "1e3", "0x10", "1_000", "three"} {
		rows["Integer: "+bad] = customRefusal("children", bad, integer)
	}
	for text, value := range map[string]float64{"1.85": 1.85, "-12.5e-3": -0.0125, "3": 3, "1.7976931348623157e308": 1.7976931348623157e308} {
		rows["Float: "+text] = customRow("height", text, value)
	}
	for _, bad := range []string{"1e309", "NaN", "Inf", "1,85", "0x1p4", ".5", "tall"} {
		rows["Float: "+bad] = customRefusal("height", bad, float)
	}
	for text, value := range map[string]bool{"true": true, "false": false} {
		rows["Boolean: "+text] = customRow("vegan", text, value)
	}
	for _, bad := range []string{"TRUE", "1", "0", "yes", "on"} {
		rows["Boolean: "+bad] = customRefusal("vegan", bad, truth)
	}
	for _, text := range []string{"2020-12-12", "12.12.2020", "2020-12-12 10:30:00", "2020-12-12T10:30:00Z", "12.12.2020 10:30"} {
		rows["Date: "+text] = customRow("special date", text, "2020-12-12")
	}
	for _, bad := range []string{"12/12/2020", "2020-02-30", "30.02.2020", "2020-12-12 noon", "1.2.2020", "20201212"} {
		rows["Date: "+bad] = customRefusal("special date", bad, date)
	}
	start(t).holds(t, rows)
}

func customRow(name, text string, value any) specRow {
	return specRow{given: []string{"custom_" + name, text}, want: hasCustom(name, value)}
}

func customRefusal(name, value, rule string) specRow {
	return specRow{
		given: []string{"custom_" + name, value}, parameter: "custom_" + name,
		refused: "illegal custom field value: " + name + " " + rule,
	}
}
