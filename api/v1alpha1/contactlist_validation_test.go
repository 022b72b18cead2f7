package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestOptInValidation(t *testing.T) {
	const (
		interval = "optIn.resendInterval must be between 0s and 720h"
		ttl      = "optIn.linkTTL must be between 1m and 8760h"
		url      = "optIn.confirmedURL must be an http or https URL with a host"
	)
	optIn := func(field, value string) string { return fmt.Sprintf("optIn: {%s: %s}", field, value) }
	validate(t, "ContactList", map[string]row{
		"an empty opt-in":     {spec: `optIn: {}`},
		"English":             {spec: `language: en`},
		"an unknown language": {`language: fr`, "spec.language"},
		"a language's region": {`language: de_DE`, "spec.language"},
		"an empty language":   {`language: ""`, "spec.language"},

		"no interval":                   {spec: optIn("resendInterval", "0s")},
		"an interval of 30 days":        {spec: optIn("resendInterval", "720h")},
		"an interval of two units":      {spec: optIn("resendInterval", "1h30m")},
		"an interval of a fraction":     {spec: optIn("resendInterval", "1.5h")},
		"an interval of over 30 days":   {optIn("resendInterval", "720h1ms"), interval},
		"an interval below zero":        {optIn("resendInterval", "-5m"), "spec.optIn.resendInterval"},
		"an interval in days":           {optIn("resendInterval", "1d"), "spec.optIn.resendInterval"},
		"an interval that is a number":  {optIn("resendInterval", "5"), "spec.optIn.resendInterval"},
		"an interval without a unit":    {optIn("resendInterval", `"5"`), "spec.optIn.resendInterval"},
		"an interval that overflows":    {optIn("resendInterval", "99999999999999h"), "spec.optIn.resendInterval"},
		"an interval of much text":      {optIn("resendInterval", "1h1h1h1h1h1h1h1h1h"), "spec.optIn.resendInterval"},
		"an interval that is empty":     {optIn("resendInterval", `""`), "spec.optIn.resendInterval"},
		"a link that works for 1m":      {spec: optIn("linkTTL", "1m")},
		"a link that works for a year":  {spec: optIn("linkTTL", "8760h")},
		"a link that ends too early":    {optIn("linkTTL", "59s"), ttl},
		"a link that never works":       {optIn("linkTTL", "0s"), ttl},
		"a link that works for longer":  {optIn("linkTTL", "8761h"), ttl},
		"a link's time below zero":      {optIn("linkTTL", "-1h"), "spec.optIn.linkTTL"},
		"a link's time in days":         {optIn("linkTTL", "7d"), "spec.optIn.linkTTL"},
		"a link's time without a unit":  {optIn("linkTTL", `"168"`), "spec.optIn.linkTTL"},
		"a link's time that overflows":  {optIn("linkTTL", "99999999999999h"), "spec.optIn.linkTTL"},
		"a link's time of much text":    {optIn("linkTTL", "1h1h1h1h1h1h1h1h1h"), "spec.optIn.linkTTL"},
		"confirmed, to http":            {spec: optIn("confirmedURL", `"http://example.com"`)},
		"confirmed, to a port and path": {spec: optIn("confirmedURL", `"https://example.com:8443/a?b=c#d"`)},
		"confirmed, to 2048 characters": {spec: optIn("confirmedURL", "https://example.com/"+strings.Repeat("x", 2048-20))},
		"confirmed, to 2049 characters": {optIn("confirmedURL", "https://example.com/"+strings.Repeat("x", 2049-20)), "spec.optIn.confirmedURL"},
		"confirmed, to a script":        {optIn("confirmedURL", `"javascript:alert(1)"`), url},
		"confirmed, to no scheme":       {optIn("confirmedURL", `"example.com/thanks"`), url},
		"confirmed, to a path":          {optIn("confirmedURL", `"/thanks"`), url},
		"confirmed, to any scheme":      {optIn("confirmedURL", `"//example.com/thanks"`), url},
		"confirmed, to a port alone":    {optIn("confirmedURL", `"https://:443/"`), url},
		"confirmed, to no host":         {optIn("confirmedURL", `"https:///thanks"`), url},
		"confirmed, to an empty URL":    {optIn("confirmedURL", `""`), "spec.optIn.confirmedURL"},
		"confirmed, to a URL in spaces": {optIn("confirmedURL", `" https://example.com"`), url},
	})
}

func TestMailingValidation(t *testing.T) {
	mailing := func(field, value string) string {
		return fmt.Sprintf("optIn: {mailings: [{key: welcome, %s: %s}]}", field, value)
	}
	const subject, from = "spec.optIn.mailings[0].subject", "spec.optIn.mailings[0].from"
	validate(t, "ContactList", map[string]row{
		"a subject with an umlaut":          {spec: mailing("subject", `"Bitte bestätigen: Köln ✓"`)},
		"a subject of 255 characters":       {spec: mailing("subject", strings.Repeat("ü", 255))},
		"a subject of 256 characters":       {mailing("subject", strings.Repeat("x", 256)), subject},
		"an empty subject":                  {mailing("subject", `""`), subject},
		"a subject with a header behind it": {mailing("subject", `"Hello\r\nBcc: all@example.com"`), subject},
		"a subject with a line end":         {mailing("subject", `"Hello\n"`), subject},
		"a subject with a tab":              {mailing("subject", `"Hello\tAda"`), subject},

		"a sender's address":                 {spec: mailing("from", "news@example.com")},
		"a sender with a name":               {spec: mailing("from", `"Example News <news@example.com>"`)},
		"a sender with a name in quotes":     {spec: mailing("from", `'"News, Example" <news@example.com>'`)},
		"a sender in angle brackets":         {spec: mailing("from", `"<news@example.com>"`)},
		"a sender of 320 characters":         {spec: mailing("from", strings.Repeat("x", 308)+"@example.com")},
		"a sender of 321 characters":         {mailing("from", strings.Repeat("x", 309)+"@example.com"), from},
		"an empty sender":                    {mailing("from", `""`), from},
		"a sender without an @":              {mailing("from", "news.example.com"), from},
		"a sender without a domain":          {mailing("from", `"news@"`), from},
		"a sender without a local part":      {mailing("from", `"@example.com"`), from},
		"two senders":                        {mailing("from", `"news@example.com,@example.org"`), from},
		"a sender with a space":              {mailing("from", `"news @example.com"`), from},
		"a sender's bracket that stays open": {mailing("from", `"News <news@example.com"`), from},
		"a sender with text behind it":       {mailing("from", `"News <news@example.com> Bcc"`), from},
		"a sender with a header behind it":   {mailing("from", `"news@example.com\r\nBcc: all@example.com"`), from},
		"a sender's name with a line end":    {mailing("from", `"News\n <news@example.com>"`), from},

		"a template":                        {spec: mailing("templateRef", "{name: doi-mail}")},
		"a template's name of 253 letters":  {spec: mailing("templateRef", "{name: "+strings.Repeat("x", 253)+"}")},
		"a template's name of 254 letters":  {mailing("templateRef", "{name: "+strings.Repeat("x", 254)+"}"), "spec.optIn.mailings[0].templateRef.name"},
		"a template's name is empty":        {mailing("templateRef", `{name: ""}`), "spec.optIn.mailings[0].templateRef.name"},
		"a template without a name":         {mailing("templateRef", "{}"), "spec.optIn.mailings[0].templateRef.name"},
		"a template's data key":             {mailing("templateRef", "{name: a, key: b}"), `unknown field "spec.optIn.mailings[0].templateRef.key"`},
		"a template of another namespace":   {mailing("templateRef", "{name: a, namespace: b}"), `unknown field "spec.optIn.mailings[0].templateRef.namespace"`},
		"a mailing without a key":           {`optIn: {mailings: [{subject: Hello}]}`, "spec.optIn.mailings[0].key"},
		"a mailing twice":                   {`optIn: {mailings: [{key: a}, {key: a}]}`, "spec.optIn.mailings[1]"},
		"50 mailings":                       {spec: "optIn: {mailings: [" + mailings(50) + "]}"},
		"51 mailings":                       {"optIn: {mailings: [" + mailings(51) + "]}", "spec.optIn.mailings"},
		"two mailings of which one is not":  {spec: `optIn: {mailings: [{key: a, default: true}, {key: b, default: false}]}`},
		"two mailings, neither the default": {spec: `optIn: {mailings: [{key: a}, {key: b}]}`},
	})
}

// mailings returns this many different mailings, separated by commas.
func mailings(count int) string {
	var all []string
	for i := range count {
		all = append(all, fmt.Sprintf("{key: m%d, subject: %s}", i, strings.Repeat("x", 255)))
	}
	return strings.Join(all, ", ")
}

func TestPagesValidation(t *testing.T) {
	const rule = "pages.profileFields must name standard fields or customFields of the list"
	const points = "customFields: [{name: points, type: Integer}]\n"
	validate(t, "ContactList", map[string]row{
		"empty pages":                    {spec: `pages: {}`},
		"a look":                         {spec: `pages: {templateRef: {name: look}}`},
		"a look without a name":          {`pages: {templateRef: {}}`, "spec.pages.templateRef.name"},
		"a look's name of 254 letters":   {"pages: {templateRef: {name: " + strings.Repeat("x", 254) + "}}", "spec.pages.templateRef.name"},
		"every standard field":           {spec: "pages: {profileFields: [" + standardFields + "]}"},
		"a custom field":                 {spec: points + `pages: {profileFields: [points, LASTNAME]}`},
		"a custom field that is not":     {points + `pages: {profileFields: [miles]}`, rule},
		"a custom field of no list":      {`pages: {profileFields: [points]}`, rule},
		"a standard field in small":      {`pages: {profileFields: [firstname]}`, rule},
		"the address":                    {`pages: {profileFields: [EMAIL]}`, rule},
		"no fields":                      {`pages: {profileFields: []}`, "spec.pages.profileFields"},
		"a field twice":                  {`pages: {profileFields: [ZIP, ZIP]}`, "spec.pages.profileFields[1]"},
		"a field's name of 2 letters":    {`pages: {profileFields: [AB]}`, "spec.pages.profileFields[0]"},
		"a field's name of 65 letters":   {"pages: {profileFields: [" + strings.Repeat("x", 65) + "]}", "spec.pages.profileFields[0]"},
		"50 fields of 200":               {spec: customFields(200) + "pages: {profileFields: [" + fieldNames(150, 50) + "]}"},
		"51 fields of 200":               {customFields(200) + "pages: {profileFields: [" + fieldNames(149, 51) + "]}", "spec.pages.profileFields"},
		"50 fields, one of them is none": {customFields(200) + "pages: {profileFields: [" + fieldNames(151, 50) + "]}", rule},
		"an unknown field of pages":      {`pages: {style: plain}`, `unknown field "spec.pages.style"`},
	})
}

const standardFields = "ADDRESS, BIRTHDAY, CITY, COUNTRY, FIRSTNAME, FULLNAME, GENDER, HNR, LASTNAME, LOCALE, NAMEDAY, " +
	"ORGANIZATION, REGION, SALUTATION, STATE, TITLE, ZIP"

// customFields declares this many custom fields, in one line of a spec.
func customFields(count int) string {
	var all []string
	for name := range strings.SplitSeq(fieldNames(0, count), ", ") {
		all = append(all, fmt.Sprintf("{name: %s, type: String}", name))
	}
	return "customFields: [" + strings.Join(all, ", ") + "]\n"
}

// fieldNames returns the names of this many custom fields, from a number on.
func fieldNames(first, count int) string {
	var all []string
	for i := range count {
		all = append(all, fmt.Sprintf("field%d%s", first+i, strings.Repeat("x", 50)))
	}
	return strings.Join(all, ", ")
}
