package ingress

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	. "github.com/onsi/gomega"
)

// FuzzLines reads files as strangers send them, whole and byte by byte: both
// give the same lines, every line is valid text, and it always comes to an end.
func FuzzLines(f *testing.F) {
	for _, seed := range []string{
		"email,src\na@b.de,x\n", "\ufeffemail\r\n\"a\"\"b\"\r\n", "email\n\"a", "a,b\n1\n", ",\n,\n", "\n\n", "\"\n",
		`{"email":"a@b.de"}` + "\n" + `{"a":1,"a":2}`, "{}\n\n[]\nnull", "{\"a\":\"\xff\"}\n", "\xff,\xfe\n\xff,\xfe\n",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, file []byte, asCSV bool) {
		g := NewWithT(t)
		kind := typeNDJSON
		if asCSV {
			kind = typeCSV
		}
		newReader := lineReaderOf(http.Header{"Content-Type": {kind}})
		whole, wholeErr := readLines(newReader(bytes.NewReader(file)))
		slow, slowErr := readLines(newReader(iotest.OneByteReader(bytes.NewReader(file))))
		g.Expect(slow).To(Equal(whole))
		g.Expect(errors.Is(slowErr, io.EOF)).To(Equal(errors.Is(wholeErr, io.EOF)))
		g.Expect(len(whole)).To(BeNumerically("<=", bytes.Count(file, []byte("\n"))+bytes.Count(file, []byte("\r"))+1))
		for _, line := range whole {
			for name, value := range line.values {
				g.Expect(utf8.ValidString(name) && utf8.ValidString(value)).To(BeTrue())
			}
		}
	})
}

// readLines reads to the end, and returns what ended it.
func readLines(lines lineReader) (all []place, err error) {
	for {
		line, err := lines.next()
		if err != nil {
			return all, err
		}
		all = append(all, line)
	}
}
