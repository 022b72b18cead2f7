// Package expression answers: what does a subscription's own expression make of an
// event?
//
// Expressions are CEL (cel.dev) over one variable, event. A filter says whether an
// event is sent, a template what is sent of it. The controller compiles them when
// they are applied, to refuse those that are wrong or could cost too much; the
// dispatcher evaluates them, and stops one that costs too much all the same. Nothing
// outside the event can be reached, and the same event gives the same result.
package expression

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"

	"postbus.dev/postbus/internal/contact"
)

// limits bound what an expression may cost, in CEL's units. Of each pair the first
// holds for the estimate of the worst case, and the second for what one evaluation
// really costs; the API server has a factor of ten between them, too
// (StaticEstimatedCostLimit in k8s.io/apiextensions-apiserver, PerCallLimit in
// k8s.io/apiserver/pkg/apis/cel).
type limits struct{ estimated, actual uint64 }

var (
	// templateLimits are the API server's own: some 0.1 s an evaluation.
	templateLimits = limits{estimated: 10_000_000, actual: 1_000_000}
	// filterLimits are a hundredth of it, because a filter runs for every event of
	// the namespace.
	filterLimits = limits{estimated: 100_000, actual: 10_000}
)

const (
	// maxDuration is how long one evaluation may take by the clock. The cost limit ends an
	// evaluation within some 50 ms of CPU time, for each event alike. This limit is for what the
	// cost does not cover, and long enough that a starved machine fails no event by it.
	maxDuration = 10 * time.Second
	// interruptCheck is after how many turns of loops an evaluation looks at the clock.
	interruptCheck = 64
)

// Error says what is wrong with an expression, and where.
type Error struct {
	// Line and Column are counted from 1.
	Line, Column int
	// Message says what is wrong. It has nothing of an event in it.
	Message string
}

// Error returns place and message.
func (e *Error) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message) }

// program is a compiled expression.
type program struct {
	source string
	ast    *cel.Ast
	cel    cel.Program
	// atMost is how long one evaluation may take.
	atMost time.Duration
}

// compile checks and compiles an expression whose result fits, which wanted names
// in words. The error is an *Error.
func compile(source string, limits limits, fits func(*cel.Type) bool, wanted string) (*program, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	checked, issues := env.Compile(source)
	if problems := issues.Errors(); len(problems) > 0 {
		return nil, at(problems[0].Location, problems[0].Message)
	}
	start := common.NewLocation(1, 0)
	if !fits(checked.OutputType()) {
		return nil, at(start, fmt.Sprintf("the result is %s, it must be %s", cel.FormatCELType(checked.OutputType()), wanted))
	}
	cost, err := env.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, at(start, "the cost can't be estimated")
	}
	if cost.Max > limits.estimated {
		return nil, at(start, fmt.Sprintf("it could cost up to %d, the limit is %d", cost.Max, limits.estimated))
	}
	compiled, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostTracking(chargesOf(checked)), cel.CostLimit(limits.actual),
		cel.InterruptCheckFrequency(interruptCheck))
	if err != nil {
		return nil, at(start, err.Error())
	}
	return &program{source: source, ast: checked, cel: compiled, atMost: maxDuration}, nil
}

func at(place common.Location, message string) *Error {
	return &Error{Line: max(1, place.Line()), Column: max(1, place.Column()+1), Message: message}
}

// chargesOf returns what an evaluation is charged by.
func chargesOf(compiled *cel.Ast) charges {
	c := charges{programs: map[string]int{}}
	for _, call := range ast.MatchDescendants(ast.NavigateAST(compiled.NativeRep()), ast.FunctionMatcher(overloads.Matches)) {
		args := call.AsCall().Args()
		if pattern, constant := literalText(args[len(args)-1]); constant {
			c.programs[pattern], _ = programSize(pattern) // it was compiled before
		}
	}
	return c
}

// evaluate returns what the expression makes of an event. The error is an *Error.
func (p *program) evaluate(event *contact.Event) (ref.Val, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.atMost) //nolint:forbidigo // it computes, waits for nothing, and ends by itself
	defer cancel()
	result, _, err := p.cel.ContextEval(ctx, map[string]any{variable: event})
	if err != nil {
		return nil, p.failure(err)
	}
	return result, nil
}

// harmless are the beginnings of errors that may be told: what follows them can be
// somebody's data, and is left out.
var harmless = []string{
	"no such key", "no such overload", "no such attribute", "no such field", "index out of bounds", "division by zero",
	"modulus by zero", "integer overflow", "unsigned integer overflow", "duration overflow", "timestamp overflow", "type conversion error",
}

// failure returns the error of an evaluation, without what it says of the event.
func (p *program) failure(err error) *Error {
	place := common.NewLocation(1, 0)
	var found *types.Err
	if errors.As(err, &found) && found.NodeID() > 0 {
		place = p.ast.NativeRep().SourceInfo().GetStartLocation(found.NodeID())
	}
	if errors.Is(err, interpreter.InterruptError{}) {
		return at(place, "it took longer than one evaluation may")
	}
	var cancelled interpreter.EvalCancelledError
	if errors.As(err, &cancelled) && cancelled.Cause == interpreter.CostLimitExceeded {
		return at(place, "it cost more than one evaluation may")
	}
	for _, known := range harmless {
		if strings.HasPrefix(err.Error(), known) {
			return at(place, known)
		}
	}
	return at(place, "it has no result")
}

// Filter says which events are sent. It is safe for concurrent use.
type Filter struct{ program *program }

// CompileFilter compiles a filter. Equal sources give the same Filter while it is
// in use. The error is an *Error.
func CompileFilter(source string) (*Filter, error) {
	return filters.get(source, func() (*Filter, error) {
		compiled, err := compile(source, filterLimits, isKind(types.BoolKind, types.DynKind), "a bool")
		if err != nil {
			return nil, err
		}
		return &Filter{program: compiled}, nil
	})
}

// Matches tells whether an event is sent. The error is an *Error.
func (f *Filter) Matches(event *contact.Event) (bool, error) {
	result, err := f.program.evaluate(event)
	if err != nil {
		return false, err
	}
	matches, ok := result.(types.Bool)
	if !ok {
		return false, &Error{Line: 1, Column: 1, Message: "the result is not a bool"}
	}
	return bool(matches), nil
}

// Template says what is sent of an event. It is safe for concurrent use.
type Template struct{ program *program }

// CompileTemplate compiles a template. Equal sources give the same Template while
// it is in use. The error is an *Error.
func CompileTemplate(source string) (*Template, error) {
	return templates.get(source, func() (*Template, error) {
		fits := isKind(types.MapKind, types.ListKind, types.StructKind, types.DynKind)
		compiled, err := compile(source, templateLimits, fits, "a map or a list")
		if err != nil {
			return nil, err
		}
		return &Template{program: compiled}, nil
	})
}

// Render returns what is sent of an event, in JSON: the same bytes each time, at
// most MaxJSON of them. The error is an *Error.
func (t *Template) Render(event *contact.Event) ([]byte, error) {
	result, err := t.program.evaluate(event)
	if err != nil {
		return nil, err
	}
	text, err := toJSON(result)
	if err != nil {
		return nil, &Error{Line: 1, Column: 1, Message: err.Error()}
	}
	return text, nil
}

func isKind(kinds ...types.Kind) func(*cel.Type) bool {
	return func(result *cel.Type) bool {
		for _, kind := range kinds {
			if result.Kind() == kind {
				return true
			}
		}
		return false
	}
}
