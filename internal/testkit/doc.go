// Package testkit answers: what does a test stand on?
//
// A real API server with our kinds, real HTTP receivers, and builders of the
// smallest valid objects. Tests only; no program imports it.
package testkit
