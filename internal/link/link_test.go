package link

import (
	"net/url"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
)

var (
	signer = Key{ID: KeyID{0xfb, 0xef, 0xbe}, Secret: "a key that nobody can guess, of 128 bits and more"}
	key    = NewRing(signer)
)

// other returns a ring whose key has the same id and another secret, as that of another store may.
func other() *Ring { return NewRing(Key{ID: signer.ID, Secret: signer.Secret + "x"}) }

var now = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// aLink returns a link that says everything and works for an hour.
func aLink() Link {
	return Link{
		Purpose:     Confirm,
		List:        contact.ListKey{Namespace: "marketing", Name: "newsletter"},
		Contact:     4711,
		Expires:     now.Add(time.Hour),
		RequestedAt: now.Add(-time.Minute).Add(123456789),
		Plus:        true,
	}
}

func TestLinkComesBackFromItsToken(t *testing.T) {
	for name, change := range map[string]func(*Link){
		"everything":                  func(*Link) {},
		"without Plus":                func(l *Link) { l.Plus = false },
		"to unsubscribe":              func(l *Link) { l.Purpose, l.RequestedAt, l.Plus = Unsubscribe, time.Time{}, false },
		"to the profile":              func(l *Link) { l.Purpose, l.RequestedAt, l.Plus = Profile, time.Time{}, false },
		"a contact of a large number": func(l *Link) { l.Contact = 1<<63 - 1 },
		"a list with dots":            func(l *Link) { l.List.Name = "news.example.com" },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			want := aLink()
			change(&want)
			token := key.Token(want)
			g.Expect(key.Open(token, want.Purpose, now)).To(Equal(want))
			g.Expect(key.Token(want)).To(Equal(token), "a link has one token")
			g.Expect(url.PathEscape(token)).To(Equal(token), "it needs no escapes in a path")
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	good := key.Token(aLink())
	for name, row := range map[string]struct {
		key     *Ring
		token   string
		purpose Purpose
	}{
		"no token":                      {key, "", Confirm},
		"something else":                {key, "hello", Confirm},
		"a token of another purpose":    {key, good, Unsubscribe},
		"a token for an unknown one":    {key, good, 0},
		"a token of another store":      {other(), good, Confirm},
		"a token without its last byte": {key, good[:len(good)-1], Confirm},
		"a token without its signature": {key, encoding.EncodeToString(aLink().encode(signer.ID)), Confirm},
		"a signature alone":             {key, encoding.EncodeToString(signer.seal(nil)), Confirm},
		"a token with padding":          {key, good + "=", Confirm},
		"a token with a line end":       {key, good[:40] + "\n" + good[40:], Confirm},
		"a token in the other alphabet": {key, strings.NewReplacer("-", "+", "_", "/").Replace(withBoth(t)), Confirm},
		"a token that is too long":      {key, strings.Repeat("A", MaxToken+1), Confirm},
		"a payload of another version":  {key, encoding.EncodeToString(signer.seal(append([]byte{version + 1}, aLink().encode(signer.ID)[1:]...))), Confirm},
		"a payload that ends too early": {key, encoding.EncodeToString(signer.seal(aLink().encode(signer.ID)[:8])), Confirm},
		"a payload without a list":      {key, encoding.EncodeToString(signer.seal([]byte{version, 0xfb, 0xef, 0xbe, byte(Confirm), 0, 2, 2, 0})), Confirm},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			opened, err := row.key.Open(row.token, row.purpose, now)
			g.Expect(err).To(MatchError(ErrInvalid))
			g.Expect(opened).To(BeZero())
		})
	}
}

// withBoth returns a token that has a character of each place where the two
// alphabets of RFC 4648 differ.
func withBoth(t *testing.T) string {
	t.Helper()
	l := aLink()
	for range 10_000 {
		l.Contact++
		if token := key.Token(l); strings.Contains(token, "-") && strings.Contains(token, "_") {
			return token
		}
	}
	t.Fatal("no such token")
	return ""
}

func TestNoByteOfATokenCanBeChanged(t *testing.T) {
	g := NewWithT(t)
	token := []byte(key.Token(aLink()))
	for i, was := range token {
		for _, other := range []byte("AZaz09-_=+/ \n\x00\xff") {
			if other == was {
				continue
			}
			token[i] = other
			_, err := key.Open(string(token), Confirm, now)
			g.Expect(err).To(MatchError(ErrInvalid), "byte %d as %q", i, other)
		}
		token[i] = was
	}
	g.Expect(key.Open(string(token), Confirm, now)).To(Equal(aLink()))
}

func TestLinkExpires(t *testing.T) {
	g := NewWithT(t)
	l := aLink()
	token := key.Token(l)
	g.Expect(key.Open(token, Confirm, l.Expires.Add(-time.Nanosecond))).To(Equal(l))
	for _, late := range []time.Time{l.Expires, l.Expires.AddDate(10, 0, 0)} {
		opened, err := key.Open(token, Confirm, late)
		g.Expect(err).To(MatchError(ErrExpired))
		g.Expect(opened).To(Equal(l), "a page may say which list it was")
	}
	_, err := key.Open(token, Profile, l.Expires)
	g.Expect(err).To(MatchError(ErrInvalid), "what a token is not for it never was")
}

func TestLongestTokenFits(t *testing.T) {
	l := aLink()
	l.List = contact.ListKey{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("l", 253)}
	l.Contact = 1<<63 - 1
	l.Expires = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	l.RequestedAt = time.Unix(0, 1<<63-1).UTC()
	g := NewWithT(t)
	g.Expect(len(key.Token(l))).To(BeNumerically("<=", MaxToken))
	g.Expect(key.Open(key.Token(l), Confirm, now)).To(Equal(l))
}

func TestURLIsBelowTheBase(t *testing.T) {
	for name, row := range map[string]struct {
		base    string
		purpose Purpose
		want    string
	}{
		"a host":                {"https://lists.example.com", Confirm, "https://lists.example.com/confirm/"},
		"a host with a slash":   {"https://lists.example.com/", Unsubscribe, "https://lists.example.com/unsubscribe/"},
		"a path":                {"http://example.com:8080/mail", Profile, "http://example.com:8080/mail/profile/"},
		"a path and an escape":  {"https://example.com/a%2Fb/", Profile, "https://example.com/a%2Fb/profile/"},
		"a purpose that is not": {"https://lists.example.com", 0, "https://lists.example.com/"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			base, err := url.Parse(row.base)
			g.Expect(err).NotTo(HaveOccurred())
			l := aLink()
			l.Purpose = row.purpose
			g.Expect(key.URL(base, l)).To(Equal(row.want + key.Token(l)))
		})
	}
}

// FuzzOpen opens what strangers send, and payloads of any form that were signed.
func FuzzOpen(f *testing.F) {
	unsubscribe := aLink()
	unsubscribe.Purpose, unsubscribe.RequestedAt, unsubscribe.Plus = Unsubscribe, time.Time{}, false
	for _, l := range []Link{aLink(), unsubscribe, {}} {
		token := key.Token(l)
		f.Add(token, l.encode(signer.ID))
		f.Add(token[1:], l.encode(signer.ID)[1:])
		f.Add(token+"A", append(l.encode(signer.ID), 0))
	}
	f.Add("\r\n", []byte{version, 0xfb, 0xef, 0xbe, byte(Confirm), 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1})
	f.Fuzz(func(t *testing.T, token string, payload []byte) {
		g := NewWithT(t)
		if opened, err := key.Open(token, Confirm, now); err == nil {
			g.Expect(key.Token(opened)).To(Equal(token), "a link has one token")
		}
		if len(payload) > 300 {
			return
		}
		if len(payload) > headerSize {
			copy(payload[1:], signer.ID[:])
		}
		signed, err := key.Open(encoding.EncodeToString(signer.seal(payload)), Confirm, now)
		if err == nil {
			g.Expect(key.Open(key.Token(signed), Confirm, now)).To(Equal(signed))
		}
	})
}
