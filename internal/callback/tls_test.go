package callback_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/callback"
	"postbus.dev/postbus/internal/testkit"
)

func TestParseCA(t *testing.T) {
	first, second := testkit.NewAuthority(t), testkit.NewAuthority(t)
	_, key := first.Issue(t, nil)
	for name, row := range map[string]struct {
		bundle  []byte
		refused string
	}{
		"one":                      {first.PEM(), ""},
		"two":                      {slices.Concat(first.PEM(), second.PEM()), ""},
		"with words between":       {slices.Concat([]byte("# ours\n"), first.PEM(), []byte("\n# theirs\n"), second.PEM()), ""},
		"nothing":                  {nil, "no certificate in PEM"},
		"not PEM":                  {[]byte("S3CR3T"), "no certificate in PEM"},
		"a key":                    {key, "part 1 of it is no certificate"},
		"a key behind":             {slices.Concat(first.PEM(), key), "part 2 of it is no certificate"},
		"a certificate that isn't": {[]byte("-----BEGIN CERTIFICATE-----\nUzNDUjNU\n-----END CERTIFICATE-----\n"), "certificate 1 of it can't be read"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			pool, err := callback.ParseCA(row.bundle)
			if row.refused != "" {
				g.Expect(err).To(MatchError(And(ContainSubstring(row.refused), Not(ContainSubstring("S3CR3T")))))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(pool).NotTo(BeNil())
		})
	}
}

func TestParseClientCertificate(t *testing.T) {
	authority := testkit.NewAuthority(t)
	certificate, key := authority.Issue(t, nil)
	_, another := authority.Issue(t, nil)
	for name, row := range map[string]struct {
		certificate, key []byte
		refused          string
	}{
		"a pair":             {certificate, key, ""},
		"a chain":            {slices.Concat(certificate, authority.PEM()), key, ""},
		"a chain, backwards": {slices.Concat(authority.PEM(), certificate), key, "tls.key is no key in PEM of the first certificate in tls.crt"},
		"another's key":      {certificate, another, "tls.key is no key"},
		"no key":             {certificate, nil, "tls.key is no key"},
		"half a key":         {certificate, bytes.ReplaceAll(key, []byte("A"), nil), "tls.key is no key"},
		"no certificate":     {nil, key, "tls.crt: no certificate in PEM"},
		"swapped":            {key, certificate, "tls.crt: part 1 of it is no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := callback.ParseClientCertificate(row.certificate, row.key)
			if row.refused == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring(row.refused)))
		})
	}
}

func TestParseCredential(t *testing.T) {
	g := NewWithT(t)
	for text, want := range map[string]string{"a b:c%": "a b:c%", "S3CR3T\n": "S3CR3T", strings.Repeat("x", 4096): strings.Repeat("x", 4096)} {
		value, err := callback.ParseCredential([]byte(text))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(value).To(Equal(want))
	}
	for text, refused := range map[string]string{
		"": "is empty", "\n": "is empty", "S3CR3T\n\n": "visible characters", "S3CR3T\t": "visible characters", "S3CR3Tä": "visible characters",
		strings.Repeat("x", 4097): "more than 4096 characters",
	} {
		_, err := callback.ParseCredential([]byte(text))
		g.Expect(err).To(MatchError(And(ContainSubstring(refused), Not(ContainSubstring("S3CR3T")))))
	}
}
