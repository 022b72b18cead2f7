// Package contact answers: what is a contact, and what does a call change?
//
// Its rules are pure functions. A call is parsed and checked into a Save, and
// Save.Decide says, given the stored contact, what the contact is afterwards
// and which events that raises. The store runs Decide inside the transaction
// that commits both, so a contact and its events can't disagree.
package contact
