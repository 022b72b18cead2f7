// Package ingress answers: how does a contact get in?
//
// It serves POST /webhooks/contacts/email, which third-party forms and shops
// call with an API key. A call is answered once what it changed is durable:
//
//	request ─▶ transport ─▶ method ─▶ content type, size ─▶ key, rate ──▶ syntax ─▶ fields ─▶ store ─▶ 200
//	              403          405         415, 413       401, 403, 429   400       400    409, 503
//
// The order is fixed, so whoever has no key learns nothing about a list. Keys
// and lists are read from an informer cache; ingress has no other right on the
// cluster, and none on Secrets.
//
// It also serves the pages behind the links in mails, where recipients confirm,
// leave, and change what is known of them. A link's token stands for the key there.
//
// An API key never reaches a log, a metric or an answer, a token no log and no
// metric.
package ingress

// +kubebuilder:rbac:groups=postbus.dev,resources=contactlists,verbs=get;list;watch
// +kubebuilder:rbac:groups=postbus.dev,resources=apikeys,verbs=get;list;watch
