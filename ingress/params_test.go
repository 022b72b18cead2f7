package ingress

import (
	"encoding/json"
	"net/url"
	"testing"
	"unicode/utf8"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/api/v1alpha1"
)

func FuzzParsePairs(f *testing.F) {
	for _, seed := range []string{
		"key=a&email=b%40c.de", "a=1&a=2", "%zz=1", "a=%ff", "a;b=c;d", "&&=&", "custom_special+date=12.12.2020", "key", "=key",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g := NewWithT(t)
		parsed := parsePairs(text)
		values := url.Values{}
		for name, value := range parsed.values {
			g.Expect(utf8.ValidString(name) && utf8.ValidString(value)).To(BeTrue())
			values.Set(name, value)
		}
		again := parsePairs(values.Encode())
		g.Expect(again.wrong).NotTo(HaveOccurred())
		g.Expect(again.values).To(Equal(parsed.values))
	})
}

func FuzzParseJSON(f *testing.F) {
	for _, seed := range []string{
		`{"key":"a","email":"b@c.de"}`, `{"a":1,"b":-1.5e3,"c":true}`, `{"a":null}`, `{"a":[{"b":[]}],"key":"x"}`, `{"a":1,"a":2}`,
		`{"a":1}{"b":2}`, `{"a":1,}`, `{"a" 1}`, `[]`, ``, `"a"`, "{\"a\":\"\xff\"}", `{"\ud800":"\udfff"}`, `{"a":1`, `{"":""}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		g := NewWithT(t)
		parsed := parseJSON(data)
		var reference map[string]any
		if json.Unmarshal(data, &reference) != nil || reference == nil {
			g.Expect(parsed.wrong).To(HaveOccurred(), "what is no object must be refused")
			return
		}
		if parsed.wrong == nil {
			g.Expect(parsed.values).To(HaveLen(len(reference)))
			for name, value := range reference {
				if text, isText := value.(string); isText {
					g.Expect(parsed.values).To(HaveKeyWithValue(name, text))
				}
			}
		}
	})
}

func FuzzDecodeName(f *testing.F) {
	f.Add("custom_special+date", "special date")
	f.Add("custom_100%+", "100%+")
	f.Add("email", "email")
	f.Fuzz(func(t *testing.T, name, field string) {
		g := NewWithT(t)
		declared := []v1alpha1.CustomField{{Name: field}}
		g.Expect(decodeName("custom_"+field, declared)).To(Equal("custom_"+field), "a declared name is taken as it is")
		decoded := decodeName(name, declared)
		g.Expect(decoded == name || decoded == "custom_"+field).To(BeTrue(), "only a declared name replaces another")
	})
}
