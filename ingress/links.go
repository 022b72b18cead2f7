package ingress

import (
	"time"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
)

// How long the links work that are handed out with a contact. Whoever mails reads
// the contact for each mailing; a mail is kept, and left by its link, for longer.
const (
	unsubscribeLinkTTL = 365 * 24 * time.Hour
	profileLinkTTL     = 30 * 24 * time.Hour
)

// contactView is a contact as it is read back.
type contactView struct {
	contact.View
	// Links are not there where ingress does not know its public URL.
	Links *contactLinks `json:"links,omitempty"`
}

// contactLinks are the contact's own, for mails to it.
type contactLinks struct {
	Unsubscribe string `json:"unsubscribe"`
	Profile     string `json:"profile"`
}

func (s *server) contactView(list contact.ListKey, found *contact.Contact) contactView {
	view := contactView{View: found.View()}
	if s.options.PublicURL == nil || s.options.LinkKeys == nil {
		return view
	}
	url := func(purpose link.Purpose, ttl time.Duration) string {
		return s.options.LinkKeys.URL(s.options.PublicURL, link.Link{
			Purpose: purpose, List: list, Contact: found.ID, Expires: s.now().Add(ttl),
		})
	}
	view.Links = &contactLinks{
		Unsubscribe: url(link.Unsubscribe, unsubscribeLinkTTL),
		Profile:     url(link.Profile, profileLinkTTL),
	}
	return view
}
