package ingress

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

const (
	typeNDJSON = "application/x-ndjson"
	typeCSV    = "text/csv"
)

// maxLine is how many bytes a line may have.
const maxLine = 64 << 10

// lineReader reads a file line by line.
type lineReader interface {
	// next returns the parameters of the next line, and io.EOF behind the last.
	next() (place, error)
}

// lineReaderOf returns how to read a body of the request's content type, nil
// for other types and for encodings that are not read.
func lineReaderOf(header http.Header) func(body io.Reader) lineReader {
	kind, attributes, err := mime.ParseMediaType(header.Get("Content-Type"))
	charset, named := attributes["charset"]
	if err != nil || header.Get("Content-Encoding") != "" || named && !strings.EqualFold(charset, "utf-8") {
		return nil
	}
	switch kind {
	case typeNDJSON:
		return newNDJSONReader
	case typeCSV:
		return newCSVReader
	default:
		return nil
	}
}

func lineTooLong() error {
	return malformed(fmt.Sprintf("malformed request: a line must have at most %d bytes", maxLine))
}

// ndjsonReader reads a JSON object a line.
type ndjsonReader struct{ body *bufio.Reader }

func newNDJSONReader(body io.Reader) lineReader {
	return &ndjsonReader{body: bufio.NewReaderSize(body, maxLine)}
}

func (n *ndjsonReader) next() (place, error) {
	text, err := n.body.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return place{}, lineTooLong()
	case errors.Is(err, io.EOF) && len(text) > 0:
		return parseJSON(text), nil // the last line has no end
	case err != nil:
		return place{}, err
	}
	return parseJSON(text), nil
}

// csvReader reads records by RFC 4180. The first names the parameters; an empty
// cell is a parameter that is not given.
type csvReader struct {
	body    *budgetReader
	records *csv.Reader
	names   []string
}

func newCSVReader(body io.Reader) lineReader {
	budget := &budgetReader{body: body}
	records := csv.NewReader(budget)
	records.FieldsPerRecord = -1 // a wrong number is the line's error, not the file's
	return &csvReader{body: budget, records: records}
}

func (c *csvReader) next() (place, error) {
	if c.names == nil {
		names, err := c.record()
		if err != nil {
			return place{}, err
		}
		names[0] = strings.TrimPrefix(names[0], "\ufeff") // spreadsheets begin a file with it
		c.names = names
	}
	cells, err := c.record()
	if err != nil {
		return place{}, err
	}
	p := place{values: map[string]string{}}
	if len(cells) != len(c.names) {
		p.refuse(malformed(fmt.Sprintf("malformed request: the line has %d cells, the first line has %d", len(cells), len(c.names))))
	}
	for n, cell := range cells[:min(len(cells), len(c.names))] {
		if cell != "" {
			p.addText(c.names[n], cell)
		}
	}
	return p, nil
}

func (c *csvReader) record() ([]string, error) {
	c.body.left = maxLine
	record, err := c.records.Read()
	var syntax *csv.ParseError
	if errors.As(err, &syntax) {
		return nil, malformed("malformed request: the file is not CSV: " + syntax.Err.Error())
	}
	return record, err
}

// budgetReader bounds how much is read for one record: a quote that is never
// closed makes the rest of the file one.
type budgetReader struct {
	body io.Reader
	left int
}

// Read reads from the body until the budget is used up.
func (b *budgetReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, lineTooLong()
	}
	n, err := b.body.Read(p)
	b.left -= n
	return n, err
}
