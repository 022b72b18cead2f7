package guard

import (
	"bytes"
	"net/netip"
)

// special is a part of the address space that is not the public internet.
type special struct {
	// name is what an address of it is.
	name    string
	network netip.Prefix
	// metadata tells that it gives away credentials of the machine or pod to
	// whoever asks from there.
	metadata bool
	// embeds tells that the last four bytes are the IPv4 address that is reached.
	embeds bool
}

// specials are looked through in order, so what is narrower comes first. They are
// what the registries of IANA call special and not globally reachable
// (iana.org/assignments/iana-ipv4-special-registry and -ipv6-special-registry, by
// RFC 6890), multicast (RFC 5771, RFC 4291), forms of IPv6 addresses that stand
// for an IPv4 address, and the metadata services of clouds, of which one has a
// public address.
var specials = []special{
	{name: "a metadata service of the cloud (AWS, Azure, Google and others)", network: netip.MustParsePrefix("169.254.169.254/32"), metadata: true},
	{name: "a service of credentials (AWS ECS)", network: netip.MustParsePrefix("169.254.170.2/32"), metadata: true},
	{name: "a service of credentials (AWS EKS)", network: netip.MustParsePrefix("169.254.170.23/32"), metadata: true},
	{name: "a metadata service of the cloud (Alibaba)", network: netip.MustParsePrefix("100.100.100.200/32"), metadata: true},
	{name: "a metadata service of the cloud (Oracle)", network: netip.MustParsePrefix("192.0.0.192/32"), metadata: true},
	{name: "a service of the cloud's host (Azure)", network: netip.MustParsePrefix("168.63.129.16/32"), metadata: true},
	{name: "a metadata service of the cloud (AWS)", network: netip.MustParsePrefix("fd00:ec2::254/128"), metadata: true},
	{name: "a service of credentials (AWS EKS)", network: netip.MustParsePrefix("fd00:ec2::23/128"), metadata: true},
	{name: "a metadata service of the cloud (Google)", network: netip.MustParsePrefix("fd20:ce::254/128"), metadata: true},

	{name: "an address of this network (RFC 791)", network: netip.MustParsePrefix("0.0.0.0/8")},
	{name: "a private address (RFC 1918)", network: netip.MustParsePrefix("10.0.0.0/8")},
	{name: "a shared address behind a carrier's NAT (RFC 6598)", network: netip.MustParsePrefix("100.64.0.0/10")},
	{name: "a loopback address (RFC 1122)", network: netip.MustParsePrefix("127.0.0.0/8")},
	{name: "a link-local address (RFC 3927)", network: netip.MustParsePrefix("169.254.0.0/16")},
	{name: "a private address (RFC 1918)", network: netip.MustParsePrefix("172.16.0.0/12")},
	{name: "an address of protocols (RFC 6890)", network: netip.MustParsePrefix("192.0.0.0/24")},
	{name: "an address for documentation (RFC 5737)", network: netip.MustParsePrefix("192.0.2.0/24")},
	{name: "a 6to4 relay (RFC 7526)", network: netip.MustParsePrefix("192.88.99.0/24")},
	{name: "a private address (RFC 1918)", network: netip.MustParsePrefix("192.168.0.0/16")},
	{name: "an address for benchmarks (RFC 2544)", network: netip.MustParsePrefix("198.18.0.0/15")},
	{name: "an address for documentation (RFC 5737)", network: netip.MustParsePrefix("198.51.100.0/24")},
	{name: "an address for documentation (RFC 5737)", network: netip.MustParsePrefix("203.0.113.0/24")},
	{name: "a multicast address (RFC 5771)", network: netip.MustParsePrefix("224.0.0.0/4")},
	{name: "the broadcast address (RFC 919)", network: netip.MustParsePrefix("255.255.255.255/32")},
	{name: "a reserved address (RFC 1112)", network: netip.MustParsePrefix("240.0.0.0/4")},

	{name: "the unspecified address (RFC 4291)", network: netip.MustParsePrefix("::/128")},
	{name: "the loopback address (RFC 4291)", network: netip.MustParsePrefix("::1/128")},
	{name: "an IPv4 address in IPv6 form (IPv4-mapped, RFC 4291)", network: netip.MustParsePrefix("::ffff:0:0/96"), embeds: true},
	{name: "an IPv4 address in IPv6 form (IPv4-translated, RFC 2765)", network: netip.MustParsePrefix("::ffff:0:0:0/96"), embeds: true},
	{name: "an IPv4 address in IPv6 form (IPv4-compatible, RFC 4291)", network: netip.MustParsePrefix("::/96"), embeds: true},
	{name: "an IPv4 address in IPv6 form (NAT64, RFC 6052)", network: netip.MustParsePrefix("64:ff9b::/96"), embeds: true},
	{name: "an IPv4 address in IPv6 form (local NAT64, RFC 8215)", network: netip.MustParsePrefix("64:ff9b:1::/48")},
	{name: "an address whose packets are discarded (RFC 6666)", network: netip.MustParsePrefix("100::/64")},
	{name: "an IPv4 address in IPv6 form (Teredo, RFC 4380)", network: netip.MustParsePrefix("2001::/32")},
	{name: "an identifier that is not routed (ORCHID, RFC 4843)", network: netip.MustParsePrefix("2001:10::/28")},
	{name: "an identifier that is not routed (ORCHIDv2, RFC 7343)", network: netip.MustParsePrefix("2001:20::/28")},
	{name: "an address of protocols (RFC 2928)", network: netip.MustParsePrefix("2001::/23")},
	{name: "an address for documentation (RFC 3849)", network: netip.MustParsePrefix("2001:db8::/32")},
	{name: "an IPv4 address in IPv6 form (6to4, RFC 3056)", network: netip.MustParsePrefix("2002::/16")},
	{name: "an address for documentation (RFC 9637)", network: netip.MustParsePrefix("3fff::/20")},
	{name: "a segment identifier (SRv6, RFC 9602)", network: netip.MustParsePrefix("5f00::/16")},
	{name: "a private address (unique local, RFC 4193)", network: netip.MustParsePrefix("fc00::/7")},
	{name: "a link-local address (RFC 4291)", network: netip.MustParsePrefix("fe80::/10")},
	{name: "a site-local address (RFC 3879)", network: netip.MustParsePrefix("fec0::/10")},
	{name: "a multicast address (RFC 4291)", network: netip.MustParsePrefix("ff00::/8")},
}

var (
	// globalUnicast is what IANA gives out of IPv6 (RFC 4291, 2.4).
	globalUnicast = netip.MustParsePrefix("2000::/3")

	isatap   = special{name: "an IPv4 address in IPv6 form (ISATAP, RFC 5214)"}
	reserved = special{name: "an address that nobody has been given (RFC 4291)"}
)

// specialOf returns the part of the address space that an address is in, nil for
// the public internet.
func specialOf(addr netip.Addr) *special {
	for i := range specials {
		if specials[i].network.Contains(addr) {
			return &specials[i]
		}
	}
	switch {
	case addr.Is4():
		return nil
	case isISATAP(addr):
		return &isatap
	case !globalUnicast.Contains(addr):
		return &reserved
	}
	return nil
}

// isISATAP tells whether the last half of an address holds an IPv4 address, in
// whatever network it is (RFC 5214, 6.1).
func isISATAP(addr netip.Addr) bool {
	all := addr.As16()
	return bytes.Equal(all[8:12], []byte{0, 0, 0x5e, 0xfe}) || bytes.Equal(all[8:12], []byte{2, 0, 0x5e, 0xfe})
}
