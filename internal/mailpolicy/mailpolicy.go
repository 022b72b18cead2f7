// Package mailpolicy decides which senders the mailings of a namespace may have, and which
// addresses its notices may go to. Its decisions are pure; controller and dispatcher both
// ask it.
package mailpolicy

import (
	"fmt"
	"net/mail"
	"strings"

	"golang.org/x/net/idna"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The flags that fill an Allowlist.
const (
	SendersFlag       = "--allowed-senders"
	NoticeDomainsFlag = "--notice-domains"
)

// Policy has what the flags allow. The zero value allows everything.
type Policy struct {
	// From is the sender of --mail-from, which every namespace may use; nil for none.
	From *mail.Address
	// Senders and NoticeDomains are filled by the flags.
	Senders, NoticeDomains Allowlist
}

// Allowlist has the addresses that each namespace may use. The zero value allows all of
// them; one with an entry allows what its entries match.
type Allowlist struct {
	entries []entry
}

// entry allows addresses to one namespace, or to all where namespace is empty.
type entry struct {
	namespace string
	// local is the part before the @, empty for any.
	local string
	// domain is in ASCII and lower case, empty for any. With below it stands for all
	// domains below it, and not for itself.
	domain string
	below  bool
}

// AddSenders adds entries such as "news@a.example,marketing/*@b.example".
func (a *Allowlist) AddSenders(text string) error {
	return a.add(text, func(pattern string) (entry, error) {
		local, domain, found := cutLast(pattern, "@")
		if !found || local == "" || local != "*" && strings.Contains(local, "*") {
			return entry{}, fmt.Errorf("invalid sender %q (examples: news@example.com, *@example.com, *@*.example.com)", pattern)
		}
		e, err := parseDomain(domain)
		if local != "*" {
			e.local = strings.ToLower(local)
		}
		return e, err
	})
}

// AddDomains adds entries such as "example.com,marketing/*.example.org".
func (a *Allowlist) AddDomains(text string) error { return a.add(text, parseDomain) }

func (a *Allowlist) add(text string, parse func(pattern string) (entry, error)) error {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		namespace, pattern, found := strings.Cut(part, "/")
		if !found {
			namespace, pattern = "", part
		} else if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
			return fmt.Errorf("%q does not begin with a valid namespace: %s", part, problems[0])
		}
		e := entry{}
		if pattern != "*" {
			var err error
			if e, err = parse(pattern); err != nil {
				return err
			}
		}
		e.namespace = namespace
		a.entries = append(a.entries, e)
	}
	return nil
}

// parseDomain reads a domain such as example.com, or *.example.com for all below it.
func parseDomain(text string) (entry, error) {
	name, below := strings.CutPrefix(text, "*.")
	domain, err := idna.Lookup.ToASCII(name)
	domain = strings.ToLower(domain)
	if err != nil || !strings.Contains(domain, ".") || len(validation.IsDNS1123Subdomain(domain)) > 0 {
		return entry{}, fmt.Errorf("invalid domain %q (examples: example.com, *.example.com)", text)
	}
	return entry{domain: domain, below: below}, nil
}

// allows reports whether a namespace may use an address.
func (a *Allowlist) allows(namespace, address string) bool {
	if len(a.entries) == 0 {
		return true
	}
	local, domain, found := cutLast(address, "@")
	if !found {
		return false
	}
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		domain = ascii
	}
	local, domain = strings.ToLower(local), strings.ToLower(domain)
	for _, e := range a.entries {
		if (e.namespace == "" || e.namespace == namespace) && (e.local == "" || e.local == local) && e.matchesDomain(domain) {
			return true
		}
	}
	return false
}

func (e *entry) matchesDomain(domain string) bool {
	switch {
	case e.domain == "":
		return true
	case e.below:
		return strings.HasSuffix(domain, "."+e.domain)
	default:
		return domain == e.domain
	}
}

// CheckSender returns an error that names the flag where the mailings of a namespace may
// not have a sender.
func (p *Policy) CheckSender(namespace, address string) error {
	if p.From != nil && strings.EqualFold(p.From.Address, address) || p.Senders.allows(namespace, address) {
		return nil
	}
	return refuse(address, SendersFlag)
}

// CheckRecipient returns an error that names the flag where the notices of a namespace may
// not go to an address.
func (p *Policy) CheckRecipient(namespace, address string) error {
	if p.NoticeDomains.allows(namespace, address) {
		return nil
	}
	return refuse(address, NoticeDomainsFlag)
}

// refuse names the domain of an address alone: conditions are read by more people than
// the address is meant for.
func refuse(address, flag string) error {
	_, domain, _ := cutLast(address, "@")
	return fmt.Errorf("has an address at %q, which this namespace may not use; %s can allow it", domain, flag)
}

// cutLast cuts a text around the last separator.
func cutLast(text, separator string) (before, after string, found bool) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(separator):], true
}
