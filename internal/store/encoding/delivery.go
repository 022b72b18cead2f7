package encoding

import (
	"encoding/json"
	"fmt"

	"postbus.dev/postbus/internal/store"
)

// Delivery are the columns of a delivery row that are JSON.
type Delivery struct {
	Open, Health, Life []byte
}

// EncodeDelivery returns the columns of a row.
func EncodeDelivery(row *store.Delivery) (columns Delivery, err error) {
	for _, part := range []struct {
		of   any
		into *[]byte
	}{{row.Open, &columns.Open}, {row.Health, &columns.Health}, {row.Life, &columns.Life}} {
		if *part.into, err = json.Marshal(part.of); err != nil {
			return columns, fmt.Errorf("encode the delivery state of %s/%s: %w", row.Key.Namespace, row.Key.Name, err)
		}
	}
	return columns, nil
}

// Decode gives a row, whose other columns were read, the rest.
func (d Delivery) Decode(row *store.Delivery) error {
	for _, part := range []struct {
		title   string
		encoded []byte
		into    any
	}{{"open events", d.Open, &row.Open}, {"health", d.Health, &row.Health}, {"life", d.Life, &row.Life}} {
		if err := json.Unmarshal(part.encoded, part.into); err != nil {
			return fmt.Errorf("decode the %s of %s/%s: %w", part.title, row.Key.Namespace, row.Key.Name, err)
		}
	}
	return nil
}
