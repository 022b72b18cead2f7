package ingress

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// place is one place that parameters come in: the URL or the body.
type place struct {
	values map[string]string
	// keyRefused tells that the parameter "key" is there, but not exactly once
	// with a plain value.
	keyRefused bool
	// wrong is the first thing that is wrong with the text, nil when nothing
	// is. Values that stand beside it are kept: the key is checked first.
	wrong error
}

// maxParameters is how many parameters one place may have, more than all that
// have a name and 200 custom fields. What a million would take in memory is
// many times their text.
const maxParameters = 1000

func (p *place) add(name, value string) {
	if _, given := p.values[name]; given {
		p.refuse(tooManyValues(name))
		p.keyRefused = p.keyRefused || name == keyParameter
		return
	}
	if len(p.values) >= maxParameters && name != keyParameter {
		p.refuse(malformed("malformed request: there are more than " + strconv.Itoa(maxParameters) + " parameters"))
		return
	}
	p.values[name] = value
}

// size returns how many bytes of text the place holds.
func (p *place) size() (bytes int) {
	for name, value := range p.values {
		bytes += len(name) + len(value)
	}
	return bytes
}

func (p *place) refuse(err error) {
	if p.wrong == nil {
		p.wrong = err
	}
}

// parsePairs reads name=value pairs as forms and URLs have them. Unlike
// url.ParseQuery it takes a semicolon for what it is to browsers: a character.
func parsePairs(text string) place {
	p := place{values: map[string]string{}}
	for pair := range strings.SplitSeq(text, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			p.refuse(malformed("malformed request: the name of a parameter is not percent-encoded correctly"))
			continue
		}
		if value, err = url.QueryUnescape(value); err != nil {
			p.refuseText(name, "is not percent-encoded correctly")
			continue
		}
		p.addText(name, value)
	}
	return p
}

// addText is add for what may be no UTF-8.
func (p *place) addText(name, value string) {
	switch {
	case !utf8.ValidString(name):
		p.refuse(malformed("malformed request: the names of parameters must be valid UTF-8"))
	case !utf8.ValidString(value):
		p.refuseText(name, "must be valid UTF-8")
	default:
		p.add(name, value)
	}
}

// refuseText refuses a value that can't be read.
func (p *place) refuseText(name, rule string) {
	p.keyRefused = p.keyRefused || name == keyParameter
	name = contact.Shorten(name)
	p.refuse(&problem{
		status: http.StatusBadRequest, code: "Malformed", parameter: name,
		message: "malformed request: " + name + " " + rule,
	})
}

// parseJSON reads one object of strings, numbers and booleans. Members that
// stand before an error are kept.
func parseJSON(data []byte) place {
	p := place{values: map[string]string{}}
	switch {
	case !utf8.Valid(data):
		p.refuse(malformed("malformed request: the body must be valid UTF-8"))
	case !json.Valid(data):
		p.refuse(malformed("malformed request: the body must be one JSON object"))
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		p.refuse(malformed("malformed request: the body must be one JSON object"))
		return p
	}
	for decoder.More() {
		if err := p.addMember(decoder); err != nil {
			return p // json.Valid has refused it
		}
	}
	return p
}

func (p *place) addMember(decoder *json.Decoder) error {
	token, err := decoder.Token()
	if err != nil {
		return err
	}
	name, _ := token.(string) // a member's name is nothing else
	token, err = decoder.Token()
	if err != nil {
		return err
	}
	switch value := token.(type) {
	case string:
		p.add(name, value)
	case json.Number:
		p.add(name, value.String())
	case bool:
		p.add(name, strconv.FormatBool(value))
	case json.Delim:
		p.refuseValue(name)
		return skip(decoder)
	default: // null
		p.refuseValue(name)
	}
	return nil
}

// refuseValue refuses a value that is not plain.
func (p *place) refuseValue(name string) {
	p.keyRefused = p.keyRefused || name == keyParameter
	name = contact.Shorten(name)
	p.refuse(&problem{
		status: http.StatusBadRequest, code: "IllegalValue", parameter: name,
		message: "illegal parameter value: " + name + " must be a string, a number, true or false",
	})
}

// skip reads on to the end of the array or object that has just begun.
func skip(decoder *json.Decoder) error {
	for depth := 1; depth > 0; {
		token, err := decoder.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('['), json.Delim('{'):
			depth++
		case json.Delim(']'), json.Delim('}'):
			depth--
		}
	}
	return nil
}

// decodeNames returns the members of a JSON body with the names of custom
// fields as the list declares them. The vendor asks for percent-encoded names
// in every form, which JSON does not need; so a declared name is taken as it
// is, and decoded only when it is none.
func decodeNames(body place, declared []v1alpha1.CustomField) place {
	decoded := place{values: map[string]string{}, keyRefused: body.keyRefused, wrong: body.wrong}
	for _, name := range slices.Sorted(maps.Keys(body.values)) {
		decoded.add(decodeName(name, declared), body.values[name])
	}
	return decoded
}

func decodeName(name string, declared []v1alpha1.CustomField) string {
	field, custom := strings.CutPrefix(name, contact.CustomPrefix)
	if !custom || isDeclared(declared, field) {
		return name
	}
	if plain, err := url.QueryUnescape(field); err == nil && isDeclared(declared, plain) {
		return contact.CustomPrefix + plain
	}
	return name
}

func isDeclared(declared []v1alpha1.CustomField, name string) bool {
	return slices.ContainsFunc(declared, func(field v1alpha1.CustomField) bool { return field.Name == name })
}
