package dispatcher

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/rc4"
)

// The vendor's sample callback, and the parameters and the event that make it.
const mailUpSample = "unsubscribeDate=2012-12-10T17%3a41%3a03.695%2b01&customerEmail=johnsmith%40yahoo.com&customerList=2"

func mailUpParameters(pairs ...string) (parameters []v1alpha1.PayloadParameter) {
	for i := 0; i < len(pairs); i += 2 {
		parameters = append(parameters, v1alpha1.PayloadParameter{Name: pairs[i], Value: pairs[i+1]})
	}
	return parameters
}

// left is somebody who left, with something in each field that MailUp can tell.
func left() *contact.Event {
	code := 2
	return &contact.Event{
		Position: 1, ID: "evt_1", List: contact.ListKey{Namespace: "marketing", Name: "newsletter"},
		Type: contact.EventUnsubscribe, Source: contact.SourceRecipient,
		Time:   time.Date(2012, 12, 10, 17, 41, 3, 695e6, time.FixedZone("CET", 3600)),
		Reason: &contact.Reason{Code: &code, Text: "moved"},
		Contact: contact.Contact{
			ID: 6049065, Email: "johnsmith@yahoo.com", Permission: contact.PermissionNone,
			StandardFields: map[string]string{"FIRSTNAME": "John [Email] & Söhne"},
			CustomFields:   map[string]any{"special date": "2020-12-12", "score": 1.5, "big": 1e21, "vip": true, "points": float64(7)},
		},
	}
}

func renderMailUp(t *testing.T, e *contact.Event, parameters ...string) string {
	t.Helper()
	g := NewWithT(t)
	spec := &v1alpha1.WebhookSubscriptionSpec{
		Payload: v1alpha1.Payload{Format: v1alpha1.FormatMailUp, Parameters: mailUpParameters(parameters...)},
	}
	f := newFormat(spec)
	g.Expect(f.knows(e)).To(BeTrue())
	byPost, err := f.render(e, &listNumbers{id: 2})
	g.Expect(err).NotTo(HaveOccurred())
	spec.Callback.Method = v1alpha1.MethodGet
	byGet, err := newFormat(spec).render(e, &listNumbers{id: 2})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(byGet).To(Equal(payload{query: string(byPost.body)}))
	g.Expect(byPost).To(Equal(payload{body: byPost.body, contentType: "application/x-www-form-urlencoded"}))
	return string(byPost.body)
}

// Byte for byte, but for the offset: the vendor's sample has that of Rome, and
// we send UTC.
func TestMailUpOfficialSample(t *testing.T) {
	g := NewWithT(t)
	got := renderMailUp(t, left(), "unsubscribeDate", "[EventDate]", "customerEmail", "[Email]", "customerList", "[IdList]")
	g.Expect(got).To(Equal(strings.Replace(mailUpSample, "T17%3a41%3a03.695%2b01", "T16%3a41%3a03.695%2b00", 1)))
	// With the sample's own time as a constant it is the whole of it.
	g.Expect(renderMailUp(t, left(), "unsubscribeDate", "2012-12-10T17:41:03.695+01", "customerEmail", "[Email]", "customerList", "[IdList]")).
		To(Equal(mailUpSample))
}

func TestMailUpPlaceholders(t *testing.T) {
	for name, row := range map[string]struct {
		value string
		edit  func(*contact.Event)
		want  string
	}{
		"the date, in UTC":                 {value: "[EventDate]", want: "2012-12-10T16:41:03.695+00"},
		"the date, without a fraction":     {value: "[EventDate]", edit: func(e *contact.Event) { e.Time = e.Time.Truncate(time.Second) }, want: "2012-12-10T16:41:03.000+00"},
		"the date, in milliseconds":        {value: "[EventDate]", edit: func(e *contact.Event) { e.Time = e.Time.Add(999 * time.Microsecond) }, want: "2012-12-10T16:41:03.695+00"},
		"the account, which there is not":  {value: "[IdConsole]", want: ""},
		"the list":                         {value: "[IdList]", want: "2"},
		"the message, which there is not":  {value: "[IdNL]", want: ""},
		"the event Unsubscribe":            {value: "[EventType]", want: "UNSUBSCRIBE"},
		"the event Subscribe":              {value: "[EventType]", edit: kind(contact.EventSubscribe), want: "SUBSCRIBE"},
		"the event ChangeProfile":          {value: "[EventType]", edit: kind(contact.EventChangeProfile), want: "CHANGEPROFILE"},
		"the event Delete":                 {value: "[EventType]", edit: kind(contact.EventDelete), want: "DELETE"},
		"the event Create":                 {value: "[EventType]", edit: kind(contact.EventCreate), want: "CREATE"},
		"the source Recipient":             {value: "[EventSource]", want: "RECIPIENT"},
		"the source Console":               {value: "[EventSource]", edit: func(e *contact.Event) { e.Source = contact.SourceConsole }, want: "CONSOLE"},
		"the source API":                   {value: "[EventSource]", edit: func(e *contact.Event) { e.Source = contact.SourceAPI }, want: "API"},
		"the reason's code":                {value: "[Reason]", want: "2"},
		"the reason's code 0":              {value: "[Reason]", edit: func(e *contact.Event) { *e.Reason.Code = 0 }, want: "0"},
		"a reason by Maileon's name":       {value: "[Reason]", edit: func(e *contact.Event) { e.Reason = &contact.Reason{Name: "no_demand"} }, want: ""},
		"no reason":                        {value: "[Reason]", edit: func(e *contact.Event) { e.Reason = nil }, want: ""},
		"a reason of another event":        {value: "[Reason]", edit: kind(contact.EventDelete), want: ""},
		"the address":                      {value: "[Email]", want: "johnsmith@yahoo.com"},
		"the prefix, which there is not":   {value: "[Prefix]", want: ""},
		"the number, which there is not":   {value: "[Number]", want: ""},
		"the groups, which there are not":  {value: "[Groups]", want: ""},
		"the channel":                      {value: "[Channel]", want: "0"},
		"a standard field, as it is":       {value: "[Field:FIRSTNAME]", want: "John [Email] & Söhne"},
		"a standard field that is not set": {value: "[Field:CITY]", want: ""},
		"a custom date":                    {value: "[Field:special date]", want: "2020-12-12"},
		"a custom float":                   {value: "[Field:score]", want: "1.5"},
		"a custom integer":                 {value: "[Field:points]", want: "7"},
		"a large float":                    {value: "[Field:big]", want: "1000000000000000000000"},
		"a custom boolean":                 {value: "[Field:vip]", want: "true"},
		"a field in another case":          {value: "[Field:firstname]", want: ""},
		"several in text":                  {value: "<[Email]>, [IdList]/[IdNL]/[Field:vip]", want: "<johnsmith@yahoo.com>, 2//true"},
		"a constant":                       {value: "100 %41 + 1", want: "100 %41 + 1"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			e := left()
			if row.edit != nil {
				row.edit(e)
			}
			form := renderMailUp(t, e, "ä name", row.value)
			g.Expect(form).To(HavePrefix("%c3%a4+name="))
			parsed, err := url.ParseQuery(form)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(parsed).To(Equal(url.Values{"ä name": {row.want}}))
		})
	}
}

func kind(kind v1alpha1.EventType) func(*contact.Event) {
	return func(e *contact.Event) { e.Type = kind }
}

func TestMailUpKeepsTheOrder(t *testing.T) {
	got := renderMailUp(t, left(), "z", "[IdList]", "a", "[IdNL]", "z", "x=y&z")
	NewWithT(t).Expect(got).To(Equal("z=2&a=&z=x%3dy%26z"))
}

func TestMailUpListWithoutANumber(t *testing.T) {
	g := NewWithT(t)
	carried, err := mailUp{parameters: mailUpParameters("l", "[IdList]"), byGet: true}.render(left(), &listNumbers{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(carried.query).To(Equal("l=0"))
}

// The vector was made by another implementation.
func TestSealForm(t *testing.T) {
	g := NewWithT(t)
	key, err := rc4.ParseKey([]byte("myKey1234"))
	g.Expect(err).NotTo(HaveOccurred())
	const vector = "+WwWAHOpqnudjQ1fBzgkNrSe12tQk2KuePI9HUYWIzAioN+IGTNwcBqe7xTkU/nqTmF05T8ydDv8UFvxINTZg6/JtOoxOPxQjjJE3Ge2Z7xjbqYDBWXygY1SKSuvizrdSOym"
	g.Expect(base64.StdEncoding.EncodeToString(key.Encrypt([]byte(mailUpSample)))).To(Equal(vector))
	escaped := strings.NewReplacer("+", "%2b", "/", "%2f", "=", "%3d").Replace(vector)
	g.Expect(sealForm(key, mailUpSample)).To(Equal(escaped))
}

func TestWithQuery(t *testing.T) {
	for base, want := range map[string]string{
		"https://a.example":          "https://a.example?x=1",
		"https://a.example/b":        "https://a.example/b?x=1",
		"https://a.example/b?":       "https://a.example/b?x=1",
		"https://a.example/b?c=%2F":  "https://a.example/b?c=%2F&x=1",
		"https://a.example/b?c=1&":   "https://a.example/b?c=1&x=1",
		"https://a.example/b?c=?d/e": "https://a.example/b?c=?d/e&x=1",
	} {
		NewWithT(t).Expect(withQuery(base, "x=1")).To(Equal(want), base)
		NewWithT(t).Expect(withQuery(base, "")).To(Equal(base))
	}
}
