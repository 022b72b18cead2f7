package link_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
)

func TestReactivation(t *testing.T) {
	g := NewWithT(t)
	key := link.NewRing(link.Key{Secret: "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo"})
	at := time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC)
	base, err := url.Parse("https://lists.example.com/mail")
	g.Expect(err).NotTo(HaveOccurred())
	made := link.Reactivation{Namespace: "marketing", Name: "crm", DeactivatedAt: at}
	prefix, token := "https://lists.example.com/mail/reactivate/", key.ReactivationURL(base, made)
	g.Expect(token).To(HavePrefix(prefix))
	token = strings.TrimPrefix(token, prefix)
	g.Expect(key.OpenReactivation(token, at)).To(Equal(made), "to the nanosecond")
	g.Expect(key.OpenReactivation(token, made.Expires().Add(-time.Second))).To(Equal(made))
	expired, err := key.OpenReactivation(token, at.Add(link.ReactivationTTL))
	g.Expect(err).To(MatchError(link.ErrExpired))
	g.Expect(expired).To(Equal(made))

	_, err = link.NewRing(link.Key{Secret: "another"}).OpenReactivation(token, at)
	g.Expect(err).To(MatchError(link.ErrInvalid))
	for _, purpose := range []link.Purpose{link.Confirm, link.Unsubscribe, link.Profile} {
		_, err := key.Open(token, purpose, at)
		g.Expect(err).To(MatchError(link.ErrInvalid), "it does nothing else")
		other := key.Token(link.Link{
			Purpose: purpose, List: contact.ListKey{Namespace: "marketing", Name: "crm"}, Contact: 1, Expires: at.Add(time.Hour), RequestedAt: at,
		})
		_, err = key.OpenReactivation(other, at)
		g.Expect(err).To(MatchError(link.ErrInvalid), "and nothing else does it")
	}
}
