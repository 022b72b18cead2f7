// Package dispatcher answers: how does an event get out?
//
// One tail reads the end of the log once and offers each event to the runners
// of all subscriptions. A runner owns one subscription: it keeps a ledger of
// the events that it has taken and not delivered yet, makes the attempts, and
// settles them by their outcome. A runner that can't keep up leaves the tail
// and reads pages of its own until it has caught up. Ledgers are written to the
// store together, a few times a second, so a process that dies sends again only
// what had no outcome in the last checkpoint, under the same webhook-id.
//
//	            ┌──── offer ────▶ runner ── attempt ──▶ callback
//	log ─▶ tail ┤                   │ ▲ outcome ◀──────────┘
//	 ▲          └──── offer ────▶ runner …
//	 └── pages for runners that lag ─┘ │
//	store ◀── checkpoint (all that changed, one commit) ──┘
//
// Runners come and go with the WebhookSubscriptions, which registry watches. Where
// there is a mail server each ContactList has one too, from its first opt-in mail
// on: an attempt of it is an SMTP session.
//
// Several dispatchers share a store. Each says again and again that it lives
// (membership.go), finds out from the names of the living what it ought to own
// (ownership.go), claims that (claim.go) and leaves what it ought not to
// (handover.go). Where they disagree the store decides.
package dispatcher

// +kubebuilder:rbac:groups=postbus.dev,resources=contactlists;webhooksubscriptions,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get
