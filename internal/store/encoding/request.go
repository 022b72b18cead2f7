package encoding

import (
	"encoding/json"
	"fmt"

	"postbus.dev/postbus/internal/store"
)

// Request returns the text of what a request has no column of its own for.
func Request(request *store.Request) (string, error) {
	encoded, err := json.Marshal(request)
	if err != nil {
		return "", fmt.Errorf("encode a request of %s/%s: %w", request.Key.Namespace, request.Key.Name, err)
	}
	return string(encoded), nil
}

// DecodeRequest gives a request, whose columns were read, the rest.
func DecodeRequest(encoded []byte, request *store.Request) error {
	if err := json.Unmarshal(encoded, request); err != nil {
		return fmt.Errorf("decode a request of %s/%s: %w", request.Key.Namespace, request.Key.Name, err)
	}
	return nil
}
