package ingress

import (
	"testing"
	"unicode/utf8"

	. "github.com/onsi/gomega"
)

func FuzzParseMultipart(f *testing.F) {
	const part = "--x\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n"
	for _, seed := range []string{
		part + "--x--\r\n", part + part + "--x--", part, "--x--", "", "--x\r\n\r\n\r\n--x--",
		"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\nc\r\n--x--",
		"--x\r\nContent-Disposition: form-data; name*=utf-8''%ff\r\n\r\n\xff\r\n--x--",
		"--x\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-Disposition: form-data; name=a\r\n\r\n=ff\r\n--x--",
	} {
		f.Add([]byte(seed), "x")
	}
	f.Fuzz(func(t *testing.T, data []byte, boundary string) {
		g := NewWithT(t)
		parsed := parseMultipart(data, boundary)
		size := 0
		for name, value := range parsed.values {
			g.Expect(utf8.ValidString(name) && utf8.ValidString(value)).To(BeTrue())
			size += len(value)
		}
		g.Expect(len(parsed.values)).To(BeNumerically("<=", maxParameters+1))
		g.Expect(size).To(BeNumerically("<=", len(data)))
	})
}
