package expression

import (
	"fmt"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/ext"
)

// variable is the name of the only variable.
const variable = "event"

// environment is what expressions are compiled in: CEL's standard functions, what
// is safe and has a cost of its extensions, and the event. Functions whose cost CEL
// does not know are left out, because a few of them, one in the other, make a text
// of any length.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	objects, err := newProvider()
	if err != nil {
		return nil, fmt.Errorf("declare the event: %w", err)
	}
	env, err := cel.NewEnv(
		cel.CustomTypeProvider(objects), cel.CustomTypeAdapter(objects),
		cel.Variable(variable, eventKind.celType),
		cel.EagerlyValidateDeclarations(true), cel.DefaultUTCTimeZone(true), cel.CrossTypeNumericComparisons(true),
		cel.OptionalTypes(), ext.Strings(), ext.Sets(), ext.Bindings(), ext.TwoVarComprehensions(),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(), unavailable{},
			boundedPatterns{}, boundedComparisons{},
		),
	)
	if err != nil {
		return nil, fmt.Errorf("make the environment of expressions: %w", err)
	}
	return env, nil
})

// unavailable refuses what CEL has and expressions have not: the function format,
// which comes with the extension of strings and whose cost CEL does not know; and
// objects that are made, as nothing takes one.
type unavailable struct{}

// Name implements cel.ASTValidator.
func (unavailable) Name() string { return "postbus.validator.unavailable" }

// Validate implements cel.ASTValidator.
func (unavailable) Validate(_ *cel.Env, _ cel.ValidatorConfig, tree *ast.AST, issues *cel.Issues) {
	root := ast.NavigateAST(tree)
	for _, call := range ast.MatchDescendants(root, ast.FunctionMatcher("format")) {
		issues.ReportErrorAtID(call.ID(), "the function format can't be used: join texts by +")
	}
	for _, made := range ast.MatchDescendants(root, ast.KindMatcher(ast.StructKind)) {
		issues.ReportErrorAtID(made.ID(), "objects can't be made: write a map")
	}
}

// sizes tell the estimate of costs how large what is in an event can be.
type sizes struct{}

// The largest sizes: of a list or a map in elements, of a text in characters. They
// follow from internal/contact and from the schema of ContactList.
const (
	maxFields       = 17 + 200 + 2 // standard and custom ones, external_id, permission
	maxCustomFields = 200
	maxFieldName    = 64
	maxValue        = 255
	maxText         = 2048 // of a subscription page, the longest of all
)

// EstimateSize implements checker.CostEstimator.
func (sizes) EstimateSize(node checker.AstNode) *checker.SizeEstimate {
	path := node.Path()
	if len(path) == 0 || path[0] != variable {
		return nil
	}
	largest := uint64(maxText)
	switch place := strings.Join(path[1:], "."); {
	case place == "changed":
		largest = maxFields
	case place == "contact.customFields":
		largest = maxCustomFields
	case place == "changed.@items" || place == "contact.customFields.@keys":
		largest = maxFieldName
	case strings.HasPrefix(place, "contact.customFields.") || strings.HasPrefix(place, "contact.standardFields."):
		largest = maxValue
	}
	return &checker.SizeEstimate{Min: 0, Max: largest}
}
