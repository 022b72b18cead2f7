package apikey_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/apikey"
)

func TestGeneratedKeysAreGoodAndDiffer(t *testing.T) {
	g := NewWithT(t)
	seen := map[string]bool{}
	for range 1000 {
		key := apikey.Generate()
		g.Expect(key).To(MatchRegexp(`^pb_[a-z2-7]{26}$`))
		g.Expect(apikey.Check(key)).To(Succeed())
		g.Expect(seen).NotTo(HaveKey(key))
		seen[key] = true
	}
}

// The vector is FIPS 180's for "abc".
func TestDigestIsSHA256(t *testing.T) {
	g := NewWithT(t)
	g.Expect(apikey.Digest("abc")).To(Equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"))
}

func TestPrefix(t *testing.T) {
	for name, row := range map[string]struct{ key, prefix string }{
		"a generated key shows 4 random characters": {"pb_4f9kabcdefghijklmnopqrstuv", "pb_4f9k"},
		"a key that people bring shows nothing":     {"Zm9vYmFyYmF6cXV4Y29ycmdl", ""},
		"too short a key would show too much":       {"pb_4f9kabcdef", ""},
		"no key":                                    {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(apikey.Prefix(row.key)).To(Equal(row.prefix))
		})
	}
}

func TestCheck(t *testing.T) {
	for name, row := range map[string]struct{ key, problem string }{
		"32 hexadecimal digits":          {key: "0f1e2d3c4b5a69788796a5b4c3d2e1f0"},
		"32 hexadecimal capitals":        {key: "0F1E2D3C4B5A69788796A5B4C3D2E1F0"},
		"22 characters of Base64":        {key: "Zk3vQ9sLx0Rt7YpWm2NcUe"},
		"a UUID":                         {key: "6f1c2b9e-3d47-4a58-9c0b-8e7a6d5f4c3b"},
		"40 digits":                      {key: "4917258036491725803649172580364917258036"},
		"all kinds of printable ASCII":   {key: `a!"#$%&'()*+,./:;<=>?@[\]^_{|}~9Z`},
		"512 characters":                 {key: strings.Repeat("0f1e2d3c4b5a6978", 32)},
		"nothing":                        {"", "at least 22"},
		"21 characters":                  {"Zk3vQ9sLx0Rt7YpWm2NcU", "at least 22"},
		"513 characters":                 {strings.Repeat("0f1e2d3c4b5a6978", 32) + "0", "at most 512"},
		"one character, often":           {strings.Repeat("x", 40), "different characters"},
		"seven characters, often":        {strings.Repeat("abcdefg", 10), "different characters"},
		"31 hexadecimal digits":          {"0f1e2d3c4b5a69788796a5b4c3d2e1f", "about 124 bits"},
		"38 digits":                      {"49172580364917258036491725803649172580", "about 126 bits"},
		"a UUID and its separators only": {"6f1c2b9e-3d47-4a58-9c0b-8e7a6d5f4c3", "about 124 bits"},
		"a space inside":                 {"Zk3vQ9sLx0 Rt7YpWm2NcUe", "printable ASCII"},
		"a new line behind it":           {"Zk3vQ9sLx0Rt7YpWm2NcUe\n", "printable ASCII"},
		"an umlaut":                      {"Zk3vQ9sLx0Rt7YpWm2NcUeä", "printable ASCII"},
		"a byte that is no text":         {"Zk3vQ9sLx0Rt7YpWm2NcUe\xff", "printable ASCII"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			err := apikey.Check(row.key)
			if row.problem == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring(row.problem)))
			if row.key != "" {
				g.Expect(err.Error()).NotTo(ContainSubstring(row.key), "the key must not show")
			}
		})
	}
}
