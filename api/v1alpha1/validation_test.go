package v1alpha1_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/testkit"
)

var plane *testkit.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(testkit.Run(m, func(p *testkit.ControlPlane) { plane = p }))
}

// row is a spec, in YAML, and what the API server says about it: nothing when
// it is accepted, otherwise a text that the refusal must contain.
type row struct {
	spec    string
	refused string
}

// Every name that no custom field may have: Maileon's standard fields, those
// that are read-only, and those that it reserves.
func TestNamesOfCustomFields(t *testing.T) {
	rows := map[string]row{}
	refuse := func(rule string, names ...string) {
		for _, name := range names {
			rows[name] = row{"customFields: [{name: " + name + ", type: String}]", rule}
		}
	}
	refuse("customFields[].name must not be the name of a standard field",
		"ADDRESS", "BIRTHDAY", "CITY", "COUNTRY", "FIRSTNAME", "FULLNAME", "GENDER", "HNR", "LASTNAME", "LOCALE", "NAMEDAY",
		"ORGANIZATION", "REGION", "SALUTATION", "STATE", "TITLE", "ZIP",
		"PERMISSION_STATUS", "SENDOUT_STATUS", "CUSTOM_SOURCE", "CHECKSUM")
	refuse("customFields[].name must not be a reserved name",
		"created", "external_id", "local_part", "permission_type", "permission_status", "sendout_status", "updated")
	refuse("spec.customFields[0].name", "id") // too short as well
	validate(t, "ContactList", rows)
}

func TestContactListValidation(t *testing.T) {
	const numbers = "customFields[].id must each be another number"
	validate(t, "ContactList", map[string]row{
		"an empty spec is accepted": {spec: `{}`},
		"everything is accepted": {spec: `
displayName: Newsletter
id: 2
standardFields: [{name: FIRSTNAME, id: 2}]
customFields: [{name: special date, type: Date, id: 7}, {name: points, type: Integer}]
language: de
optIn:
  resendPolicy: Always
  resendInterval: 10m
  linkTTL: 72h
  confirmedURL: https://www.example.com/thanks?list=2
  mailings:
  - {key: dh6hdjk9, default: true, subject: Please confirm, from: Example News <news@example.com>, templateRef: {name: doi-mail}}
  - {key: other_1, default: false}
pages: {templateRef: {name: look}, profileFields: [FIRSTNAME, special date]}`},

		"contacts that end with the list": {spec: `deletionPolicy: Delete`},
		"another policy":                  {`deletionPolicy: Orphan`, "spec.deletionPolicy"},
		"an empty display name":           {`displayName: ""`, "spec.displayName"},
		"a display name of 256 letters":   {"displayName: " + strings.Repeat("x", 256), "spec.displayName"},
		"a display name of 255 letters":   {spec: "displayName: " + strings.Repeat("x", 255)},
		"a negative id":                   {`id: -1`, "spec.id"},
		"the id 0":                        {spec: `id: 0`},
		"an unknown standard field":       {`standardFields: [{name: SHOE, id: 2}]`, "spec.standardFields[0].name"},
		"a standard field without number": {`standardFields: [{name: CITY}]`, "spec.standardFields[0].id"},
		"a standard field with the number of the e-mail address": {
			`standardFields: [{name: CITY, id: 1}]`, "spec.standardFields[0].id",
		},
		"a standard field twice": {`standardFields: [{name: CITY, id: 2}, {name: CITY, id: 3}]`, "spec.standardFields[1]"},

		"a custom field's name of 2 characters":                   {`customFields: [{name: ab, type: String}]`, "spec.customFields[0].name"},
		"a custom field's name of 3 characters":                   {spec: `customFields: [{name: abc, type: String}]`},
		"a custom field's name of 65 characters":                  {"customFields: [{name: " + strings.Repeat("x", 65) + ", type: String}]", "spec.customFields[0].name"},
		"a custom field's name of 64 characters":                  {spec: "customFields: [{name: " + strings.Repeat("x", 64) + ", type: String}]"},
		"a custom field with a space before it":                   {`customFields: [{name: " abc", type: String}]`, "spec.customFields[0].name"},
		"a custom field with a space behind it":                   {`customFields: [{name: "abc ", type: String}]`, "spec.customFields[0].name"},
		"a custom field with a line break in it":                  {`customFields: [{name: "ab\nc", type: String}]`, "spec.customFields[0].name"},
		"a custom field with an umlaut":                           {spec: `customFields: [{name: Schuhgröße, type: String}]`},
		"a custom field called as a standard one in another case": {spec: `customFields: [{name: Firstname, type: String}]`},
		"a custom field with an unknown type":                     {`customFields: [{name: abc, type: Text}]`, "spec.customFields[0].type"},
		"a custom field without a type":                           {`customFields: [{name: abc}]`, "spec.customFields[0].type"},
		"a custom field with the number 1":                        {`customFields: [{name: abc, type: String, id: 1}]`, "spec.customFields[0].id"},
		"a custom field twice":                                    {`customFields: [{name: abc, type: String}, {name: abc, type: Date}]`, "spec.customFields[1]"},
		"a number twice":                                          {`customFields: [{name: abc, type: String, id: 2}, {name: def, type: Date, id: 2}]`, numbers},
		"a standard number twice":                                 {"standardFields: [{name: CITY, id: 2}, {name: STATE, id: 2}]", "standardFields[].id must each be another number"},
		"200 numbers and 17":                                      {spec: "standardFields: [" + standard + "]\ncustomFields: [" + numbered(200) + "]"},
		"a number of both kinds":                                  {"standardFields: [{name: CITY, id: 2}]\ncustomFields: [{name: abc, type: String, id: 2}]", numbers},
		"a number that is too big":                                {`customFields: [{name: abc, type: String, id: 2147483648}]`, "spec.customFields[0].id"},
		"an unknown resend policy":                                {`optIn: {resendPolicy: Sometimes}`, "spec.optIn.resendPolicy"},
		"a mailing's key with a space":                            {`optIn: {mailings: [{key: a b}]}`, "spec.optIn.mailings[0].key"},
		"a mailing's key of 65 characters":                        {"optIn: {mailings: [{key: " + strings.Repeat("x", 65) + "}]}", "spec.optIn.mailings[0].key"},
		"two default mailings":                                    {`optIn: {mailings: [{key: a, default: true}, {key: b, default: true}]}`, "optIn.mailings: at most one"},
		"an unknown field":                                        {`display: Newsletter`, `unknown field "spec.display"`},
		"an unknown field deep in the structure":                  {`optIn: {mailing: []}`, `unknown field "spec.optIn.mailing"`},
	})
}

func TestApiKeyValidation(t *testing.T) {
	const minimal = "listRef: {name: newsletter}\nscopes: [ContactsWrite]\n"
	validate(t, "ApiKey", map[string]row{
		"the smallest spec is accepted": {spec: minimal},
		"everything is accepted": {spec: `
listRef: {name: newsletter}
scopes: [ContactsWrite, ContactsRemove, ContactsImport, ContactsRead]
source: Console
secretRef: {name: website-form}
expiresAt: "2027-06-30T00:00:00+02:00"
rotation: {overlap: 48h}
rateLimit: {requestsPerSecond: 50}
suspend: true`},

		"no list":                {`scopes: [ContactsWrite]`, "spec.listRef"},
		"a list without a name":  {"listRef: {}\nscopes: [ContactsWrite]", "spec.listRef.name"},
		"a list's name is empty": {"listRef: {name: \"\"}\nscopes: [ContactsWrite]", "spec.listRef.name"},
		"a list's name of 254 characters": {
			"listRef: {name: " + strings.Repeat("x", 254) + "}\nscopes: [ContactsWrite]", "spec.listRef.name",
		},
		"no scopes":                      {`listRef: {name: newsletter}`, "spec.scopes"},
		"an empty list of scopes":        {"listRef: {name: newsletter}\nscopes: []", "spec.scopes"},
		"an unknown scope":               {"listRef: {name: newsletter}\nscopes: [Everything]", "spec.scopes[0]"},
		"a scope twice":                  {"listRef: {name: newsletter}\nscopes: [ContactsRead, ContactsRead]", "spec.scopes[1]"},
		"an unknown source":              {minimal + `source: Robot`, "spec.source"},
		"a Secret without a name":        {minimal + `secretRef: {}`, "spec.secretRef.name"},
		"a Secret's data key":            {minimal + `secretRef: {name: a, key: b}`, `unknown field "spec.secretRef.key"`},
		"a Secret's name with capitals":  {minimal + `secretRef: {name: Form}`, "spec.secretRef.name"},
		"a Secret's name with a slash":   {minimal + `secretRef: {name: a/b}`, "spec.secretRef.name"},
		"a Secret's name with two dots":  {minimal + `secretRef: {name: a..b}`, "spec.secretRef.name"},
		"a Secret's name that is a path": {minimal + `secretRef: {name: ..}`, "spec.secretRef.name"},
		"a Secret's name with dots":      {spec: minimal + `secretRef: {name: 0-form.example.com}`},

		"no overlap":                       {spec: minimal + `rotation: {overlap: 0s}`},
		"an overlap of 30 days":            {spec: minimal + `rotation: {overlap: 720h}`},
		"a rotation without an overlap":    {spec: minimal + `rotation: {}`},
		"an overlap of more than 30 days":  {minimal + `rotation: {overlap: 720h1s}`, "rotation.overlap must be between 0s and 720h"},
		"an overlap below zero":            {minimal + `rotation: {overlap: -1h}`, "spec.rotation.overlap"},
		"an overlap in days":               {minimal + `rotation: {overlap: 1d}`, "spec.rotation.overlap"},
		"an overlap that is a number":      {minimal + `rotation: {overlap: 24}`, "spec.rotation.overlap"},
		"a long overlap's text":            {minimal + `rotation: {overlap: 1h1h1h1h1h1h1h1h1h}`, "spec.rotation.overlap"},
		"one request a second":             {spec: minimal + `rateLimit: {requestsPerSecond: 1}`},
		"10000 requests a second":          {spec: minimal + `rateLimit: {requestsPerSecond: 10000}`},
		"no requests":                      {minimal + `rateLimit: {requestsPerSecond: 0}`, "spec.rateLimit.requestsPerSecond"},
		"10001 requests a second":          {minimal + `rateLimit: {requestsPerSecond: 10001}`, "spec.rateLimit.requestsPerSecond"},
		"half a request a second":          {minimal + `rateLimit: {requestsPerSecond: 0.5}`, "spec.rateLimit.requestsPerSecond"},
		"a rate limit that says no number": {minimal + `rateLimit: {}`, "spec.rateLimit.requestsPerSecond"},

		"an expiry in UTC":                       {spec: minimal + `expiresAt: "2027-06-30T00:00:00Z"`},
		"an expiry with a fraction":              {spec: minimal + `expiresAt: "2027-06-30T00:00:00.123456789Z"`},
		"an expiry that is a date":               {minimal + `expiresAt: "2027-06-30"`, "spec.expiresAt"},
		"an expiry without a zone":               {minimal + `expiresAt: "2027-06-30T00:00:00"`, "spec.expiresAt"},
		"an expiry in small letters":             {minimal + `expiresAt: "2027-06-30t00:00:00z"`, "spec.expiresAt"},
		"an expiry in a month that is not there": {minimal + `expiresAt: "2027-13-30T00:00:00Z"`, "spec.expiresAt"},
		"an expiry on a day that is not there":   {minimal + `expiresAt: "2027-02-30T00:00:00Z"`, "spec.expiresAt"},
		"an expiry in an hour that is not there": {minimal + `expiresAt: "2027-06-30T24:00:00Z"`, "spec.expiresAt"},
		"an expiry in a leap second":             {minimal + `expiresAt: "2027-06-30T23:59:60Z"`, "spec.expiresAt"},
		"an expiry with 10 digits of fraction":   {minimal + `expiresAt: "2027-06-30T00:00:00.1234567890Z"`, "spec.expiresAt"},
		"an expiry in the year 0":                {spec: minimal + `expiresAt: "0000-01-01T00:00:00Z"`},
		"an expiry that is text":                 {minimal + `expiresAt: tomorrow`, "spec.expiresAt"},
		"an expiry in the last second":           {spec: minimal + `expiresAt: "9999-12-31T23:59:59Z"`},
		"an expiry after the last second":        {minimal + `expiresAt: "9999-12-31T23:59:59-01:00"`, "expiresAt must not be after the year 9999 in UTC"},
	})
}

func TestWebhookSubscriptionValidation(t *testing.T) {
	const minimal = "callback: {url: https://crm.example.com/hooks}\n"
	const lacks = "events must have Subscribe, Unsubscribe, or ChangeProfile with the source Recipient where payload.format is Mailingwork"
	callback := func(url string) string { return "callback: {url: '" + url + "'}\n" }
	timeout := func(text string) string { return "callback: {url: https://crm.example.com, timeout: " + text + "}\n" }
	validate(t, "WebhookSubscription", map[string]row{
		"the smallest spec is accepted": {spec: minimal},
		"everything is accepted": {spec: `
app: crm
events: [Create, Subscribe, Unsubscribe, ChangeProfile, Delete]
sources: [API, Console, Recipient]
lists: [newsletter, other]
callback: {url: "https://crm.example.com:8443/hooks?tenant=42", timeout: 5s}
payload: {format: Mailingwork}
signing: {secretRef: {name: crm-signing}, algorithm: Ed25519, rotation: {overlap: 48h}}
retry: {intervals: [5m, 1h30m, 24h]}
ordering: None
rateLimit: {maxInFlight: 1000}
suspend: true`},

		"an empty app":               {minimal + `app: ""`, "spec.app"},
		"an app of 64 characters":    {minimal + "app: " + strings.Repeat("x", 64), "spec.app"},
		"an unknown event":           {minimal + `events: [Open]`, "spec.events[0]"},
		"an event twice":             {minimal + `events: [Create, Create]`, "spec.events[1]"},
		"an unknown source":          {minimal + `sources: [Robot]`, "spec.sources[0]"},
		"a source twice":             {minimal + `sources: [API, API]`, "spec.sources[1]"},
		"a list's name is empty":     {minimal + `lists: [""]`, "spec.lists[0]"},
		"a list twice":               {minimal + `lists: [a, a]`, "spec.lists[1]"},
		"more lists than 100":        {minimal + "lists: [" + names(101) + "]", "spec.lists"},
		"100 lists":                  {spec: minimal + "lists: [" + names(100) + "]"},
		"no callback":                {`app: crm`, "spec.callback"},
		"a callback without a URL":   {`callback: {timeout: 1s}`, "callback must have exactly one of url and urlSecretRef"},
		"a Secret without a name":    {minimal + `signing: {secretRef: {}}`, "spec.signing.secretRef.name"},
		"a Secret with a bad name":   {minimal + `signing: {secretRef: {name: crm_signing}}`, "spec.signing.secretRef.name"},
		"another with a bad name":    {`callback: {urlSecretRef: {name: a/b, key: url}}`, "spec.callback.urlSecretRef.name"},
		"an unknown format":          {minimal + `payload: {format: Pigeon}`, "spec.payload.format"},
		"events that a format lacks": {minimal + "events: [Create, Delete]\npayload: {format: Mailingwork}", lacks},
		"profiles of others than it": {minimal + "events: [ChangeProfile]\nsources: [API, Console]\npayload: {format: Mailingwork}", lacks},
		"profiles that a format has": {spec: minimal + "events: [ChangeProfile]\nsources: [API, Recipient]\npayload: {format: Mailingwork}"},
		"an event that a format has": {spec: minimal + "events: [Create, Unsubscribe]\npayload: {format: Mailingwork}"},
		"an unknown ordering":        {minimal + `ordering: Random`, "spec.ordering"},
		"no call in flight":          {minimal + `rateLimit: {maxInFlight: 0}`, "spec.rateLimit.maxInFlight"},
		"more in flight than 1000":   {minimal + `rateLimit: {maxInFlight: 1001}`, "spec.rateLimit.maxInFlight"},
		"no calls a second":          {minimal + `rateLimit: {requestsPerSecond: 0}`, "spec.rateLimit.requestsPerSecond"},
		"a call a second":            {spec: minimal + `rateLimit: {requestsPerSecond: 1}`},
		"10000 calls a second":       {spec: minimal + `rateLimit: {requestsPerSecond: 10000}`},
		"10001 calls a second":       {minimal + `rateLimit: {requestsPerSecond: 10001}`, "spec.rateLimit.requestsPerSecond"},
		"an unknown field":           {minimal + `urls: []`, `unknown field "spec.urls"`},
		"an unknown callback field":  {`callback: {url: "https://a.example", verb: GET}`, `unknown field "spec.callback.verb"`},

		"a URL with http":               {spec: callback("http://crm.example.com")},
		"a URL with an IPv6 host":       {spec: callback("http://[::1]:9000/hooks")},
		"a URL with an @ in its path":   {spec: callback("https://crm.example.com/@me?to=a@b")},
		"a URL of another scheme":       {callback("ftp://crm.example.com"), "callback.url must be an absolute http or https URL"},
		"a URL without a scheme":        {callback("crm.example.com/hooks"), "callback.url must be an absolute http or https URL"},
		"a URL without a host":          {callback("https:///hooks"), "callback.url must be an absolute http or https URL"},
		"a URL with a port but no host": {callback("https://:443/hooks"), "callback.url must be an absolute http or https URL"},
		"a URL with a space":            {callback("https://crm.example.com /"), "callback.url must be an absolute http or https URL"},
		"a URL with a user":             {callback("https://me@crm.example.com/"), "callback.url must not hold a user name or password"},
		"a URL with a password":         {callback("https://me:secret@crm.example.com/"), "callback.url must not hold a user name or password"},
		"a URL with a fragment":         {callback("https://crm.example.com/#top"), "callback.url must not have a fragment"},
		"a URL of 2049 characters":      {callback("https://crm.example.com/" + strings.Repeat("x", 2049-24)), "spec.callback.url"},
		"a URL of 2048 characters":      {spec: callback("https://crm.example.com/" + strings.Repeat("x", 2048-24))},

		"the shortest timeout":           {spec: timeout("100ms")},
		"the longest timeout":            {spec: timeout("30s")},
		"a timeout of two units":         {spec: timeout("1s500ms")},
		"a timeout that is too short":    {timeout("99ms"), "callback.timeout must be between 100ms and 30s"},
		"a timeout that is too long":     {timeout("31s"), "callback.timeout must be between 100ms and 30s"},
		"a timeout that is negative":     {timeout("-5s"), "spec.callback.timeout"},
		"a timeout without a unit":       {timeout(`"10"`), "spec.callback.timeout"},
		"a timeout that is a number":     {timeout("10"), "spec.callback.timeout"},
		"a timeout in an unknown unit":   {timeout("1d"), "spec.callback.timeout"},
		"a timeout that overflows":       {timeout("99999999999999h"), "spec.callback.timeout"},
		"no retry intervals":             {minimal + `retry: {intervals: []}`, "spec.retry.intervals"},
		"more retry intervals than 30":   {minimal + "retry: {intervals: [" + strings.Repeat("5m, ", 30) + "5m]}", "spec.retry.intervals"},
		"a retry interval of a second":   {spec: minimal + `retry: {intervals: [1s]}`},
		"a retry interval that is short": {minimal + `retry: {intervals: [5m, 999ms]}`, "retry.intervals must each be between 1s and 24h"},
		"a retry interval that is long":  {minimal + `retry: {intervals: [25h]}`, "retry.intervals must each be between 1s and 24h"},
		"a retry interval of a day":      {minimal + `retry: {intervals: [1d]}`, "spec.retry.intervals[0]"},
	})
}

// A name that leaves no room for that of the signing Secret needs one for it.
func TestNameOfASubscription(t *testing.T) {
	namespace := plane.Namespace(t)
	const rule = "metadata.name must have at most 245 characters where spec.signing.secretRef names no Secret"
	for length, refused := range map[int]bool{245: false, 246: true, 253: true} {
		g := NewWithT(t)
		subscription := testkit.Subscription(namespace, strings.Repeat("a", length), "https://crm.example.com/")
		if refused {
			g.Expect(plane.Client.Create(t.Context(), subscription)).To(MatchError(ContainSubstring(rule)))
			subscription.Spec.Signing.SecretRef.Name = "crm-signing"
		}
		g.Expect(plane.Client.Create(t.Context(), subscription)).To(Succeed())
	}
}

func TestSigningValidation(t *testing.T) {
	signing := func(text string) string {
		return "callback: {url: https://crm.example.com/hooks}\nsigning: {" + text + "}\n"
	}
	overlap := func(text string) string { return signing("rotation: {overlap: " + text + "}") }
	validate(t, "WebhookSubscription", map[string]row{
		"HMAC":                            {spec: signing("algorithm: HMAC")},
		"Ed25519":                         {spec: signing("algorithm: Ed25519")},
		"an unknown algorithm":            {signing("algorithm: RSA"), "spec.signing.algorithm"},
		"a rotation without an overlap":   {spec: signing("rotation: {}")},
		"no overlap":                      {spec: overlap("0s")},
		"an overlap of 30 days":           {spec: overlap("720h")},
		"an overlap of more than 30 days": {overlap("720h1s"), "signing.rotation.overlap must be between 0s and 720h"},
		"an overlap below zero":           {overlap("-1h"), "spec.signing.rotation.overlap"},
		"an overlap in days":              {overlap("1d"), "spec.signing.rotation.overlap"},
		"an overlap that is a number":     {overlap("24"), "spec.signing.rotation.overlap"},
		"an unknown field of a rotation":  {signing("rotation: {every: 24h}"), `unknown field "spec.signing.rotation.every"`},
	})
}

func TestMailUpValidation(t *testing.T) {
	const url = "callback: {url: https://crm.example.com/hooks}\n"
	const get = "callback: {url: https://crm.example.com/hooks, method: GET}\n"
	const parameters = "parameters: [{name: email, value: '[Email]'}]"
	const rc4 = "encryption: {algorithm: RC4, keySecretRef: {name: crm-rc4, key: key}}"
	payload := func(parts ...string) string { return "payload: {" + strings.Join(parts, ", ") + "}\n" }
	value := func(text string) string {
		return url + payload("format: MailUp", "parameters: [{name: a, value: '"+text+"'}]")
	}
	keyRef := func(ref string) string {
		return url + payload("format: MailUp", parameters, "encryption: {algorithm: RC4, keySecretRef: "+ref+"}")
	}
	const required, misplaced = "payload.parameters is required where payload.format is MailUp", "payload.parameters needs payload.format MailUp"
	const unknown, getNeeds = "payload.parameters[].value has a placeholder that is not known", "callback.method GET needs payload.format MailUp"
	rows := map[string]row{
		"parameters":                          {spec: url + payload("format: MailUp", parameters)},
		"by GET":                              {spec: get + payload("format: MailUp", parameters)},
		"by GET, onto a query":                {spec: "callback: {url: 'https://crm.example.com/?list=2', method: GET}\n" + payload("format: MailUp", parameters)},
		"encrypted":                           {spec: url + payload("format: MailUp", parameters, rc4)},
		"by GET, encrypted":                   {spec: get + payload("format: MailUp", parameters, rc4)},
		"by POST":                             {spec: "callback: {url: https://crm.example.com, method: POST}\n" + payload("format: MailUp", parameters)},
		"another format by POST":              {spec: "callback: {url: https://crm.example.com, method: POST}"},
		"another method":                      {"callback: {url: https://crm.example.com, method: PUT}", "spec.callback.method"},
		"no format, by GET":                   {get, getNeeds},
		"Standard by GET":                     {get + payload("format: Standard"), getNeeds},
		"Mailingwork by GET":                  {get + payload("format: Mailingwork"), getNeeds},
		"no parameters":                       {url + payload("format: MailUp"), required},
		"an empty list of parameters":         {url + payload("format: MailUp", "parameters: []"), "spec.payload.parameters"},
		"parameters without a format":         {url + payload(parameters), misplaced},
		"parameters of Standard":              {url + payload("format: Standard", parameters), misplaced},
		"parameters of Mailingwork":           {url + payload("format: Mailingwork", parameters), misplaced},
		"RC4 of Standard":                     {url + payload("format: Standard", rc4), "payload.encryption.algorithm RC4 needs payload.format MailUp"},
		"RC4 without a format":                {url + payload(rc4), "payload.encryption.algorithm RC4 needs payload.format MailUp"},
		"RC4 and a query":                     {"callback: {url: 'https://crm.example.com/?list=2'}\n" + payload("format: MailUp", parameters, rc4), "callback.url must not have a query where payload.encryption.algorithm is RC4"},
		"RC4 and a query, by GET":             {"callback: {url: 'https://crm.example.com/?', method: GET}\n" + payload("format: MailUp", parameters, rc4), "callback.url must not have a query"},
		"another algorithm":                   {url + payload("format: MailUp", parameters, "encryption: {algorithm: ROT13, keySecretRef: {name: a, key: b}}"), "spec.payload.encryption.algorithm"},
		"no algorithm":                        {url + payload("format: MailUp", parameters, "encryption: {keySecretRef: {name: a, key: b}}"), "spec.payload.encryption.algorithm"},
		"no key":                              {url + payload("format: MailUp", parameters, "encryption: {algorithm: RC4}"), "spec.payload.encryption.keySecretRef"},
		"a key without a Secret's name":       {keyRef("{key: b}"), "spec.payload.encryption.keySecretRef.name"},
		"a key without a data key":            {keyRef("{name: a}"), "spec.payload.encryption.keySecretRef.key"},
		"a data key with a slash":             {keyRef("{name: a, key: b/c}"), "spec.payload.encryption.keySecretRef.key"},
		"a key that stands there":             {keyRef("{name: a, key: b, value: c}"), `unknown field "spec.payload.encryption.keySecretRef.value"`},
		"a parameter without a name":          {url + payload("format: MailUp", "parameters: [{value: a}]"), "spec.payload.parameters[0].name"},
		"a parameter without a value":         {url + payload("format: MailUp", "parameters: [{name: a}]"), "spec.payload.parameters[0].value"},
		"a parameter's name of 128 letters":   {spec: url + payload("format: MailUp", "parameters: [{name: "+strings.Repeat("x", 128)+", value: a}]")},
		"a parameter's name of 129 letters":   {url + payload("format: MailUp", "parameters: [{name: "+strings.Repeat("x", 129)+", value: a}]"), "spec.payload.parameters[0].name"},
		"a name twice":                        {spec: url + payload("format: MailUp", "parameters: [{name: a, value: b}, {name: a, value: c}]")},
		"50 parameters":                       {spec: url + payload("format: MailUp", "parameters: ["+strings.Repeat("{name: a, value: b}, ", 49)+"{name: a, value: b}]")},
		"51 parameters":                       {url + payload("format: MailUp", "parameters: ["+strings.Repeat("{name: a, value: b}, ", 50)+"{name: a, value: b}]"), "spec.payload.parameters"},
		"a value of 1024 letters":             {spec: value(strings.Repeat("x", 1024))},
		"a value of 1025 letters":             {value(strings.Repeat("x", 1025)), "spec.payload.parameters[0].value"},
		"a constant":                          {spec: value("42")},
		"placeholders amid text":              {spec: value("[Email] of [IdList], ümlaut &=%")},
		"a standard field":                    {spec: value("[Field:FIRSTNAME]")},
		"a custom field with spaces":          {spec: value("[Field:special date]")},
		"a field without a name":              {value("[Field:]"), unknown},
		"a field's name of 65 letters":        {value("[Field:" + strings.Repeat("x", 65) + "]"), unknown},
		"an unknown placeholder":              {value("[EMail]"), unknown},
		"a known and an unknown placeholder":  {value("[Email][Phone]"), unknown},
		"a placeholder in another case":       {value("[email]"), unknown},
		"a placeholder with a space":          {value("[ Email]"), unknown},
		"an empty placeholder":                {value("[]"), unknown},
		"an open bracket":                     {value("a[b"), unknown},
		"a closed bracket":                    {value("a]b"), unknown},
		"brackets in brackets":                {value("[[Email]]"), unknown},
		"an unknown placeholder, second line": {url + payload("format: MailUp", `parameters: [{name: a, value: "x\n[Nope]"}]`), unknown},
	}
	for _, name := range []string{
		"EventDate", "IdConsole", "IdList", "IdNL", "EventType", "EventSource", "Reason", "Email", "Prefix", "Number", "Groups", "Channel",
	} {
		rows["the placeholder "+name] = row{spec: value("[" + name + "]")}
	}
	validate(t, "WebhookSubscription", rows)
}

// validate creates an object for each row with strict field validation, as
// kubectl does. What the API server takes, a typed client must be able to read:
// one object that it can't would stop every informer of the kind.
func validate(t *testing.T, kind string, rows map[string]row) {
	t.Helper()
	strict := client.WithFieldValidation(plane.Client, metav1.FieldValidationStrict)
	namespace := plane.Namespace(t)
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			spec := map[string]any{}
			g.Expect(yaml.Unmarshal([]byte(row.spec), &spec)).To(Succeed())
			object := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
			object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
			object.SetNamespace(namespace)
			object.SetGenerateName("row-")
			err := strict.Create(t.Context(), object)
			if row.refused != "" {
				g.Expect(err).To(MatchError(ContainSubstring(row.refused)))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			typed, err := plane.Client.Scheme().New(object.GroupVersionKind())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(plane.Client.Get(t.Context(), client.ObjectKeyFromObject(object), typed.(client.Object))).To(Succeed())
		})
	}
}

// standard are all standard fields, each with a number that numbered does not give.
var standard = func() string {
	var all []string
	for i, name := range strings.Fields("ADDRESS BIRTHDAY CITY COUNTRY FIRSTNAME FULLNAME GENDER HNR LASTNAME LOCALE NAMEDAY ORGANIZATION REGION SALUTATION STATE TITLE ZIP") {
		all = append(all, fmt.Sprintf("{name: %s, id: %d}", name, 1000+i))
	}
	return strings.Join(all, ", ")
}()

// numbered returns this many custom fields, each with a number, separated by commas.
func numbered(count int) string {
	var all []string
	for i := range count {
		all = append(all, fmt.Sprintf("{name: field%d, type: String, id: %d}", i, i+2))
	}
	return strings.Join(all, ", ")
}

// names returns this many different names, separated by commas.
func names(count int) string {
	var all []string
	for i := range count {
		all = append(all, "list"+strings.Repeat("x", i))
	}
	return strings.Join(all, ", ")
}
