package expression

import (
	"math"

	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// What is in this file corrects CEL's costs where a unit would take much longer than others.
// BenchmarkCostUnits measures all functions. A unit takes some 50 ns.

// zoneCost is the cost of a function of a timestamp that is given a time zone: the
// zone is looked up in the files of the system, each time.
const zoneCost = 500

// zoned are these functions' overloads.
var zoned = map[string]bool{
	overloads.TimestampToYearWithTz: true, overloads.TimestampToMonthWithTz: true, overloads.TimestampToDayOfYearWithTz: true,
	overloads.TimestampToDayOfMonthZeroBasedWithTz: true, overloads.TimestampToDayOfMonthOneBasedWithTz: true,
	overloads.TimestampToDayOfWeekWithTz: true, overloads.TimestampToHoursWithTz: true, overloads.TimestampToMinutesWithTz: true,
	overloads.TimestampToSecondsWithTz: true, overloads.TimestampToMillisecondsWithTz: true,
}

// traversed are overloads that read all of a text, which costs nothing in CEL.
var traversed = map[string]bool{
	overloads.SizeString: true, overloads.SizeStringInst: true,
	overloads.StringToBool: true, overloads.StringToInt: true, overloads.StringToUint: true, overloads.StringToDouble: true,
	overloads.StringToTimestamp: true, overloads.StringToDuration: true,
}

// EstimateCallCost implements checker.CostEstimator: what is left to it has the cost
// that CEL gives it.
func (s sizes) EstimateCallCost(_, overload string, target *checker.AstNode, args []checker.AstNode) *checker.CallEstimate {
	switch {
	case overload == overloads.Matches || overload == overloads.MatchesString:
		return s.estimateMatch(target, args)
	case zoned[overload]:
		return &checker.CallEstimate{CostEstimate: checker.FixedCostEstimate(zoneCost)}
	case traversed[overload]:
		text := target
		if text == nil && len(args) > 0 {
			text = &args[0]
		}
		if text == nil {
			return nil
		}
		size := s.sizeOf(*text)
		return &checker.CallEstimate{CostEstimate: size.MultiplyByCostFactor(common.StringTraversalCostFactor).Add(checker.FixedCostEstimate(1))}
	default:
		return nil
	}
}

// sizeOf returns how large a value can be.
func (s sizes) sizeOf(node checker.AstNode) checker.SizeEstimate {
	if size := node.ComputedSize(); size != nil {
		return *size
	}
	if size := s.EstimateSize(node); size != nil {
		return *size
	}
	return checker.SizeEstimate{Max: math.MaxUint64}
}

// charges charges what an evaluation really costs, as sizes estimates it. It knows the sizes
// of the programs of an expression's patterns.
type charges struct{ programs map[string]int }

// CallCost implements interpreter.ActualCostEstimator.
func (c charges) CallCost(_, overload string, args []ref.Val, _ ref.Val) *uint64 {
	var cost uint64
	switch {
	case len(args) == 0:
		return nil
	case overload == overloads.Matches || overload == overloads.MatchesString:
		if len(args) != 2 {
			return nil
		}
		pattern, _ := args[1].(types.String)
		cost = matchCost(characters(args[0]), c.programs[string(pattern)])
	case zoned[overload]:
		cost = zoneCost
	case traversed[overload]:
		cost = 1 + uint64(math.Ceil(float64(characters(args[0]))*common.StringTraversalCostFactor))
	case len(args) == 2 && (overload == overloads.Equals || overload == overloads.NotEquals):
		return comparison(args[0], args[1])
	case len(args) == 2 && overload == overloads.ContainsString:
		cost = tenths(characters(args[0]))*tenths(characters(args[1])) + hundredths(characters(args[0]))
	default:
		return nil
	}
	return &cost
}

// comparison returns the cost of comparing two values; nil for what CEL knows. Texts are counted
// for their cost, whatever they are compared with, and an element of a list takes ten times as
// long as a character.
func comparison(a, b ref.Val) *uint64 {
	var cost uint64
	switch a.(type) {
	case types.String:
		if _, both := b.(types.String); !both {
			return nil
		}
		one, other := characters(a), characters(b)
		cost = 1 + tenths(min(one, other)) + hundredths(max(one, other))
	case traits.Lister, traits.Mapper:
		other, sized := b.(traits.Sizer)
		if !sized {
			return nil
		}
		cost = 1 + min(elements(a.(traits.Sizer)), elements(other))
	default:
		return nil
	}
	return &cost
}

func elements(value traits.Sizer) uint64 {
	size, _ := value.Size().(types.Int)
	return uint64(max(0, size))
}

func tenths(n uint64) uint64     { return (n + 9) / 10 }
func hundredths(n uint64) uint64 { return (n + 99) / 100 }

// characters returns the length of a text; its bytes are no fewer than its characters.
func characters(value ref.Val) uint64 {
	text, _ := value.(types.String)
	return uint64(len(text))
}
