package v1alpha1_test

import (
	"strings"
	"testing"
)

func TestOperationalEventsValidation(t *testing.T) {
	const minimal = "callback: {url: https://crm.example.com/hooks}\n"
	const all = "operationalEvents: [subscription.failing, subscription.deactivated, subscription.reactivated, apikey.expiring]\n"
	const needsFormat, alone = "operationalEvents need payload.format Standard or Template", "events has None, which stands alone there and needs operationalEvents"
	validate(t, "WebhookSubscription", map[string]row{
		"all operational events":            {spec: minimal + all},
		"in the format Standard":            {spec: minimal + all + "payload: {format: Standard}"},
		"in the format Template":            {spec: minimal + all + "payload: {format: Template, template: '{\"a\": event.operation.name}'}"},
		"in the format Maileon":             {minimal + all + "payload: {format: Maileon}", needsFormat},
		"in the format Mailingwork":         {minimal + all + "payload: {format: Mailingwork}", needsFormat},
		"in the format MailUp":              {minimal + all + "payload: {format: MailUp, parameters: [{name: a, value: b}]}", needsFormat},
		"none of them in another format":    {spec: minimal + "operationalEvents: []\npayload: {format: Mailingwork}"},
		"nothing but operational events":    {spec: minimal + all + "events: [None]"},
		"no events at all":                  {minimal + "events: [None]", alone},
		"no events, and an empty list":      {minimal + "events: [None]\noperationalEvents: []", alone},
		"None beside others":                {minimal + all + "events: [None, Create]", alone},
		"an unknown operational event":      {minimal + "operationalEvents: [subscription.born]", "spec.operationalEvents[0]"},
		"an operational event twice":        {minimal + "operationalEvents: [apikey.expiring, apikey.expiring]", "spec.operationalEvents[1]"},
		"an event of contacts among them":   {minimal + "operationalEvents: [Create]", "spec.operationalEvents[0]"},
		"an operational event among events": {minimal + "events: [apikey.expiring]", "spec.events[0]"},
	})
}

func TestNotifyValidation(t *testing.T) {
	notify := func(emails string) string {
		return "callback: {url: https://crm.example.com/hooks}\nnotify: {emails: [" + emails + "]}"
	}
	validate(t, "WebhookSubscription", map[string]row{
		"nobody":                            {spec: notify("")},
		"10 addresses":                      {spec: notify("a@b, b@b, c@b, d@b, e@b, f@b, g@b, h@b, i@b, 'ops+crm@bücher.example'")},
		"11 addresses":                      {notify("a@b, b@b, c@b, d@b, e@b, f@b, g@b, h@b, i@b, j@b, k@b"), "spec.notify.emails"},
		"an address twice":                  {notify("a@b, a@b"), "spec.notify.emails[1]"},
		"an address without an @":           {notify("ops"), "spec.notify.emails[0]"},
		"an address with a name":            {notify("'Ops <ops@example.com>'"), "spec.notify.emails[0]"},
		"two addresses in one":              {notify("'ops@example.com,dev@example.com'"), "spec.notify.emails[0]"},
		"an address with a line end":        {notify(`"ops@example.com\r\nBcc: eve@example.com"`), "spec.notify.emails[0]"},
		"an address of 255 characters":      {notify("'" + strings.Repeat("a", 252) + "@bb'"), "spec.notify.emails[0]"},
		"an unknown field of those to tell": {"callback: {url: https://crm.example.com/hooks}\nnotify: {phones: []}", `unknown field "spec.notify.phones"`},
	})
}
