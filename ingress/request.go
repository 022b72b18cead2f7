package ingress

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"postbus.dev/postbus/api/v1alpha1"
)

// maxBody is how many bytes a body may have.
const maxBody = 1 << 20

// input is what a request says: the parameters of its URL and of its body. The
// two are merged only when the list is known, because what a name in JSON means
// depends on the fields that the list declares.
type input struct {
	url  place
	body place
	// json tells that the body is JSON.
	json bool
}

// readInput reads the request. The error is about content type and size only; what
// is wrong with the text waits in the places until the key is known to be good.
func readInput(r *http.Request) (input, error) {
	in := input{url: parsePairs(r.URL.RawQuery)}
	if r.ContentLength == 0 {
		return in, nil
	}
	var body io.Reader = r.Body
	if r.ContentLength < 0 {
		chunks := bufio.NewReader(r.Body)
		if _, err := chunks.Peek(1); errors.Is(err, io.EOF) {
			return in, nil // chunked, with no chunk
		}
		body = chunks
	}
	parse := parserOf(r.Header)
	if parse == nil {
		return input{}, errMediaType
	}
	data, err := readBody(r, body, maxBody)
	if err != nil {
		return input{}, err
	}
	in.body = parse(data)
	in.json = isJSON(r.Header)
	return in, nil
}

// readBody reads what is left of a request's body, up to this many bytes.
func readBody(r *http.Request, body io.Reader, largest int64) ([]byte, error) {
	if r.ContentLength > largest {
		return nil, errTooLarge
	}
	data, err := io.ReadAll(io.LimitReader(body, largest+1))
	switch {
	case int64(len(data)) > largest:
		return nil, errTooLarge
	case err != nil:
		return nil, bodyError(r, err)
	}
	return data, nil
}

// bodyError returns the error of a body that broke off. net/http ends the
// request's context when the connection did, and when it was cut off.
func bodyError(r *http.Request, err error) error {
	var known *problem
	if errors.As(err, &known) {
		return known
	}
	if err := r.Context().Err(); err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	return malformed("the body could not be read to its end")
}

const (
	typeJSON = "application/json"
	typeForm = "application/x-www-form-urlencoded"
)

// parserOf returns the parser of the body's content type, nil for other types
// and for encodings that are not read.
func parserOf(header http.Header) func(data []byte) place {
	switch kind, _ := mediaType(header); kind {
	case typeJSON:
		return parseJSON
	case typeForm:
		return func(data []byte) place { return parsePairs(string(data)) }
	}
	return nil
}

// mediaType returns the body's content type with its attributes, nothing for
// encodings that are not read.
func mediaType(header http.Header) (kind string, attributes map[string]string) {
	if encoding := header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return "", nil
	}
	kind, attributes, err := mime.ParseMediaType(header.Get("Content-Type"))
	charset, named := attributes["charset"]
	if err != nil || named && !strings.EqualFold(charset, "utf-8") {
		return "", nil
	}
	return kind, attributes
}

func isJSON(header http.Header) bool {
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	return kind == typeJSON
}

// key returns the presented key, or errNoKey where there is not exactly one in
// a place. The body's overrides the URL's, as with every parameter.
func (in input) key() (string, error) {
	if in.url.keyRefused || in.body.keyRefused {
		return "", errNoKey
	}
	key, given := in.body.values[keyParameter]
	if !given {
		key = in.url.values[keyParameter]
	}
	if key = strings.TrimSpace(key); key == "" {
		return "", errNoKey
	}
	return key, nil
}

// merge returns all parameters by name, the body's values over the URL's. The
// error says what is wrong with the text of either.
func (in input) merge(declared []v1alpha1.CustomField) (map[string]string, error) {
	if in.url.wrong != nil {
		return nil, in.url.wrong
	}
	body := in.body
	if in.json {
		body = decodeNames(body, declared)
	}
	if body.wrong != nil {
		return nil, body.wrong
	}
	merged := in.url.values
	for name, value := range body.values {
		merged[name] = value
	}
	return merged, nil
}
