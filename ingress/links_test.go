package ingress_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/ingress"
	"postbus.dev/postbus/internal/link"
)

// A contact that is read back comes with its links, one by one and in an export.
func TestLinksOfAContact(t *testing.T) {
	g := NewWithT(t)
	public, err := url.Parse("https://lists.example.com/below/")
	g.Expect(err).NotTo(HaveOccurred())
	f := start(t, func(options *ingress.Options) { options.PublicURL = public })
	ada := f.subscriber(t, "ada@example.com")
	key := f.reader(t)
	for _, path := range []string{"/v1/lists/newsletter/contacts/ada@example.com", "/v1/lists/newsletter/contacts"} {
		got := f.read(t, path, key)
		expectDocumented(t, readDocument(t).Paths.Value(strings.Replace(strings.Replace(path, "newsletter", "{list}", 1), "ada@example.com", "{email}", 1)), got)
		var read struct{ Links map[string]string }
		g.Expect(json.Unmarshal([]byte(got.body), &read)).To(Succeed())
		for purpose, ttl := range map[link.Purpose]time.Duration{link.Unsubscribe: 365 * 24 * time.Hour, link.Profile: 30 * 24 * time.Hour} {
			name := strings.Trim(purpose.Path(), "/")
			token, is := strings.CutPrefix(read.Links[name], "https://lists.example.com/below"+purpose.Path())
			g.Expect(is).To(BeTrue(), read.Links[name])
			opened, err := f.keys.Open(token, purpose, now)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(opened).To(Equal(link.Link{Purpose: purpose, List: f.list(), Contact: ada.ID, Expires: now.Add(ttl)}))
			expectPage(t, f.open(t, purpose.Path()+token, "en"), http.StatusOK, name)
		}
	}
}
