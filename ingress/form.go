package ingress

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
)

// maxForm is how many bytes a form of a page may have, many times what its
// fields hold.
const maxForm = 64 << 10

// typeMultipart is the other form of RFC 8058's one-click body (section 3.1).
const typeMultipart = "multipart/form-data"

// readForm returns what the form of a page sent; its URL says nothing but which
// page it is.
func readForm(r *http.Request) (map[string]string, error) {
	data, err := readBody(r, r.Body, maxForm)
	if err != nil || len(data) == 0 {
		return nil, err
	}
	var form place
	switch kind, attributes := mediaType(r.Header); kind {
	case typeForm:
		form = parsePairs(string(data))
	case typeMultipart:
		form = parseMultipart(data, attributes["boundary"])
	default:
		return nil, errMediaType
	}
	return form.values, form.wrong
}

// parseMultipart reads the parts of a form by RFC 7578. A form of ours has no
// files.
func parseMultipart(data []byte, boundary string) place {
	p := place{values: map[string]string{}}
	parts := multipart.NewReader(bytes.NewReader(data), boundary)
	for {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return p
		}
		var value []byte
		if err == nil {
			value, err = io.ReadAll(part)
		}
		if err != nil || part.FileName() != "" {
			p.refuse(malformed("malformed request: the body must be a form without files"))
			return p
		}
		p.addText(part.FormName(), string(value))
	}
}
