package command

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/yaml"
)

// The formats of output. Nothing is what people read.
const (
	formatJSON = "json"
	formatYAML = "yaml"
	formatWide = "wide"
	formatName = "name"
)

// output is how results are printed.
type output struct {
	format  string
	allowed []string
	// documents is how many were printed.
	documents int
}

// addFlag adds the flag that chooses among these formats.
func (o *output) addFlag(command *cobra.Command, allowed ...string) {
	o.allowed = allowed
	command.Flags().StringVarP(&o.format, "output", "o", "", "Output format. One of: ("+strings.Join(allowed, ", ")+").")
}

func (o *output) check(command *cobra.Command) error {
	if o.format != "" && !slices.Contains(o.allowed, o.format) {
		return usageError(command, fmt.Errorf("unable to match a printer suitable for the output format %q, allowed formats are: %s",
			o.format, strings.Join(o.allowed, ",")))
	}
	return nil
}

// forPrograms tells whether a program reads the output.
func (o *output) forPrograms() bool { return o.format != "" && o.format != formatWide }

// document prints a document for programs.
func (o *output) document(out io.Writer, document any) error {
	o.documents++
	if o.format == formatJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "    ")
		return encoder.Encode(document)
	}
	text, err := yaml.Marshal(document)
	if err != nil {
		return err
	}
	if o.documents > 1 {
		text = append([]byte("---\n"), text...)
	}
	_, err = out.Write(text)
	return err
}

// newTable returns a printer of tables. Its header is printed once.
func (o *output) newTable() printers.ResourcePrinter {
	return printers.NewTablePrinter(printers.PrintOptions{Wide: o.format == formatWide})
}

// column is a column of a table, which is left out unless the table is wide where
// that is said.
func column(name string, wide bool) metav1.TableColumnDefinition {
	definition := metav1.TableColumnDefinition{Name: name, Type: "string"}
	if wide {
		definition.Priority = 1
	}
	return definition
}
