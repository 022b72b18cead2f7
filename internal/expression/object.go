package expression

import (
	"fmt"
	"reflect"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// kind is a type of object that expressions see: a Go pointer or map, and how each
// field of it is read. So nothing of an event is copied but what an expression asks
// for.
type kind struct {
	celType *cel.Type
	// names are the fields' in the order in which JSON has them.
	names  []string
	fields map[string]*types.FieldType
}

// field is one of a kind's fields.
type field struct {
	name    string
	celType *cel.Type
	// get returns the field's value, and its empty value with false where it is not
	// set: has() is false then.
	get func(object any) (value any, set bool)
}

func newKind(name string, fields ...field) *kind {
	k := &kind{
		celType: types.NewObjectType("postbus."+name, traits.FieldTesterType, traits.IndexerType),
		fields:  map[string]*types.FieldType{},
	}
	for _, f := range fields {
		k.names = append(k.names, f.name)
		k.fields[f.name] = &types.FieldType{
			Type:  f.celType,
			IsSet: func(object any) bool { _, set := f.get(object); return set },
			GetFrom: func(object any) (any, error) {
				value, _ := f.get(object)
				return value, nil
			},
		}
	}
	return k
}

// provider tells CEL of the kinds, and makes their objects of Go values.
type provider struct {
	*types.Registry
	kinds map[string]*kind
}

func newProvider() (*provider, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	p := &provider{Registry: registry, kinds: map[string]*kind{}}
	for _, k := range []*kind{eventKind, contactKind, standardFieldsKind, reasonKind, operationKind} {
		p.kinds[k.celType.TypeName()] = k
	}
	return p, nil
}

// FindStructType implements types.Provider.
func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if k, ours := p.kinds[name]; ours {
		return types.NewTypeTypeWithParam(k.celType), true
	}
	return p.Registry.FindStructType(name)
}

// FindStructFieldNames implements types.Provider.
func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	if k, ours := p.kinds[name]; ours {
		return k.names, true
	}
	return p.Registry.FindStructFieldNames(name)
}

// FindStructFieldType implements types.Provider.
func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if k, ours := p.kinds[name]; ours {
		found, ok := k.fields[field]
		return found, ok
	}
	return p.Registry.FindStructFieldType(name, field)
}

// NativeToValue implements types.Adapter.
func (p *provider) NativeToValue(value any) ref.Val {
	if k := kindOf(value); k != nil {
		return &object{kind: k, value: value, adapter: p}
	}
	return p.Registry.NativeToValue(value)
}

// object is a value of a kind.
type object struct {
	kind    *kind
	value   any
	adapter types.Adapter
}

// Get implements traits.Indexer.
func (o *object) Get(index ref.Val) ref.Val {
	found, ok := o.field(index)
	if !ok {
		return types.NewErr("no such field")
	}
	value, err := found.GetFrom(o.value)
	if err != nil {
		return types.WrapErr(err)
	}
	return o.adapter.NativeToValue(value)
}

// IsSet implements traits.FieldTester.
func (o *object) IsSet(index ref.Val) ref.Val {
	found, ok := o.field(index)
	if !ok {
		return types.NewErr("no such field")
	}
	return types.Bool(found.IsSet(o.value))
}

func (o *object) field(index ref.Val) (*types.FieldType, bool) {
	name, ok := index.(types.String)
	if !ok {
		return nil, false
	}
	found, ok := o.kind.fields[string(name)]
	return found, ok
}

// ConvertToNative implements ref.Val. Objects leave an expression through toJSON.
func (o *object) ConvertToNative(target reflect.Type) (any, error) {
	return nil, fmt.Errorf("type conversion error from %s to %s", o.kind.celType, target)
}

// ConvertToType implements ref.Val.
func (o *object) ConvertToType(target ref.Type) ref.Val {
	switch target.TypeName() {
	case types.TypeType.TypeName():
		return o.kind.celType
	case o.kind.celType.TypeName():
		return o
	default:
		return types.NewErr("type conversion error from %s to %s", o.kind.celType, target.TypeName())
	}
}

// Equal implements ref.Val.
func (o *object) Equal(other ref.Val) ref.Val {
	another, ok := other.(*object)
	return types.Bool(ok && o.kind == another.kind && reflect.DeepEqual(o.value, another.value))
}

// Type implements ref.Val.
func (o *object) Type() ref.Type { return o.kind.celType }

// Value implements ref.Val.
func (o *object) Value() any { return o.value }
