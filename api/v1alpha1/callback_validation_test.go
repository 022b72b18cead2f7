package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestCallbackValidation(t *testing.T) {
	const either = "callback must have exactly one of url and urlSecretRef"
	const encrypted = "\npayload: {format: MailUp, parameters: [{name: a, value: b}], encryption: {algorithm: RC4, keySecretRef: {name: a, key: b}}}"
	validate(t, "WebhookSubscription", map[string]row{
		"a URL in a Secret":                 {spec: "callback: {urlSecretRef: {name: crm, key: url}}"},
		"a URL in a Secret, encrypted":      {spec: "callback: {urlSecretRef: {name: crm, key: url}}" + encrypted},
		"two URLs":                          {"callback: {url: https://crm.example.com, urlSecretRef: {name: crm, key: url}}", either},
		"no URL":                            {"callback: {method: POST}", either},
		"a URL in a Secret without a name":  {"callback: {urlSecretRef: {key: url}}", "spec.callback.urlSecretRef.name"},
		"a URL in a Secret without a key":   {"callback: {urlSecretRef: {name: crm}}", "spec.callback.urlSecretRef.key"},
		"a URL in a Secret of another kind": {"callback: {urlSecretRef: {name: crm, key: url, kind: ConfigMap}}", `unknown field "spec.callback.urlSecretRef.kind"`},
	})
}

// headers returns a spec with these headers.
func headers(text string) string {
	return "callback: {url: https://crm.example.com, headers: [" + text + "]}"
}

func TestHeaderValidation(t *testing.T) {
	const one, once = "callback.headers[] must have exactly one of value and secretRef", "callback.headers[].name must be there once"
	const namePath, valuePath = "spec.callback.headers[0].name", "spec.callback.headers[0].value"
	named := func(name string) string { return headers(fmt.Sprintf("{name: %q, value: a}", name)) }
	value := func(text string) string { return headers(fmt.Sprintf("{name: X-Tenant, value: %q}", text)) }
	many := func(count int) string {
		var all []string
		for i := range count {
			all = append(all, fmt.Sprintf("{name: X-%d, value: a}", i))
		}
		return headers(strings.Join(all, ", "))
	}
	rows := map[string]row{
		"a value and a Secret":        {spec: headers("{name: X-Tenant, value: '42'}, {name: Authorization, secretRef: {name: crm, key: header}}")},
		"neither":                     {headers("{name: X-Tenant}"), one},
		"both":                        {headers("{name: X-Tenant, value: a, secretRef: {name: crm, key: header}}"), one},
		"a Secret without a name":     {headers("{name: X-Tenant, secretRef: {key: header}}"), "spec.callback.headers[0].secretRef.name"},
		"a Secret without a key":      {headers("{name: X-Tenant, secretRef: {name: crm}}"), "spec.callback.headers[0].secretRef.key"},
		"no name":                     {headers("{value: a}"), namePath},
		"a name twice":                {headers("{name: X-A, value: a}, {name: X-A, value: b}"), "spec.callback.headers[1]"},
		"a name twice, another case":  {headers("{name: X-A, value: a}, {name: x-a, value: b}"), once},
		"20 headers":                  {spec: many(20)},
		"21 headers":                  {many(21), "spec.callback.headers"},
		"a name of 128 characters":    {spec: named(strings.Repeat("x", 128))},
		"a name of 129 characters":    {named(strings.Repeat("x", 129)), namePath},
		"every character of tokens":   {spec: named("!#$%&'*+-.^_`|~09AZaz")},
		"a value of 4096 characters":  {spec: value(strings.Repeat("x", 4096))},
		"a value of 4097 characters":  {value(strings.Repeat("x", 4097)), valuePath},
		"an empty value":              {value(""), valuePath},
		"a value with a tab":          {spec: value("a\tb")},
		"a value with a line break":   {value("a\r\nX-Admin: yes"), valuePath},
		"a value and a line end":      {value("a\n"), valuePath},
		"a value with a space before": {value(" a"), valuePath},
		"a value with a space behind": {value("a "), valuePath},
		"a value with an umlaut":      {value("ä"), valuePath},
		"a value with a zero byte":    {value("a\x01"), valuePath},
	}
	for _, character := range []string{"", " ", ":", "ä", "\n", "\"", "(", "/", "@", "[", "\\", "{", ",", ";"} {
		rows[fmt.Sprintf("a name with %q", character)] = row{named("X" + strings.Repeat(character, 2) + "Y"), namePath}
	}
	rows[`a name with ""`] = row{named(""), namePath}
	for _, name := range []string{
		"webhook-id", "Webhook-Signature", "WEBHOOK-ANYTHING", "postbus-attempt", "Postbus-Hops", "ce-id", "CE-Type",
		"Content-Type", "content-length", "Content-Encoding", "Proxy-Authorization", "Host", "User-Agent", "Connection", "Keep-Alive",
		"Transfer-Encoding", "TE", "Trailer", "Upgrade", "HTTP2-Settings", "Expect", "Accept-Encoding", "Idempotency-Key", "x-idempotency-key",
		"traceparent", "TraceState", "baggage",
	} {
		rows["the name "+name] = row{named(name), "callback.headers[].name must not be webhook-*, postbus-*"}
	}
	for _, name := range []string{"Authorization", "Cookie", "X-Api-Key", "webhooks", "X-Webhook-Id", "Accept", "Host-Name", "cepheus"} {
		rows["the name "+name] = row{spec: named(name)}
	}
	validate(t, "WebhookSubscription", rows)
}

func TestCallbackTLSValidation(t *testing.T) {
	const needsTLS, needsOne = "callback.tls needs an https URL", "callback.tls must have caSecretRef, clientCertSecretRef or both"
	with := func(url, text string) string { return "callback: {url: " + url + ", tls: {" + text + "}}" }
	const https = "https://crm.example.com"
	validate(t, "WebhookSubscription", map[string]row{
		"both":                      {spec: with(https, "caSecretRef: {name: a}, clientCertSecretRef: {name: b}")},
		"a bundle":                  {spec: with(https, "caSecretRef: {name: a}")},
		"a certificate":             {spec: with("HTTPS://crm.example.com", "clientCertSecretRef: {name: a}")},
		"neither":                   {with(https, ""), needsOne},
		"without TLS":               {with("http://crm.example.com", "caSecretRef: {name: a}"), needsTLS},
		"of a URL in a Secret":      {spec: "callback: {urlSecretRef: {name: a, key: b}, tls: {caSecretRef: {name: a}}}"},
		"a bundle without a name":   {with(https, "caSecretRef: {}"), "spec.callback.tls.caSecretRef.name"},
		"a bundle with a key":       {with(https, "caSecretRef: {name: a, key: b}"), `unknown field "spec.callback.tls.caSecretRef.key"`},
		"a certificate, no name":    {with(https, "clientCertSecretRef: {}"), "spec.callback.tls.clientCertSecretRef.name"},
		"not to look at it at all ": {with(https, "insecureSkipVerify: true"), `unknown field "spec.callback.tls.insecureSkipVerify"`},
	})
}

func TestOAuth2Validation(t *testing.T) {
	oauth2 := func(text string) string { return "callback: {url: https://crm.example.com, oauth2: {" + text + "}}" }
	from := func(url string) string { return oauth2("tokenURL: '" + url + "', clientSecretRef: {name: a}") }
	scopes := func(text string) string {
		return oauth2("tokenURL: https://id.example.com/token, clientSecretRef: {name: a}, scopes: [" + text + "]")
	}
	const url, notAbsolute = "spec.callback.oauth2.tokenURL", "callback.oauth2.tokenURL must be an absolute http or https URL"
	const scope = "spec.callback.oauth2.scopes[0]"
	validate(t, "WebhookSubscription", map[string]row{
		"a grant":              {spec: from("https://id.example.com/token?tenant=a")},
		"by http":              {spec: from("http://id.example.com/token")},
		"no URL":               {oauth2("clientSecretRef: {name: a}"), url},
		"no client":            {oauth2("tokenURL: https://id.example.com"), "spec.callback.oauth2.clientSecretRef"},
		"a client, no name":    {oauth2("tokenURL: https://id.example.com, clientSecretRef: {}"), "spec.callback.oauth2.clientSecretRef.name"},
		"a client, with a key": {oauth2("tokenURL: https://id.example.com, clientSecretRef: {name: a, key: b}"), "unknown field"},
		"another scheme":       {from("ftp://id.example.com"), notAbsolute},
		"no host":              {from("https:///token"), notAbsolute},
		"a user in the URL":    {from("https://crm:secret@id.example.com/"), "callback.oauth2.tokenURL must not hold a user name or password"},
		"a fragment":           {from("https://id.example.com/#a"), "callback.oauth2.tokenURL must not have a fragment"},
		"2049 characters":      {from("https://id.example.com/" + strings.Repeat("x", 2049-23)), url},
		"two scopes":           {spec: scopes("'https://id.example.com/hooks', 'write:all'")},
		"a scope twice":        {scopes("a, a"), "spec.callback.oauth2.scopes[1]"},
		"an empty scope":       {scopes("''"), scope},
		"a scope with a space": {scopes("'a b'"), scope},
		"a scope with a quote": {scopes(`'a"b'`), scope},
		"a scope of 257":       {scopes(strings.Repeat("x", 257)), scope},
		"a scope of 256":       {spec: scopes(strings.Repeat("x", 256))},
		"21 scopes":            {scopes(names(21)), "spec.callback.oauth2.scopes"},
		"another header":       {spec: "callback: {url: https://crm.example.com, headers: [{name: X-A, value: a}], oauth2: {tokenURL: https://id.example.com, clientSecretRef: {name: a}}}"},
		"Authorization twice":  {"callback: {url: https://crm.example.com, headers: [{name: authorization, value: a}], oauth2: {tokenURL: https://id.example.com, clientSecretRef: {name: a}}}", "callback.headers must not have Authorization where callback.oauth2 is set"},
	})
}
