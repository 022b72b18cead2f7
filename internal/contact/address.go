package contact

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Address is an e-mail address that may be a contact's.
type Address struct {
	// Display is how the address is shown: the local part as it was given, the
	// domain in lower case and in its own script.
	Display string
	// Key is what addresses are compared by: two addresses with the same Key
	// are one contact. The local part is in lower case, the domain in ASCII.
	Key string
}

// The longest address and local part in octets, by RFC 5321 (4.5.3.1.1, and
// 4.5.3.1.3 less the angle brackets).
const (
	maxAddress = 254
	maxLocal   = 64
)

// ParseAddress returns the address that a text holds. It takes what RFC 5321
// calls Dot-string at a domain with at least two labels, in ASCII or, by RFC
// 6531, in any script. Quoted local parts, comments, display names and address
// literals are refused. The error is an *InputError for the parameter "email".
func ParseAddress(text string) (Address, error) {
	text = strings.TrimSpace(text)
	if rule := checkShape(text); rule != "" {
		return Address{}, illegalParameter("email", rule)
	}
	local, domain, _ := strings.Cut(text, "@")
	if rule := checkLocal(local); rule != "" {
		return Address{}, illegalParameter("email", rule)
	}
	ascii, readable, rule := parseDomain(domain)
	if rule != "" {
		return Address{}, illegalParameter("email", rule)
	}
	if max(len(local)+len(readable), len(local)+len(ascii))+len("@") > maxAddress {
		return Address{}, illegalParameter("email", "must have at most 254 bytes")
	}
	return Address{Display: local + "@" + readable, Key: fold(local) + "@" + ascii}, nil
}

// checkShape returns the rule that the address breaks as a whole.
func checkShape(text string) (rule string) {
	switch {
	case text == "":
		return "is required"
	case len(text) > 2*maxAddress: // before any work on what can't become short enough
		return "must have at most 254 bytes"
	case !utf8.ValidString(text):
		return "must be valid UTF-8"
	case strings.HasPrefix(text, `"`):
		return "must not have a quoted local part"
	case strings.Contains(text, " "):
		return "must not contain a space; a '+' in a URL or a form is sent as %2B"
	case strings.Count(text, "@") != 1:
		return "must have exactly one @"
	}
	return ""
}

// checkLocal returns the rule that the part before the @ breaks.
func checkLocal(local string) (rule string) {
	switch {
	case local == "":
		return "must have something before the @"
	case len(local) > maxLocal:
		return "must have at most 64 bytes before the @"
	case strings.HasPrefix(local, "."), strings.HasSuffix(local, "."), strings.Contains(local, ".."):
		return "must not begin or end with a dot before the @, nor have two in a row"
	}
	for _, r := range local {
		if r != '.' && !isAtext(r) {
			return "must not contain spaces, control characters or any of \"(),:;<>[]\\ before the @"
		}
	}
	return ""
}

// isAtext tells whether a character may stand in a local part: RFC 5322 atext,
// and by RFC 6532 what is beyond ASCII, of that only what can be seen.
func isAtext(r rune) bool {
	switch {
	case r >= utf8.RuneSelf:
		return unicode.IsPrint(r) && r != utf8.RuneError
	case r >= '0' && r <= '9', r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z':
		return true
	}
	return strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

// domains reads a domain as a mail client's address line is read (UTS #46):
// capitals, wide letters and ideographic dots are mapped first. Two hyphens in
// the third place are left alone, because registered names have them.
var domains = idna.New(
	idna.MapForLookup(),
	idna.Transitional(false),
	idna.StrictDomainName(true),
	idna.ValidateLabels(true),
	idna.CheckHyphens(false),
	idna.BidiRule(),
	idna.VerifyDNSLength(true),
)

// parseDomain returns a domain in ASCII and in its own script, or the rule that
// it breaks.
func parseDomain(domain string) (ascii, readable, rule string) {
	const malformed = "must have a domain such as example.com behind the @"
	ascii, err := domains.ToASCII(domain)
	if err != nil || !hasGoodLabels(ascii) {
		return "", "", malformed
	}
	readable, err = domains.ToUnicode(ascii)
	if err != nil {
		return "", "", malformed
	}
	// Punycode can hold what looks like punycode, which nobody could type.
	if again, err := domains.ToASCII(readable); err != nil || again != ascii {
		return "", "", malformed
	}
	return ascii, readable, ""
}

// hasGoodLabels tells whether an ASCII domain is one that mail can be sent to.
// A single label is nobody's mail domain (RFC 7085), and a last label of digits
// is an IP address (RFC 3696, section 2).
func hasGoodLabels(ascii string) bool {
	labels := strings.Split(ascii, ".")
	for _, label := range labels {
		if label == "" || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
	}
	return len(labels) > 1 && strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// fold returns a local part in the form that it is compared in: without case,
// and with one spelling of letters that Unicode can spell in two ways.
func fold(local string) string {
	return norm.NFC.String(strings.ToLower(norm.NFC.String(local)))
}
