package encoding

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"postbus.dev/postbus/internal/store"
)

// Delivery are the columns of a delivery row that are JSON.
type Delivery struct {
	Open, Health, Life []byte
}

// EncodeDelivery returns the columns of a row.
func EncodeDelivery(row *store.Delivery) (columns Delivery, err error) {
	columns.Open = encodeOpen(row.Open)
	columns.Health, err = json.Marshal(row.Health)
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
// with, and for each other one an array of numbers. There may be a thousand of them in
// each of a thousand rows, and they are written several times a second.
func encodeOpen(open []store.OpenEvent) []byte {
	column := []byte("[")
	for i := range open {
		if i > 0 {
			column = append(column, ',')
		}
		column = appendOpenEvent(column, &open[i])
	}
	return append(column, ']')
}

// openNumbers is how many numbers an event has that something was tried with: position,
// 1 when a replay sends it, attempts, retries, and its times in microseconds: the first
// attempt's since 1970, the next one's since the first, the end of the wait since the
// next. A notice that had to wait has one more: how many deactivations it tells of.
const openNumbers = 7

func appendOpenEvent(column []byte, event *store.OpenEvent) []byte {
	if *event == (store.OpenEvent{Position: event.Position}) {
		return strconv.AppendInt(column, event.Position, 10)
	}
	replayed := int64(0)
	if event.Replayed {
		replayed = 1
	}
	first, next, waitEnds := event.FirstAttempt.UnixMicro(), event.NextAttempt.UnixMicro(), event.WaitEnds.UnixMicro()
	separator := byte('[')
	for _, number := range [openNumbers]int64{
		event.Position, replayed, int64(event.Attempts), int64(event.Retries), first, next - first, waitEnds - next,
	} {
		column = strconv.AppendInt(append(column, separator), number, 10)
		separator = ','
	}
	if event.Held != 0 {
		column = strconv.AppendInt(append(column, separator), int64(event.Held), 10)
	}
	return append(column, ']')
}

func decodeOpen(column []byte) ([]store.OpenEvent, error) {
	var elements []json.RawMessage
	if err := json.Unmarshal(column, &elements); err != nil {
		return nil, err
	}
	open := make([]store.OpenEvent, len(elements))
	for i, element := range elements {
		if err := decodeOpenEvent(element, &open[i]); err != nil {
			return nil, err
		}
	}
	return open, nil
}

func decodeOpenEvent(element []byte, event *store.OpenEvent) error {
	if !bytes.HasPrefix(element, []byte("[")) {
		return json.Unmarshal(element, &event.Position)
	}
	var numbers [openNumbers + 1]int64
	if err := json.Unmarshal(element, &numbers); err != nil {
		return err
	}
	first := numbers[4]
	next := first + numbers[5]
	*event = store.OpenEvent{
		Position: numbers[0], Replayed: numbers[1] == 1, Attempts: int(numbers[2]), Retries: int(numbers[3]),
		FirstAttempt: time.UnixMicro(first).UTC(), NextAttempt: time.UnixMicro(next).UTC(), WaitEnds: time.UnixMicro(next + numbers[6]).UTC(),
		Held: int(numbers[openNumbers]),
	}
	return nil
}
