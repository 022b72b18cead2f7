package callback

import (
	"errors"
	"fmt"
	"regexp"
)

// The data keys of the Secret with the credentials of an OAuth2 client.
const (
	ClientIDKey     = "client-id"
	ClientSecretKey = "client-secret"
)

// credential is what the two may be (RFC 6749, A.1 and A.2).
var credential = regexp.MustCompile(`^[\x20-\x7e]+$`)

// ParseCredential returns a client's id or its secret, without a line end behind it.
// Its errors are ends of sentences that begin with the value.
func ParseCredential(text []byte) (string, error) {
	value := withoutLineEnd(string(text))
	switch {
	case value == "":
		return "", errors.New("is empty")
	case len(value) > maxValueLength:
		return "", fmt.Errorf("has more than %d characters", maxValueLength)
	case !credential.MatchString(value):
		return "", errors.New("has other than visible characters of ASCII and spaces")
	}
	return value, nil
}
