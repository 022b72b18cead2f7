package encoding

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"postbus.dev/postbus/internal/store"
)

// Delivery are the columns of a delivery row that are JSON.
type Delivery struct {
	Open, Health, Life []byte
}

// EncodeDelivery returns the columns of a row.
func EncodeDelivery(row *store.Delivery) (columns Delivery, err error) {
	columns.Open, err = encodeOpen(row.Open)
	if err == nil {
		columns.Health, err = json.Marshal(row.Health)
	}
	if err == nil {
		columns.Life, err = json.Marshal(row.Life)
	}
	if err != nil {
		return columns, fmt.Errorf("encode the delivery state of %s/%s: %w", row.Key.Namespace, row.Key.Name, err)
	}
	return columns, nil
}

// Decode gives a row, whose other columns were read, the rest.
func (d Delivery) Decode(row *store.Delivery) (err error) {
	row.Open, err = decodeOpen(d.Open)
	if err == nil {
		err = json.Unmarshal(d.Health, &row.Health)
	}
	if err == nil {
		err = json.Unmarshal(d.Life, &row.Life)
	}
	if err != nil {
		return fmt.Errorf("decode the delivery state of %s/%s: %w", row.Key.Namespace, row.Key.Name, err)
	}
	return nil
}

// encodeOpen returns an array with the position of each event that nothing was tried
// with, and an object for each other one. There may be a thousand of the former in each
// of a thousand rows, and they are written several times a second.
func encodeOpen(open []store.OpenEvent) ([]byte, error) {
	column := []byte("[")
	for i := range open {
		if i > 0 {
			column = append(column, ',')
		}
		if open[i] == (store.OpenEvent{Position: open[i].Position}) {
			column = strconv.AppendInt(column, open[i].Position, 10)
			continue
		}
		object, err := json.Marshal(&open[i])
		if err != nil {
			return nil, err
		}
		column = append(column, object...)
	}
	return append(column, ']'), nil
}

func decodeOpen(column []byte) ([]store.OpenEvent, error) {
	var elements []json.RawMessage
	if err := json.Unmarshal(column, &elements); err != nil {
		return nil, err
	}
	var open []store.OpenEvent
	for _, element := range elements {
		var (
			event store.OpenEvent
			into  any = &event.Position
		)
		if bytes.HasPrefix(element, []byte("{")) {
			into = &event
		}
		if err := json.Unmarshal(element, into); err != nil {
			return nil, err
		}
		open = append(open, event)
	}
	return open, nil
}
