package link

import (
	"net/url"
	"time"

	"postbus.dev/postbus/internal/contact"
)

// ReactivationTTL is how long after a deactivation the link works that ends it.
const ReactivationTTL = 30 * 24 * time.Hour

// Reactivation is what a token says that reactivates a subscription.
type Reactivation struct {
	// Namespace and Name are the WebhookSubscription's.
	Namespace, Name string
	// DeactivatedAt is the deactivation that the link ends: it ends no other.
	DeactivatedAt time.Time
}

// Expires is when the link ends, in whole seconds.
func (r Reactivation) Expires() time.Time {
	return r.DeactivatedAt.Add(ReactivationTTL).Truncate(time.Second).UTC()
}

// link has the subscription where other links have a list.
func (r Reactivation) link() Link {
	return Link{
		Purpose: Reactivate, List: contact.ListKey{Namespace: r.Namespace, Name: r.Name},
		RequestedAt: r.DeactivatedAt, Expires: r.Expires(),
	}
}

// ReactivationURL returns the link below a base such as https://lists.example.com.
func (r *Ring) ReactivationURL(base *url.URL, of Reactivation) string { return r.URL(base, of.link()) }

// OpenReactivation returns what a token says. Errors are ErrInvalid, and ErrExpired
// with what has expired.
func (r *Ring) OpenReactivation(token string, now time.Time) (Reactivation, error) {
	l, err := r.Open(token, Reactivate, now)
	return Reactivation{Namespace: l.List.Namespace, Name: l.List.Name, DeactivatedAt: l.RequestedAt}, err
}
