package dispatcher

import (
	"context"
	"fmt"
	"net/http"

	"postbus.dev/postbus/internal/callback"
)

// target returns the URL of the callback and the headers of the spec.
func (c *caller) target(ctx context.Context, s *subscription) (address string, set http.Header, err error) {
	address = s.url
	if address == "" {
		if address, err = c.url.get(ctx, s, s.urlSecret); err != nil {
			return "", nil, err
		}
	}
	set = http.Header{}
	for _, header := range s.headers {
		value := header.value
		if header.secret.name != "" {
			if value, err = c.headerValues.get(ctx, s, header.secret); err != nil {
				return "", nil, err
			}
		}
		set.Set(header.name, value)
	}
	return address, set, nil
}

func parseURL(text []byte) (string, error) {
	parsed, err := callback.ParseURL(string(text))
	if err != nil {
		return "", fmt.Errorf("it %w", err)
	}
	return parsed.String(), nil
}
