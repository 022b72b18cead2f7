package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

var errNoHostName = errors.New("it is no name of a host")

// normalize returns a host's name in the form that names are compared in: in
// ASCII, as net/http dials it, in lower case, without the dot of the root.
func normalize(text string) (string, error) {
	host := text
	if strings.ContainsFunc(text, func(r rune) bool { return r > '~' }) {
		var err error
		if host, err = idna.Lookup.ToASCII(text); err != nil {
			return "", errNoHostName
		}
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "" || strings.HasPrefix(host, ".") || strings.Contains(host, "..") || strings.ContainsFunc(host, isNoHostRune) {
		return "", errNoHostName
	}
	return host, nil
}

// isNoHostRune takes underscores for what they are in practice: names of hosts
// have them.
func isNoHostRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}

// endsInNumber tells whether a host can only be an IPv4 address: its last label
// is a number, decimal, octal or hexadecimal. No domain of the internet is
// (https://url.spec.whatwg.org/#ends-in-a-number-checker).
func endsInNumber(host string) bool {
	label := host[strings.LastIndex(host, ".")+1:]
	if hex, isHex := strings.CutPrefix(label, "0x"); isHex {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// isBelow tells whether a host is a domain or below it.
func isBelow(host, domain string) bool {
	return host == domain || strings.HasSuffix(host, "."+domain)
}

// ParseHost returns a host to allow in the form that Policy.AllowedHosts has: a
// name, or "*." and a domain for every name below it. Addresses are refused,
// they are allowed as networks.
func ParseHost(text string) (string, error) {
	name, isSuffix := strings.CutPrefix(text, "*.")
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return "", fmt.Errorf("%q is an address, allow it by %s", text, networkFlag)
	}
	host, err := normalize(name)
	if err != nil || endsInNumber(host) {
		return "", fmt.Errorf("%q is no host such as crm.example.com or *.svc", text)
	}
	if isSuffix {
		host = "*." + host
	}
	return host, nil
}
