package main

import (
	"flag"
	"io"
	"net/netip"
	"net/url"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/guard"
)

// What the flags allow to which namespace, as controller and dispatcher ask for it.
func TestCallbacksOfNamespaces(t *testing.T) {
	g := NewWithT(t)
	var s callbackSettings
	flags := flag.NewFlagSet("postbus", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	s.register(flags)
	g.Expect(flags.Parse([]string{
		"--allow-callback-networks=10.0.0.0/8, marketing/192.168.1.0/24",
		"--allow-callback-networks=shop/fd00::/8,fd12::/16,2001:db8::/32",
		"--allow-callback-hosts=*.internal.example.com,marketing/crm.marketing.svc", "--allow-callback-hosts=shop/*.shop.svc,10/ten.svc",
		"--allow-http-callbacks",
	})).To(Succeed())
	g.Expect(s.policies.Everywhere).To(Equal(guard.Policy{
		AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd12::/16"), netip.MustParsePrefix("2001:db8::/32")},
		AllowedHosts:    []string{"*.internal.example.com"}, AllowHTTP: true,
	}))
	g.Expect(s.policies.Namespaces).To(Equal(map[string]guard.Allowance{
		"marketing": {Networks: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}, Hosts: []string{"crm.marketing.svc"}},
		"shop":      {Networks: []netip.Prefix{netip.MustParsePrefix("fd00::/8")}, Hosts: []string{"*.shop.svc"}},
		"10":        {Hosts: []string{"ten.svc"}},
	}))
	for _, row := range []struct{ namespace, url, refused string }{
		{"marketing", "http://10.1.1.1/", ""},
		{"other", "http://10.1.1.1/", ""},
		{"marketing", "http://192.168.1.7/", ""},
		{"other", "http://192.168.1.7/", "--allow-callback-networks=other/192.168.1.7/32 can allow it"},
		{"marketing", "http://192.168.2.7/", "--allow-callback-networks=marketing/192.168.2.7/32 can allow it"},
		{"marketing", "http://[fd01::1]/", "--allow-callback-networks=marketing/fd01::1/128 can allow it"},
		{"shop", "http://[fd01::1]/", ""},
		{"other", "http://localhost/", "--allow-callback-hosts=other/localhost can allow it"},
		{"other", "http://169.254.169.254/", "--allow-callback-networks=other/169.254.169.254/32 can allow it, named alone"},
	} {
		target, err := url.Parse(row.url)
		g.Expect(err).NotTo(HaveOccurred())
		err = s.policies.For(row.namespace).CheckURL(target)
		if row.refused == "" {
			g.Expect(err).NotTo(HaveOccurred(), "%s %s", row.namespace, row.url)
			continue
		}
		g.Expect(err).To(MatchError(ContainSubstring(row.refused)), "%s %s", row.namespace, row.url)
	}
	for _, host := range []string{"a.internal.example.com", "crm.marketing.svc"} {
		g.Expect(s.policies.For("marketing").AllowsHost(host)).To(BeTrue(), host)
	}
	g.Expect(s.policies.For("other").AllowsHost("crm.marketing.svc")).To(BeFalse())
	g.Expect(s.policies.For("").AllowsHost("crm.marketing.svc")).To(BeFalse())
}
