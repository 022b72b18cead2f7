package expression

import (
	"runtime"
	"sync"
	"weak"
)

// What is compiled and in use. Thousands of subscriptions may have one filter, and
// a subscription is made anew whenever its object changes.
var (
	filters   shared[Filter]
	templates shared[Template]
)

// shared has what was made of sources, as long as somebody else holds it.
type shared[T any] struct {
	bySource sync.Map // string to weak.Pointer[T]
}

// get returns what was made of a source, or makes it.
func (s *shared[T]) get(source string, compile func() (*T, error)) (*T, error) {
	for {
		held, found := s.bySource.Load(source)
		if found {
			if value := held.(weak.Pointer[T]).Value(); value != nil {
				return value, nil
			}
			s.bySource.CompareAndDelete(source, held)
		}
		value, err := compile()
		if err != nil {
			return nil, err
		}
		pointer := weak.Make(value)
		if _, taken := s.bySource.LoadOrStore(source, pointer); taken {
			continue // another one was faster
		}
		runtime.AddCleanup(value, func(source string) { s.bySource.CompareAndDelete(source, pointer) }, source)
		return value, nil
	}
}
