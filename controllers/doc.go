// Package controllers answers: how does an object become true?
//
// It is the only part that writes to the Kubernetes API. One loop serves every
// kind:
//
//	get ─▶ deleting? ── yes ─▶ clean up ─▶ drop the finalizer
//	            │ no
//	            ▼
//	      add the finalizer ─▶ step ─▶ step ─▶ … ─▶ finish: one status patch,
//	                             └── first error ──▶ one event when Ready
//	                                                 has another reason
//
// A step checks or brings about one thing and owns one condition. What it finds
// wrong with an object is a refusal, not a failure: nothing is tried again until
// something that the controller watches changes.
//
// What the dispatcher writes into the store reaches status by polling the
// store's revisions: changes of state at once, counters at a slow pace.
package controllers
