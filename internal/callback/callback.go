// Package callback answers: what may be said of a callback by a Secret?
//
// What stands in the object is checked by its schema when it is applied. What a
// Secret holds is not seen then, so the controller looks at it later, by the same
// rules, and the dispatcher reads it in the same way. No error shows what a Secret
// holds.
package callback

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// The bounds of URLs and headers, which are those of the schema too.
const (
	maxURLLength   = 2048
	maxValueLength = 4096
	// maxHostLength is the length of the longest host name, by RFC 1035.
	maxHostLength = 253
)

// ParseURL parses a callback's URL. A line end behind it is left out. Its errors
// are ends of sentences that begin with the URL: "has no host". Whether it may be
// called is the guard's to say.
func ParseURL(text string) (*url.URL, error) {
	text = withoutLineEnd(text)
	if len(text) > maxURLLength {
		return nil, fmt.Errorf("has more than %d characters", maxURLLength)
	}
	parsed, err := url.Parse(text)
	if err != nil || parsed.Hostname() == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return nil, errors.New("is not an absolute http or https URL")
	}
	switch {
	case parsed.User != nil:
		return nil, errors.New("has a user name or password in it")
	case strings.Contains(text, "#"):
		return nil, errors.New("has a fragment, which is never sent")
	case len(parsed.Hostname()) > maxHostLength:
		return nil, fmt.Errorf("has a host of more than %d characters", maxHostLength)
	}
	if port := parsed.Port(); port != "" {
		if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
			return nil, errors.New("has a port outside 1 to 65535")
		}
	}
	return parsed, nil
}

// headerValue is what a header's value may be (RFC 9110, 5.5), in ASCII alone.
var headerValue = regexp.MustCompile(`^[\x21-\x7e]([\t\x20-\x7e]*[\x21-\x7e])?$`)

// ParseHeaderValue returns the value of a header, without a line end behind it. Its
// errors are ends of sentences that begin with the value.
func ParseHeaderValue(text []byte) (string, error) {
	value := withoutLineEnd(string(text))
	switch {
	case value == "":
		return "", errors.New("is empty")
	case len(value) > maxValueLength:
		return "", fmt.Errorf("has more than %d characters", maxValueLength)
	case strings.ContainsAny(value, "\r\n"):
		return "", errors.New("has a line break in it")
	case !headerValue.MatchString(value):
		return "", errors.New("has other than visible characters of ASCII with spaces and tabs between them")
	}
	return value, nil
}

// withoutLineEnd drops the line end that editors and echo write behind a text.
func withoutLineEnd(text string) string {
	if line, ended := strings.CutSuffix(text, "\n"); ended {
		return strings.TrimSuffix(line, "\r")
	}
	return text
}
