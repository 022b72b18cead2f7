package recipient

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"text/template"
	"text/template/parse"
)

// TemplateError is what is wrong with a template of a ConfigMap.
type TemplateError struct {
	// File is the data key, such as mail.txt.
	File string
	// Line is the number of the line, 0 when it is about the whole file.
	Line int
	// Problem says what is wrong.
	Problem string
}

// Error returns, for example, "mail.txt, line 7: function "foo" not defined".
func (e *TemplateError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Problem
	}
	return fmt.Sprintf("%s, line %d: %s", e.File, e.Line, e.Problem)
}

// position is how the standard library's template packages begin their errors.
var position = regexp.MustCompile(`^(?:html/)?template: ?([^:]+)(?::(\d+))?(?::\d+)?: (?s:(.*))$`)

// templateError returns the *TemplateError of an error of a template package.
func templateError(file string, err error) error {
	var known *TemplateError
	if errors.As(err, &known) {
		return err
	}
	found := position.FindStringSubmatch(err.Error())
	if found == nil {
		return &TemplateError{File: file, Problem: err.Error()}
	}
	line, _ := strconv.Atoi(found[2]) // digits, or nothing
	return &TemplateError{File: file, Line: line, Problem: found[3]}
}

// checkSize refuses a template that is longer than what it may make. Its length
// bounds what it costs to run it.
func checkSize(file, content string) error {
	if len(content) > maxText {
		return &TemplateError{File: file, Problem: fmt.Sprintf("has more than %d KiB", maxText>>10)}
	}
	return nil
}

// checkTree refuses what can make a template run for longer than its length
// says: templates that call others, and loops in loops or over numbers. Nothing
// could stop such a template.
func checkTree(file string, tree *parse.Tree) error {
	checker := treeChecker{file: file, tree: tree}
	checker.walk(tree.Root, false)
	return checker.err
}

type treeChecker struct {
	file string
	tree *parse.Tree
	err  error
}

func (c *treeChecker) refuse(node parse.Node, problem string) {
	if c.err == nil {
		location, _ := c.tree.ErrorContext(node)
		c.err = templateError(c.file, errors.New("template: "+location+": "+problem))
	}
}

// walk looks at a node and all below it. looping tells that it is in a loop.
func (c *treeChecker) walk(node parse.Node, looping bool) {
	switch node := node.(type) {
	case *parse.ListNode:
		if node == nil {
			return
		}
		for _, child := range node.Nodes {
			c.walk(child, looping)
		}
	case *parse.IfNode:
		c.walk(node.List, looping)
		c.walk(node.ElseList, looping)
	case *parse.WithNode:
		c.walk(node.List, looping)
		c.walk(node.ElseList, looping)
	case *parse.RangeNode:
		if looping || !isMap(node.Pipe) {
			c.refuse(node, "a loop must be over a field, .Fields or .Custom, and not in another loop")
		}
		c.walk(node.List, true)
		c.walk(node.ElseList, looping)
	case *parse.TemplateNode:
		c.refuse(node, "a template must not call another one")
	}
}

// isMap tells whether a pipeline is nothing but one of the maps of MailData. A
// number is none, such as .ExpiresAt.UnixNano, over which a loop never ends.
func isMap(pipe *parse.PipeNode) bool {
	if len(pipe.Cmds) != 1 || len(pipe.Cmds[0].Args) != 1 {
		return false
	}
	field, is := pipe.Cmds[0].Args[0].(*parse.FieldNode)
	return is && len(field.Ident) == 1 && (field.Ident[0] == "Fields" || field.Ident[0] == "Custom")
}

// functions are those of the template packages that make text, with a bound:
// without one, thirty times {{$x = print $x $x}} take all memory.
var functions = template.FuncMap{
	"print":    bounded(fmt.Sprint),
	"println":  bounded(fmt.Sprintln),
	"printf":   boundedPrintf,
	"html":     bounded(template.HTMLEscaper),
	"js":       bounded(template.JSEscaper),
	"urlquery": bounded(template.URLQueryEscaper),
}

// maxValue is how many bytes one call of a function may take, and make.
const maxValue = 16 << 10

var errValue = fmt.Errorf("more than %d KiB are made", maxValue>>10)

func bounded(write func(...any) string) func(...any) (string, error) {
	return func(arguments ...any) (string, error) {
		size := 0
		for _, argument := range arguments {
			if size += len(fmt.Sprint(argument)); size > maxValue {
				return "", errValue
			}
		}
		made := write(arguments...)
		if len(made) > maxValue {
			return "", errValue
		}
		return made, nil
	}
}

// large are the parts of a format that can make much of little: widths of three
// digits and more, widths from arguments, and arguments that are used again.
var large = regexp.MustCompile(`[0-9]{3}|[*\[]`)

func boundedPrintf(format string, arguments ...any) (string, error) {
	if len(format) > maxValue || large.MatchString(format) {
		return "", errors.New("a format must be short, without *, [ and numbers over 99")
	}
	return bounded(func(arguments ...any) string { return fmt.Sprintf(format, arguments...) })(arguments...)
}

// maxText is how many bytes a template may make: a mail or a page has some
// thousand.
const maxText = 256 << 10

// limitedBuffer takes what a template makes, up to maxText.
type limitedBuffer struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxText {
		return 0, fmt.Errorf("more than %d KiB are made", maxText>>10)
	}
	return b.Buffer.Write(p)
}

// execute runs a template of either package into text.
func execute(file string, run func(io.Writer, any) error, data any) (string, error) {
	var made limitedBuffer
	if err := run(&made, data); err != nil {
		return "", templateError(file, err)
	}
	return made.String(), nil
}
