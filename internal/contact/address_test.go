package contact_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
)

func TestParseAddressTakes(t *testing.T) {
	for name, row := range map[string]struct{ text, display, key string }{
		"a plain address": {
			"max.mustermann@xqueue.com", "max.mustermann@xqueue.com", "max.mustermann@xqueue.com",
		},
		"spaces around it, as in the vendor's own example": {
			" max@xqueue.com \r\n", "max@xqueue.com", "max@xqueue.com",
		},
		"a local part with capitals, kept for display": {
			"Max.Mustermann@XQueue.COM", "Max.Mustermann@xqueue.com", "max.mustermann@xqueue.com",
		},
		"a plus": {
			"max+news@example.com", "max+news@example.com", "max+news@example.com",
		},
		"every special character of RFC 5322 atext": {
			"!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~@example.com",
		},
		"an internationalised domain": {
			"max@Müller.example", "max@müller.example", "max@xn--mller-kva.example",
		},
		"the same domain in ASCII form, shown in its own script": {
			"max@XN--MLLER-KVA.example", "max@müller.example", "max@xn--mller-kva.example",
		},
		"a sharp s, which is a letter of its own": {
			"max@straße.example", "max@straße.example", "max@xn--strae-oqa.example",
		},
		"a local part beyond ASCII (RFC 6531)": {
			"Jürgen@example.com", "Jürgen@example.com", "jürgen@example.com",
		},
		"a local part spelled with a combining mark, compared as composed": {
			"Ju\u0308rgen@example.com", "Ju\u0308rgen@example.com", "jürgen@example.com",
		},
		"ideographic dots in a domain": {
			"max@例え。テスト", "max@例え.テスト", "max@xn--r8jz45g.xn--zckzah",
		},
		"two hyphens in a registered name": {
			"max@r3---sn.example.com", "max@r3---sn.example.com", "max@r3---sn.example.com",
		},
		"a local part of 64 bytes": {
			strings.Repeat("a", 64) + "@example.com", strings.Repeat("a", 64) + "@example.com", strings.Repeat("a", 64) + "@example.com",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			address, err := contact.ParseAddress(row.text)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(address).To(Equal(contact.Address{Display: row.display, Key: row.key}))
		})
	}
}

func TestParseAddressRefuses(t *testing.T) {
	longDomain := strings.Repeat(strings.Repeat("d", 61)+".", 4) + "com"
	const noDomain = "must have a domain such as example.com behind the @"
	const badLocal = "must not contain spaces, control characters or any of"
	for name, row := range map[string]struct{ text, rule string }{
		"nothing":                               {"", "is required"},
		"only spaces":                           {"  \t", "is required"},
		"no @, as in the vendor's own example":  {"max.mustermannQxqueue.com", "exactly one @"},
		"two @":                                 {"max@example@com", "exactly one @"},
		"a plus that was sent without encoding": {"max news@example.com", "must not contain a space; a '+' in a URL or a form is sent as %2B"},
		"a tab inside":                          {"max\tnews@example.com", badLocal},
		"a line break inside, as for a header":  {"max@example.com\r\nBcc:eve@example.com", "exactly one @"},
		"a NUL":                                 {"max\x00@example.com", badLocal},
		"a zero-width space":                    {"max\u200b@example.com", badLocal},
		"a right-to-left override":              {"max\u202e@example.com", badLocal},
		"a no-break space":                      {"max\u00a0m@example.com", badLocal},
		"a replacement character":               {"max\ufffd@example.com", badLocal},
		"a display name":                        {"Max<max@example.com>", badLocal},
		"a comment":                             {"max(home)@example.com", badLocal},
		"a list of addresses":                   {"max,moritz@example.com", badLocal},
		"a quoted local part":                   {`"max"@example.com`, "must not have a quoted local part"},
		"a quoted space":                        {`"max m"@example.com`, "must not have a quoted local part"},
		"no local part":                         {"@example.com", "something before the @"},
		"a leading dot":                         {".max@example.com", "begin or end with a dot"},
		"a trailing dot":                        {"max.@example.com", "begin or end with a dot"},
		"two dots":                              {"max..m@example.com", "two in a row"},
		"no domain":                             {"max@", noDomain},
		"a single label":                        {"max@localhost", noDomain},
		"an empty label":                        {"max@example..com", noDomain},
		"a leading dot in the domain":           {"max@.example.com", noDomain},
		"a trailing dot in the domain":          {"max@example.com.", noDomain},
		"a label that begins with a hyphen":     {"max@-example.com", noDomain},
		"a label that ends with a hyphen":       {"max@example-.com", noDomain},
		"an underscore in the domain":           {"max@exa_mple.com", noDomain},
		"a line break in the domain":            {"max@exam\nple.com", noDomain},
		"an address literal":                    {"max@[192.0.2.1]", noDomain},
		"a bare IP address":                     {"max@192.0.2.1", noDomain},
		"broken punycode":                       {"max@xn--\u00fc.com", noDomain},
		"punycode in punycode":                  {"max@Xn--Xn--00-00A.A", noDomain},
		"a port":                                {"max@example.com:25", noDomain},
		"a label of 64 bytes":                   {"max@" + strings.Repeat("d", 64) + ".com", noDomain},
		"a local part of 65 bytes":              {strings.Repeat("a", 65) + "@example.com", "at most 64 bytes"},
		"a local part of 33 umlauts":            {strings.Repeat("ü", 33) + "@example.com", "at most 64 bytes"},
		"255 bytes":                             {"abc@" + longDomain, "at most 254 bytes"},
		"a megabyte":                            {strings.Repeat("a@", 1<<19), "at most 254 bytes"},
		"bytes that are no UTF-8":               {"m\xffx@example.com", "valid UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := contact.ParseAddress(row.text)
			var input *contact.InputError
			g.Expect(errors.As(err, &input)).To(BeTrue())
			g.Expect(input.Parameter).To(Equal("email"))
			g.Expect(err).To(MatchError(HavePrefix("illegal parameter value: email ")))
			g.Expect(err).To(MatchError(ContainSubstring(row.rule)))
		})
	}
}

func TestParseAddressTakes254Bytes(t *testing.T) {
	g := NewWithT(t)
	text := "a@" + strings.Repeat(strings.Repeat("d", 61)+".", 4) + "com"
	g.Expect(text).To(HaveLen(253))
	_, err := contact.ParseAddress(text)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = contact.ParseAddress("a" + text)
	g.Expect(err).NotTo(HaveOccurred())
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{
		"max@example.com", " Max+x@EXAMPLE.com ", "jürgen@müller.de", "max@xn--mller-kva.de", "a@b@c", `"a b"@c.de`,
		"a..b@c.de", "max@例え。テスト", "\x00@\xff", "İ@example.com", "max@ﬁ.example", "a@xn--", "a@\u200d.com",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g := NewWithT(t)
		address, err := contact.ParseAddress(text)
		if err != nil {
			return
		}
		g.Expect(utf8.ValidString(address.Display)).To(BeTrue())
		g.Expect(strings.Count(address.Key, "@")).To(Equal(1))
		g.Expect(len(address.Display)).To(BeNumerically("<=", 254))
		g.Expect(address.Display).NotTo(MatchRegexp(`[\s\x00-\x1f\x7f]`))
		again, err := contact.ParseAddress(address.Display)
		g.Expect(err).NotTo(HaveOccurred(), "an address that is shown must be an address")
		g.Expect(again).To(Equal(address), "reading what is shown must find the same contact")
	})
}
