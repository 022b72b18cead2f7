package recipient

import (
	"regexp"
	"strings"
	"unicode"
)

// wordJoiner is a character without width that allows no line break.
const wordJoiner = "\u2060"

var (
	// linkable finds what a mail client can make a link of: a dot between letters or digits
	// (also one of the other dots that IDNA knows), and the separators of URLs and addresses.
	linkable = regexp.MustCompile(`[\pL\pN][.\x{3002}\x{FF0E}\x{FF61}][\pL\pN]|[:/\\@]|(?i)\bwww\b`)
	// separators are what of it is broken up.
	separators = regexp.MustCompile(`[.\x{3002}\x{FF0E}\x{FF61}:/\\@]`)
	// callable finds what can be a telephone number: seven digits, with what stands between
	// them in one.
	callable = regexp.MustCompile(`(?:\pN[-+() ./]*){7}`)
	digit    = regexp.MustCompile(`\pN`)
)

// Unlinked returns a name in a form that no mail client makes a link of, on one line.
//
// A name is chosen by whoever may make an object, or fills in a form, and stands in a mail
// to somebody else: "you-won.claim-it-at.evil.example" would be a link of the attacker's in
// a mail from the operator's server. Clients make links of plain text and of HTML without
// <a> alike, and quotes don't stop them. So word joiners, which cannot be seen, are put
// around each separator. They are put before it too, because some clients search for "www."
// or "https:" and take all up to the next space then; and also around single digits of what
// can be a telephone number.
// This works in both parts of a mail and in its subject, where markup does not, and the name
// looks as it is. What is copied has the joiners in it; so names without such a pattern, which
// are nearly all, stay as they are.
func Unlinked(text string) string {
	text = strings.Join(strings.Fields(strings.Map(visible, text)), " ")
	if callable.MatchString(text) {
		text = digit.ReplaceAllString(text, wordJoiner+"${0}"+wordJoiner)
	}
	if linkable.MatchString(text) {
		text = separators.ReplaceAllString(text, wordJoiner+"${0}"+wordJoiner)
	}
	return text
}

// visible drops control characters but for spaces, and characters that change the
// direction of what follows.
func visible(r rune) rune {
	switch {
	case unicode.IsSpace(r):
		return ' '
	case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2060', r == '\ufeff':
		return -1
	}
	return r
}
