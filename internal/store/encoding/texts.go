package encoding

import (
	"encoding/json"
	"fmt"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// Texts returns the text that the texts of a list are kept as.
func Texts(list contact.ListKey, texts *store.ListTexts) (string, error) {
	encoded, err := json.Marshal(texts)
	if err != nil {
		return "", fmt.Errorf("encode the texts of %s/%s: %w", list.Namespace, list.Name, err)
	}
	return string(encoded), nil
}

// DecodeTexts returns what Texts has encoded.
func DecodeTexts(list contact.ListKey, encoded []byte) (texts store.ListTexts, err error) {
	if err := json.Unmarshal(encoded, &texts); err != nil {
		return texts, fmt.Errorf("decode the texts of %s/%s: %w", list.Namespace, list.Name, err)
	}
	return texts, nil
}
