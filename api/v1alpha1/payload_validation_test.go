package v1alpha1_test

import (
	"strings"
	"testing"
)

// postSpec is a spec that calls by POST, with a payload of these parts.
func postSpec(parts ...string) string {
	return "callback: {url: https://crm.example.com/hooks}\npayload: {" + strings.Join(parts, ", ") + "}\n"
}

func TestMaileonValidation(t *testing.T) {
	const maileon = "format: Maileon"
	field := func(text string) string { return postSpec(maileon, "bodyFields: [{"+text+"}]") }
	parameter := func(text string) string { return postSpec(maileon, "urlParameters: [{"+text+"}]") }
	const exactlyOne = "have exactly one of standardField, customField, constant and eventField"
	many := func(count int) string {
		var all []string
		for i := range count {
			all = append(all, "{name: p"+strings.Repeat("x", i)+", constant: a}")
		}
		return "bodyFields: [" + strings.Join(all, ", ") + "]"
	}
	rows := map[string]row{
		"nothing chosen":                      {spec: postSpec(maileon)},
		"parameters":                          {spec: parameter("name: email, standardField: email")},
		"both":                                {spec: postSpec(maileon, "urlParameters: [{name: a, constant: b}]", "bodyFields: [{name: a, eventField: source}]")},
		"a timeout":                           {spec: "callback: {url: https://crm.example.com, timeout: 30s}\npayload: {format: Maileon}"},
		"by GET":                              {"callback: {url: https://crm.example.com, method: GET}\npayload: {format: Maileon}", "callback.method GET needs payload.format MailUp"},
		"a custom field":                      {spec: field("name: a, customField: special date")},
		"a custom field's name of 2 letters":  {field("name: a, customField: ab"), "spec.payload.bodyFields[0].customField"},
		"a custom field's name of 65 letters": {field("name: a, customField: " + strings.Repeat("x", 65)), "spec.payload.bodyFields[0].customField"},
		"an unknown standard field":           {field("name: a, standardField: PHONE"), "spec.payload.bodyFields[0].standardField"},
		"a standard field in small letters":   {field("name: a, standardField: city"), "spec.payload.bodyFields[0].standardField"},
		"an unknown event field":              {field("name: a, eventField: reason"), "spec.payload.bodyFields[0].eventField"},
		"a constant of 1024 letters":          {spec: field("name: a, constant: " + strings.Repeat("x", 1024))},
		"a constant of 1025 letters":          {field("name: a, constant: " + strings.Repeat("x", 1025)), "spec.payload.bodyFields[0].constant"},
		"an empty constant":                   {field(`name: a, constant: ""`), "spec.payload.bodyFields[0].constant"},
		"nothing of it":                       {field("name: a"), exactlyOne},
		"two of it":                           {field("name: a, constant: b, eventField: source"), exactlyOne},
		"nothing of it, in the URL":           {parameter("name: a"), exactlyOne},
		"two of it, in the URL":               {parameter("name: a, standardField: email, customField: abc"), exactlyOne},
		"no name":                             {field("constant: b"), "spec.payload.bodyFields[0].name"},
		"a name of 128 letters":               {spec: field("constant: b, name: " + strings.Repeat("x", 128))},
		"a name of 129 letters":               {field("constant: b, name: " + strings.Repeat("x", 129)), "spec.payload.bodyFields[0].name"},
		"a name twice":                        {postSpec(maileon, "bodyFields: [{name: a, constant: b}, {name: a, constant: c}]"), "spec.payload.bodyFields[1]"},
		"a name twice, in the URL":            {postSpec(maileon, "urlParameters: [{name: a, constant: b}, {name: a, constant: c}]"), "spec.payload.urlParameters[1]"},
		"50 fields":                           {spec: postSpec(maileon, many(50))},
		"51 fields":                           {postSpec(maileon, many(51)), "spec.payload.bodyFields"},
		"an empty list of fields":             {postSpec(maileon, "bodyFields: []"), "spec.payload.bodyFields"},
		"parameters of MailUp":                {postSpec(maileon, "parameters: [{name: a, value: b}]"), "payload.parameters needs payload.format MailUp"},
		"URL parameters without a format":     {postSpec("urlParameters: [{name: a, constant: b}]"), "payload.urlParameters needs payload.format Maileon"},
		"URL parameters of Standard":          {postSpec("format: Standard", "urlParameters: [{name: a, constant: b}]"), "payload.urlParameters needs payload.format Maileon"},
		"body fields of Mailingwork":          {postSpec("format: Mailingwork", "bodyFields: [{name: a, constant: b}]"), "payload.bodyFields needs payload.format Maileon"},
		"RC4": {
			postSpec(maileon, "encryption: {algorithm: RC4, keySecretRef: {name: a, key: b}}"),
			"payload.encryption.algorithm RC4 needs payload.format MailUp",
		},
	}
	for _, name := range []string{
		"email", "external_id", "ADDRESS", "BIRTHDAY", "CITY", "COUNTRY", "FIRSTNAME", "FULLNAME", "GENDER", "HNR", "LASTNAME", "LOCALE",
		"NAMEDAY", "ORGANIZATION", "REGION", "SALUTATION", "STATE", "TITLE", "ZIP",
	} {
		rows["the standard field "+name] = row{spec: field("name: a, standardField: " + name)}
	}
	for _, name := range []string{"timestamp", "msg_id", "transaction_id", "property", "old_value", "new_value", "source"} {
		rows["the event field "+name] = row{spec: field("name: a, eventField: " + name)}
	}
	validate(t, "WebhookSubscription", rows)
}

func TestExpressionValidation(t *testing.T) {
	const url = "callback: {url: https://crm.example.com/hooks}\n"
	validate(t, "WebhookSubscription", map[string]row{
		"a filter":                       {spec: url + `filter: 'event.contact.standardFields.COUNTRY == "DE"'`},
		"a filter that does not compile": {spec: url + `filter: '(('`}, // the controller says so
		"an empty filter":                {url + `filter: ""`, "spec.filter"},
		"a filter of 4096 letters":       {spec: url + "filter: " + strings.Repeat("x", 4096)},
		"a filter of 4097 letters":       {url + "filter: " + strings.Repeat("x", 4097), "spec.filter"},
		"a template":                     {spec: postSpec("format: Template", `template: '{"mail": event.contact.email}'`)},
		"a filter and a template":        {spec: postSpec("format: Template", "template: event") + "filter: 'true'"},
		"a template of 16384 letters":    {spec: postSpec("format: Template", "template: "+strings.Repeat("x", 16384))},
		"a template of 16385 letters":    {postSpec("format: Template", "template: "+strings.Repeat("x", 16385)), "spec.payload.template"},
		"an empty template":              {postSpec("format: Template", `template: ""`), "spec.payload.template"},
		"no template":                    {postSpec("format: Template"), "payload.template is required where payload.format is Template"},
		"a template without a format":    {postSpec("template: event"), "payload.template needs payload.format Template"},
		"a template of Standard":         {postSpec("format: Standard", "template: event"), "payload.template needs payload.format Template"},
		"a template, and body fields":    {postSpec("format: Template", "template: event", "bodyFields: [{name: a, constant: b}]"), "payload.bodyFields needs payload.format Maileon"},
		"a template, and parameters":     {postSpec("format: Template", "template: event", "parameters: [{name: a, value: b}]"), "payload.parameters needs payload.format MailUp"},
		"a template by GET":              {"callback: {url: https://crm.example.com, method: GET}\npayload: {format: Template, template: event}", "callback.method GET needs payload.format MailUp"},
		"a template that is not text":    {postSpec("format: Template", "template: {a: b}"), "spec.payload.template"},
	})
}

func TestCloudEventsValidation(t *testing.T) {
	const refused = "payload.cloudEvents needs payload.format Standard"
	validate(t, "WebhookSubscription", map[string]row{
		"of no format":              {spec: postSpec("cloudEvents: true")},
		"of Standard":               {spec: postSpec("format: Standard", "cloudEvents: true")},
		"not, of another format":    {spec: postSpec("format: Mailingwork", "cloudEvents: false")},
		"of Mailingwork":            {postSpec("format: Mailingwork", "cloudEvents: true"), refused},
		"of Maileon":                {postSpec("format: Maileon", "cloudEvents: true"), refused},
		"of Template":               {postSpec("format: Template", "template: event", "cloudEvents: true"), refused},
		"of MailUp":                 {postSpec("format: MailUp", "parameters: [{name: a, value: b}]", "cloudEvents: true"), refused},
		"something other than true": {postSpec("cloudEvents: 1.0"), "spec.payload.cloudEvents"},
	})
}

func TestJWEValidation(t *testing.T) {
	const jwe = "encryption: {algorithm: JWE, keySecretRef: {name: crm-jwe, key: key}}"
	const constants = "payload.urlParameters can only be constants where payload.encryption.algorithm is JWE"
	mailUp := "payload: {format: MailUp, parameters: [{name: a, value: b}], " + jwe + "}\n"
	validate(t, "WebhookSubscription", map[string]row{
		"of no format":               {spec: postSpec(jwe)},
		"of Standard":                {spec: postSpec("format: Standard", "cloudEvents: true", jwe)},
		"of Mailingwork":             {spec: postSpec("format: Mailingwork", jwe)},
		"of MailUp":                  {spec: "callback: {url: https://crm.example.com}\n" + mailUp},
		"of MailUp, under a query":   {spec: "callback: {url: 'https://crm.example.com/?list=2'}\n" + mailUp},
		"of Template":                {spec: postSpec("format: Template", "template: event", jwe)},
		"of Maileon":                 {spec: postSpec("format: Maileon", "bodyFields: [{name: a, standardField: email}]", jwe)},
		"of Maileon, with a token":   {spec: postSpec("format: Maileon", "bodyFields: [{name: a, standardField: email}]", "urlParameters: [{name: b, constant: c}]", jwe)},
		"of Maileon without a body":  {postSpec("format: Maileon", jwe), "payload.bodyFields is required where payload.format is Maileon and payload.encryption.algorithm is JWE"},
		"of Maileon, with the email": {postSpec("format: Maileon", "bodyFields: [{name: a, standardField: email}]", "urlParameters: [{name: b, standardField: email}]", jwe), constants},
		"by GET":                     {"callback: {url: https://crm.example.com, method: GET}\n" + mailUp, "callback.method GET can't have payload.encryption.algorithm JWE"},
		"without a key":              {postSpec("encryption: {algorithm: JWE}"), "spec.payload.encryption.keySecretRef"},
	})
}
