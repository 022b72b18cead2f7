// Package recipient answers: what does a recipient get to read?
//
// It has the mail that asks somebody to confirm, the pages behind its links, and
// their languages. Each has a built-in text, and a list can bring its own in a
// ConfigMap: the controller checks those templates with the same functions that
// ingress and dispatcher use them with.
package recipient
