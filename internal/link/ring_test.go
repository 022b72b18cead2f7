package link

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
)

// A link keeps working while the ring holds the key that signed it, whichever key signs now.
func TestRingReplacesItsKeys(t *testing.T) {
	g := NewWithT(t)
	older := Key{ID: KeyID{1, 2, 3}, Secret: "an older key that nobody can guess"}
	ring := NewRing(older)
	before := ring.Token(aLink())
	ring.Replace(signer, older)
	after := ring.Token(aLink())
	g.Expect(after).To(Equal(key.Token(aLink())), "the new key signs")
	for _, token := range []string{before, after} {
		g.Expect(ring.Open(token, Confirm, now)).To(Equal(aLink()))
	}
	ring.Replace(signer)
	_, err := ring.Open(before, Confirm, now)
	g.Expect(err).To(MatchError(ErrInvalid), "its key is gone")
	g.Expect(ring.Open(after, Confirm, now)).To(Equal(aLink()))
}

// The id in a token chooses a key, and is signed itself: no other id makes a token valid.
func TestForgedKeyID(t *testing.T) {
	g := NewWithT(t)
	another := Key{ID: KeyID{1, 2, 3}, Secret: "another key that nobody can guess"}
	ring := NewRing(signer, another)
	sealed := signer.seal(aLink().encode(signer.ID))
	for _, id := range []KeyID{another.ID, {}, {0xff, 0xff, 0xff}} {
		forged := append([]byte{}, sealed...)
		copy(forged[1:headerSize], id[:])
		_, err := ring.Open(encoding.EncodeToString(forged), Confirm, now)
		g.Expect(err).To(MatchError(ErrInvalid), id.String())
	}
	_, err := ring.Open(encoding.EncodeToString(sealed[:headerSize]), Confirm, now)
	g.Expect(err).To(MatchError(ErrInvalid), "a header alone")
}

func TestKeyID(t *testing.T) {
	g := NewWithT(t)
	g.Expect(ParseKeyID(signer.ID.String())).To(Equal(signer.ID))
	for _, text := range []string{"", "fbef", "fbefbeff", "fbefbz"} {
		_, err := ParseKeyID(text)
		g.Expect(err).To(MatchError(ContainSubstring("invalid id of a link key")), text)
	}
	for _, shown := range []string{fmt.Sprint(signer), fmt.Sprintf("%+v", signer), fmt.Sprintf("%#v", signer)} {
		g.Expect(shown).To(Equal("link key fbefbe"), "the secret is in no log")
	}
}
