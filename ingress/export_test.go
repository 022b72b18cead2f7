package ingress

import "slices"

// PostParameters returns the parameters of each path that calls are posted to,
// and whether it takes fields too.
func PostParameters() (parameters map[string][]string, fields map[string]bool) {
	parameters, fields = map[string][]string{}, map[string]bool{}
	for path, operation := range operations {
		parameters[path] = append([]string{keyParameter, emailParameter}, operation.parameters...)
		fields[path] = operation.fields
	}
	// An import's URL has the defaults of every line.
	parameters[importPath] = append(slices.Clone(parameters[contactPath]), eventsParameter, skipParameter)
	fields[importPath] = fields[contactPath]
	return parameters, fields
}

// ReadPaths returns the paths that are read: contacts, and probes.
func ReadPaths() (contacts, probes []string) {
	return []string{readList, readContact}, []string{healthPath, readyPath}
}

// IdempotencyHeader is the header that names a call.
const IdempotencyHeader = idempotencyHeader

// InputCodes are the codes of what contact rules refuse.
var InputCodes = inputCodes
