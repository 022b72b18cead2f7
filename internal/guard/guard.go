// Package guard answers: where may a callback point?
//
// Whoever may apply a WebhookSubscription has Postbus call an address from where
// Postbus runs: from within the cluster, past its firewall. So what is not on the
// public internet is refused, unless an administrator has allowed it. The
// decisions are pure. The controller asks for a URL when it is applied, and the
// dispatcher asks again before each call and for each address that it dials,
// because a name can have another address by then.
package guard

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Policies says what callbacks may point to in addition to the public internet by HTTPS: those of
// all namespaces, and those of one. Decisions are made by the Policy of a namespace, so that none
// can be made without one. The zero Policies allows nothing more.
type Policies struct {
	// Everywhere holds for the callbacks of all namespaces.
	Everywhere Policy
	// Namespaces has what the callbacks of one namespace may point to in addition.
	Namespaces map[string]Allowance
}

// Allowance is what an administrator allows to one namespace. Its fields are those of a Policy.
type Allowance struct {
	Networks []netip.Prefix
	Hosts    []string
}

// For returns the policy of a namespace's callbacks.
func (p Policies) For(namespace string) Policy {
	policy := p.Everywhere
	policy.namespace = namespace
	if own, has := p.Namespaces[namespace]; has {
		policy.AllowedNetworks = slices.Concat(policy.AllowedNetworks, own.Networks)
		policy.AllowedHosts = slices.Concat(policy.AllowedHosts, own.Hosts)
	}
	return policy
}

// Policy says what callbacks may point to beside the public internet by HTTPS.
// The zero Policy allows nothing more.
type Policy struct {
	// namespace is whose policy it is: refusals name the flag that would allow it there.
	namespace string
	// AllowedNetworks are networks that may be called although they are not
	// public. IPv4 networks are in IPv4 form.
	AllowedNetworks []netip.Prefix
	// AllowedHosts are names that may be called whatever they resolve to, as
	// ParseHost returns them.
	AllowedHosts []string
	// AllowHTTP lets callbacks be called without TLS.
	AllowHTTP bool
}

// RefusedError is the error of everything that a Policy does not allow.
type RefusedError struct {
	// Finding is what is wrong, as the end of a sentence that begins with the
	// callback or its URL: "points to …". It never has more of the URL than its
	// host, because the rest may hold a secret.
	Finding string
}

// Error returns the finding as a sentence's beginning.
func (r *RefusedError) Error() string { return "callback " + r.Finding }

func refuse(format string, arguments ...any) error {
	return &RefusedError{Finding: fmt.Sprintf(format, arguments...)}
}

// CheckURL refuses what can be told from a URL alone, without resolving its
// name. What passes may still resolve to an address that CheckAddr refuses. The
// error is a *RefusedError.
func (p Policy) CheckURL(target *url.URL) error {
	switch {
	case target.Scheme != "https" && target.Scheme != "http":
		return refuse("is no http or https URL")
	case target.Scheme == "http" && !p.AllowHTTP:
		return refuse("is not HTTPS; --allow-http-callbacks can allow it")
	case target.User != nil:
		return refuse("has a user name or password in its URL")
	}
	return p.checkHost(target.Hostname())
}

func (p Policy) checkHost(text string) error {
	if strings.Contains(text, ":") { // no name has one, and the brackets are off
		return p.checkLiteral(text)
	}
	host, err := normalize(text)
	switch {
	case err != nil:
		return refuse("has a host that is no name of a host")
	case p.AllowsHost(host):
		return nil
	case endsInNumber(host):
		return p.checkLiteral(text)
	}
	return p.checkName(host)
}

// checkLiteral checks a host that is an address. Programs read some forms in
// different ways: 2130706433, 0x7f.1, 0177.0.0.1, 127.1 and 127.0.0.1. with a dot
// behind it are all 127.0.0.1 to some.
func (p Policy) checkLiteral(text string) error {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return refuse("points to %.40q, an address in an unusual form; write IPv4 as four decimal numbers", text)
	}
	return p.CheckAddr(addr)
}

// checkName refuses the names that are never of the public internet. What others
// resolve to is looked at when it is dialled.
func (p Policy) checkName(host string) error {
	switch {
	case isBelow(host, "localhost"):
		// RFC 6761 (6.3): whatever a resolver says, this is loopback.
		if p.allowsAny(netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()) {
			return nil
		}
		return refuse("points to %s, the machine that Postbus runs on; %s can allow it", host, p.flag(hostFlag, host))
	case isBelow(host, "svc"), isBelow(host, "svc.cluster.local"):
		// Which network Services are in is known when they are dialled.
		if len(p.AllowedNetworks) > 0 {
			return nil
		}
		return refuse("points to %s, a Service in the cluster; %s can allow it", host, p.flag(hostFlag, host))
	}
	return nil
}

// The flags that allow what is refused.
const (
	hostFlag    = "--allow-callback-hosts"
	networkFlag = "--allow-callback-networks"
)

// flag returns a flag with the value that allows something to the policy's namespace.
func (p Policy) flag(name, allowed string) string {
	if p.namespace == "" {
		return name + "=" + allowed
	}
	return name + "=" + p.namespace + "/" + allowed
}

func (p Policy) allowsAny(addrs ...netip.Addr) bool {
	return slices.ContainsFunc(addrs, func(addr netip.Addr) bool { return p.CheckAddr(addr) == nil })
}

// AllowsHost tells whether a host is allowed whatever it resolves to.
func (p Policy) AllowsHost(text string) bool {
	host, err := normalize(text)
	return err == nil && slices.ContainsFunc(p.AllowedHosts, func(allowed string) bool {
		suffix, isSuffix := strings.CutPrefix(allowed, "*.")
		return host == allowed || isSuffix && strings.HasSuffix(host, "."+suffix)
	})
}

// CheckAddr refuses addresses that are not of the public internet. The error is
// a *RefusedError.
func (p Policy) CheckAddr(addr netip.Addr) error {
	if !addr.IsValid() {
		return refuse("points to no address")
	}
	if addr.Zone() != "" {
		return refuse("points to %s, an address with a zone: it means something on one machine only", addr)
	}
	found := specialOf(addr)
	if found == nil || p.allowsSpecial(addr, found) {
		return nil
	}
	flag := p.flag(networkFlag, netip.PrefixFrom(addr, addr.BitLen()).String())
	if found.metadata {
		return refuse("points to %s, %s; %s can allow it, named alone", addr, found.name, flag)
	}
	return refuse("points to %s, %s; %s can allow it", addr, found.name, flag)
}

// allowsSpecial tells whether an address that is not public is allowed. A network
// that is allowed does not open what has credentials for the asking, nor IPv4
// addresses in IPv6 form: those must be meant.
func (p Policy) allowsSpecial(addr netip.Addr, found *special) bool {
	allowed := slices.ContainsFunc(p.AllowedNetworks, func(network netip.Prefix) bool {
		return network.Contains(addr) && (!found.metadata || network.IsSingleIP())
	})
	if allowed && found.embeds {
		bytes := addr.As16()
		return p.CheckAddr(netip.AddrFrom4([4]byte(bytes[12:]))) == nil
	}
	return allowed
}
