package encoding

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"postbus.dev/postbus/internal/store"
)

// AppendAttempts returns the text that the last attempts are kept as, given the
// text of the earlier ones: a line of JSON for each, so that nothing of it is
// decoded to add to it.
func AppendAttempts(kept string, added []store.Attempt) (string, error) {
	text := bytes.NewBufferString(kept)
	encoder := json.NewEncoder(text) // which ends lines
	for i := range added {
		if err := encoder.Encode(&added[i]); err != nil {
			return "", fmt.Errorf("encode attempts: %w", err)
		}
	}
	return lastLines(text.String(), store.MaxAttempts), nil
}

// DecodeAttempts returns the last attempts of a text, oldest first. limit is how
// many to return at most.
func DecodeAttempts(kept string, limit int) (attempts []store.Attempt, err error) {
	for lines := json.NewDecoder(strings.NewReader(lastLines(kept, limit))); lines.More(); {
		var attempt store.Attempt
		if err := lines.Decode(&attempt); err != nil {
			return nil, fmt.Errorf("decode attempts: %w", err)
		}
		attempts = append(attempts, attempt)
	}
	return attempts, nil
}

// lastLines returns the last n lines of a text, or all where there are fewer.
func lastLines(text string, n int) string {
	for lines := strings.Count(text, "\n"); lines > n; lines-- {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text
}
