package expression

import (
	"math"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
)

const (
	// maxCompared is how many values a list or a map that is compared may have in it, those in
	// lists in it included, where their number is not in its cost. CEL charges a comparison by
	// the outermost list. Thirty lists, each with the one before it twice, are 2^30 values.
	maxCompared = 500
	// maxSought is the same for what is sought in a list, which is compared with each element.
	maxSought = 50
	// splitParts is how many parts a text may be split into, as far as its cost allows.
	splitParts = 10_000
)

// boundedComparisons is a validator that refuses to compare lists of lists that grow.
type boundedComparisons struct{}

// Name implements cel.ASTValidator.
func (boundedComparisons) Name() string { return "postbus.validator.bounded_comparisons" }

// Validate implements cel.ASTValidator.
func (boundedComparisons) Validate(_ *cel.Env, _ cel.ValidatorConfig, tree *ast.AST, issues *cel.Issues) {
	c := counter{tree: tree, issues: issues, bound: map[string]uint64{variable: maxCompared}}
	c.count(tree.Expr())
}

// counter counts how many values the result of an expression can have in it.
type counter struct {
	tree   *ast.AST
	issues *cel.Issues
	// bound are the values in each variable.
	bound map[string]uint64
}

func (c *counter) count(e ast.Expr) (values uint64) {
	values = 1
	switch e.Kind() {
	case ast.IdentKind:
		if known, is := c.bound[e.AsIdent()]; is {
			values = known
		}
	case ast.SelectKind:
		values = c.count(e.AsSelect().Operand())
	case ast.ListKind:
		for _, element := range e.AsList().Elements() {
			values = plus(values, c.count(element))
		}
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			values = plus(values, plus(c.count(entry.AsMapEntry().Key()), c.count(entry.AsMapEntry().Value())))
		}
	case ast.CallKind:
		values = c.countCall(e)
	case ast.ComprehensionKind:
		values = c.countLoop(e.AsComprehension())
	default: // a literal is one value
	}
	if isScalar(c.tree.GetType(e.ID())) {
		return 1
	}
	return values
}

func (c *counter) countCall(e ast.Expr) uint64 {
	call := e.AsCall()
	var args []ast.Expr
	if call.IsMemberFunction() {
		args = append(args, call.Target())
	}
	args = append(args, call.Args()...)
	counts, sum := make([]uint64, len(args)), uint64(1)
	for i, arg := range args {
		counts[i] = c.count(arg)
		sum = plus(sum, counts[i])
	}
	switch call.FunctionName() {
	case operators.Equals, operators.NotEquals:
		c.check(e, args, counts, maxCompared)
	case operators.In, operators.OldIn, "sets.contains", "sets.equivalent", "sets.intersects":
		c.check(e, args, counts, maxSought)
	case operators.Conditional:
		return max(counts[1], counts[2])
	case operators.Index, operators.OptIndex, operators.OptSelect:
		return counts[0]
	case "split":
		return splitParts
	}
	return sum
}

// check refuses a comparison unless one of the two has few values, or its values are all
// in its cost.
func (c *counter) check(e ast.Expr, args []ast.Expr, counts []uint64, most uint64) {
	if len(args) != 2 {
		return
	}
	for i, arg := range args {
		if counts[i] <= most || isFlat(c.tree.GetType(arg.ID())) {
			return
		}
	}
	c.issues.ReportErrorAtID(e.ID(), "lists or maps that have others in them are compared, of up to %d values, the limit is %d", min(counts[0], counts[1]), most)
}

// countLoop counts what a macro makes, and cel.bind, which is a loop without a turn.
func (c *counter) countLoop(loop ast.ComprehensionExpr) uint64 {
	turns, first := c.count(loop.IterRange()), c.count(loop.AccuInit())
	defer c.bind(loop.IterVar(), turns)()
	if loop.HasIterVar2() {
		defer c.bind(loop.IterVar2(), turns)()
	}
	unbind := c.bind(loop.AccuVar(), 0)
	c.count(loop.LoopCondition())
	each := c.count(loop.LoopStep())
	unbind()
	if r := loop.IterRange(); r.Kind() == ast.ListKind && r.AsList().Size() == 0 {
		each = 0
	}
	defer c.bind(loop.AccuVar(), plus(first, times(turns, each)))()
	return c.count(loop.Result())
}

// bind binds a variable, and returns what ends that.
func (c *counter) bind(name string, values uint64) (unbind func()) {
	before, was := c.bound[name]
	c.bound[name] = values
	return func() {
		if was {
			c.bound[name] = before
		} else {
			delete(c.bound, name)
		}
	}
}

func isScalar(t *types.Type) bool {
	switch t.Kind() {
	case types.BoolKind, types.BytesKind, types.DoubleKind, types.DurationKind, types.IntKind, types.NullTypeKind,
		types.StringKind, types.TimestampKind, types.TypeKind, types.UintKind:
		return true
	default:
		return false
	}
}

// isFlat reports whether a type has nothing in it but scalars.
func isFlat(t *types.Type) bool {
	if t.Kind() != types.ListKind && t.Kind() != types.MapKind {
		return isScalar(t)
	}
	for _, parameter := range t.Parameters() {
		if !isScalar(parameter) {
			return false
		}
	}
	return true
}

func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func times(a, b uint64) uint64 {
	if b != 0 && a > math.MaxUint64/b {
		return math.MaxUint64
	}
	return a * b
}
