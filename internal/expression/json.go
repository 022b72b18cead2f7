package expression

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// MaxJSON is how many bytes a template may give: 1 MiB.
const MaxJSON = 1 << 20

// The reasons why a result has no JSON. None shows the result.
var (
	errTooLong = errors.New("the result is longer than 1 MiB")
	errNoJSON  = errors.New("the result has something in it that JSON has not")
	errNoBody  = errors.New("the result is not a map or a list")
)

// toJSON writes a map, a list or an object as JSON: keys in their order, times by
// RFC 3339, bytes in Base64, durations as seconds (1.5s), as CEL converts them. It
// ends at MaxJSON, because a list can be longer than anybody has paid for.
func toJSON(value ref.Val) ([]byte, error) {
	switch value.(type) {
	case traits.Mapper, traits.Lister, *object:
	default:
		return nil, errNoBody
	}
	var w writer
	if err := w.write(value); err != nil {
		return nil, err
	}
	return w.Bytes(), nil
}

// writer writes CEL values as JSON.
type writer struct{ bytes.Buffer }

func (w *writer) write(value ref.Val) error {
	switch value := value.(type) {
	case *object:
		return w.writeObject(value)
	case traits.Mapper:
		return w.writeMap(value)
	case traits.Lister:
		return w.writeList(value)
	case types.Null:
		return w.scalar(nil)
	case types.Timestamp:
		return w.scalar(value.Time.UTC().Format(time.RFC3339Nano))
	case types.Duration:
		return w.scalar(string(value.ConvertToType(types.StringType).(types.String)))
	case types.Bool, types.Int, types.Uint, types.Double, types.String, types.Bytes:
		return w.scalar(value.Value())
	default:
		return errNoJSON
	}
}

func (w *writer) scalar(value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return errNoJSON
	}
	return w.put(string(text))
}

// put writes text, as long as there is room.
func (w *writer) put(text string) error {
	if w.Len()+len(text) > MaxJSON {
		return errTooLong
	}
	w.WriteString(text)
	return nil
}

func (w *writer) writeList(list traits.Lister) error {
	separator := "["
	for it := list.Iterator(); it.HasNext() == types.True; separator = "," {
		if err := w.put(separator); err != nil {
			return err
		}
		if err := w.write(it.Next()); err != nil {
			return err
		}
	}
	return w.end(separator, "[", "]")
}

func (w *writer) writeMap(m traits.Mapper) error {
	var keys []string
	for it := m.Iterator(); it.HasNext() == types.True; {
		key, ok := it.Next().(types.String)
		if !ok {
			return errNoJSON
		}
		keys = append(keys, string(key))
	}
	slices.Sort(keys)
	separator := "{"
	for _, key := range keys {
		if err := w.pair(separator, key, m.Get(types.String(key))); err != nil {
			return err
		}
		separator = ","
	}
	return w.end(separator, "{", "}")
}

// writeObject leaves out what is not set.
func (w *writer) writeObject(o *object) error {
	separator := "{"
	for _, name := range o.kind.names {
		index := types.String(name)
		if o.IsSet(index) != types.True {
			continue
		}
		if err := w.pair(separator, name, o.Get(index)); err != nil {
			return err
		}
		separator = ","
	}
	return w.end(separator, "{", "}")
}

func (w *writer) pair(separator, key string, value ref.Val) error {
	if err := w.put(separator); err != nil {
		return err
	}
	if err := w.scalar(key); err != nil {
		return err
	}
	if err := w.put(":"); err != nil {
		return err
	}
	return w.write(value)
}

// end closes a list or a map, which has to be opened first when it is empty.
func (w *writer) end(separator, opening, closing string) error {
	if separator == opening {
		closing = opening + closing
	}
	return w.put(closing)
}
