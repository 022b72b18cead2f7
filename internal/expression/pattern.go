package expression

import (
	"fmt"
	"math"
	"regexp/syntax"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
)

// MaxInstructions is how many instructions the compiled program of a regular expression may
// have. Go runs all of them for each character in the worst case. A counted repetition makes
// many of them from few characters: .{0,1000} has 2,000. Common patterns have 10 to 60.
const MaxInstructions = 200

// maxShown is how many characters of a pattern an error shows.
const maxShown = 40

// boundedPatterns is a validator that refuses regular expressions that are too costly, and
// those that are known only when an event is there.
type boundedPatterns struct{}

// Name implements cel.ASTValidator.
func (boundedPatterns) Name() string { return "postbus.validator.bounded_patterns" }

// Validate implements cel.ASTValidator.
func (boundedPatterns) Validate(_ *cel.Env, _ cel.ValidatorConfig, tree *ast.AST, issues *cel.Issues) {
	for _, call := range ast.MatchDescendants(ast.NavigateAST(tree), ast.FunctionMatcher(overloads.Matches)) {
		args := call.AsCall().Args()
		pattern := args[len(args)-1] // s.matches(p), or matches(s, p)
		text, constant := literalText(pattern)
		if !constant {
			issues.ReportErrorAtID(pattern.ID(), "the pattern of matches must be a text in quotes, it can't come from elsewhere")
			continue
		}
		switch size, err := programSize(text); {
		case err != nil:
			issues.ReportErrorAtID(pattern.ID(), "the pattern %q is not a regular expression of RE2", shortened(text))
		case size > MaxInstructions:
			issues.ReportErrorAtID(pattern.ID(), "the pattern %q compiles to %d instructions, the limit is %d: counted repetitions, such as {0,1000}, make many",
				shortened(text), size, MaxInstructions)
		}
	}
}

func literalText(e ast.Expr) (text string, is bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	value, is := e.AsLiteral().(types.String)
	return string(value), is
}

func shortened(text string) string {
	if runes := []rune(text); len(runes) > maxShown {
		return string(runes[:maxShown]) + "…"
	}
	return text
}

// programSize returns how many instructions a pattern compiles to, as package regexp does it.
func programSize(pattern string) (int, error) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0, fmt.Errorf("parse the pattern: %w", err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0, fmt.Errorf("compile the pattern: %w", err)
	}
	return len(program.Inst), nil
}

// matchFactor is the cost of one instruction for one character. Both kinds of package
// regexp's machines take up to 15 ns for it, see BenchmarkCostUnits.
const matchFactor = 0.1

// matchCost returns the cost of matching a text of so many characters.
func matchCost(characters uint64, instructions int) uint64 {
	return uint64(math.Ceil(min((1+float64(characters))*float64(max(1, instructions))*matchFactor, math.MaxUint32)))
}

// estimateMatch estimates the cost of a match by the program's size. CEL takes the pattern's
// length for it.
func (s sizes) estimateMatch(target *checker.AstNode, args []checker.AstNode) *checker.CallEstimate {
	if target != nil {
		args = append([]checker.AstNode{*target}, args...)
	}
	if len(args) != 2 {
		return nil
	}
	pattern, constant := literalText(args[1].Expr())
	instructions, err := programSize(pattern)
	if !constant || err != nil {
		return nil // it is refused
	}
	size := s.sizeOf(args[0])
	return &checker.CallEstimate{CostEstimate: checker.CostEstimate{
		Min: matchCost(size.Min, instructions), Max: matchCost(size.Max, instructions),
	}}
}
