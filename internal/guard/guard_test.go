package guard_test

import (
	"errors"
	"net/netip"
	"net/url"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/guard"
)

// Where nobody may be sent, by the part of the message that says why. Each stands
// for an attack that somebody has made on a sender of webhooks.
var forbidden = map[string]struct{ host, says string }{
	"IPv4 private 10/8, first":           {"10.0.0.0", "private"},
	"IPv4 private 10/8, last":            {"10.255.255.255", "private"},
	"IPv4 private 172.16/12, first":      {"172.16.0.0", "private"},
	"IPv4 private 172.16/12, last":       {"172.31.255.255", "private"},
	"IPv4 private 192.168/16":            {"192.168.1.1", "private"},
	"IPv4 loopback":                      {"127.0.0.1", "loopback"},
	"IPv4 loopback, another":             {"127.255.255.254", "loopback"},
	"IPv4 link-local":                    {"169.254.1.1", "link-local"},
	"metadata of AWS, Azure and Google":  {"169.254.169.254", "metadata"},
	"credentials of AWS ECS":             {"169.254.170.2", "credentials"},
	"credentials of AWS EKS":             {"169.254.170.23", "credentials"},
	"metadata of Alibaba":                {"100.100.100.200", "metadata"},
	"metadata of Oracle":                 {"192.0.0.192", "metadata"},
	"host of Azure, at a public address": {"168.63.129.16", "Azure"},
	"metadata of AWS by IPv6":            {"[fd00:ec2::254]", "metadata"},
	"credentials of AWS EKS by IPv6":     {"[fd00:ec2::23]", "credentials"},
	"metadata of Google by IPv6":         {"[fd20:ce::254]", "metadata"},
	"CGNAT, first":                       {"100.64.0.0", "carrier's NAT"},
	"CGNAT, last":                        {"100.127.255.255", "carrier's NAT"},
	"this network":                       {"0.0.0.0", "this network"},
	"this network, another":              {"0.1.2.3", "this network"},
	"IPv4 multicast":                     {"224.0.0.1", "multicast"},
	"IPv4 multicast, last":               {"239.255.255.255", "multicast"},
	"IPv4 reserved":                      {"240.0.0.1", "reserved"},
	"broadcast":                          {"255.255.255.255", "broadcast"},
	"benchmarks":                         {"198.19.255.255", "benchmarks"},
	"documentation, TEST-NET-1":          {"192.0.2.1", "documentation"},
	"documentation, TEST-NET-2":          {"198.51.100.1", "documentation"},
	"documentation, TEST-NET-3":          {"203.0.113.1", "documentation"},
	"IPv4 protocol assignments":          {"192.0.0.1", "protocols"},
	"6to4 relay":                         {"192.88.99.1", "6to4 relay"},

	"IPv6 loopback":                {"[::1]", "loopback"},
	"IPv6 loopback, written out":   {"[0:0:0:0:0:0:0:1]", "loopback"},
	"IPv6 unspecified":             {"[::]", "unspecified"},
	"IPv6 unique local":            {"[fd12:3456:789a::1]", "private"},
	"IPv6 unique local, first":     {"[fc00::]", "private"},
	"IPv6 link-local":              {"[fe80::1]", "link-local"},
	"IPv6 link-local, last":        {"[febf::1]", "link-local"},
	"IPv6 site-local":              {"[fec0::1]", "site-local"},
	"IPv6 multicast":               {"[ff02::1]", "multicast"},
	"IPv6 documentation":           {"[2001:db8::1]", "documentation"},
	"IPv6 documentation, RFC 9637": {"[3fff:fff::1]", "documentation"},
	"IPv4-mapped":                  {"[::ffff:127.0.0.1]", "IPv4-mapped"},
	"IPv4-mapped, in hexadecimal":  {"[::ffff:7f00:1]", "IPv4-mapped"},
	"IPv4-mapped, of a public one": {"[::ffff:8.8.8.8]", "IPv4-mapped"},
	"IPv4-translated":              {"[::ffff:0:127.0.0.1]", "IPv4-translated"},
	"IPv4-compatible":              {"[::127.0.0.1]", "IPv4-compatible"},
	"NAT64":                        {"[64:ff9b::127.0.0.1]", "NAT64"},
	"NAT64, local":                 {"[64:ff9b:1::a00:1]", "NAT64"},
	"6to4":                         {"[2002:7f00:1::]", "6to4"},
	"Teredo":                       {"[2001::1]", "Teredo"},
	"ISATAP":                       {"[2a00:1450:4001:80e:0:5efe:10.0.0.1]", "ISATAP"},
	"ISATAP, of a public address":  {"[2a00:1450:4001:80e:200:5efe:8.8.8.8]", "ISATAP"},
	"SRv6":                         {"[5f00::1]", "SRv6"},
	"discard":                      {"[100::1]", "discarded"},
	"ORCHID":                       {"[2001:10::1]", "ORCHID"},
	"ORCHIDv2":                     {"[2001:20::1]", "ORCHIDv2"},
	"IPv6 protocol assignments":    {"[2001:2::1]", "protocols"},
	"given to nobody":              {"[4000::1]", "nobody"},
	"a zone":                       {"[fe80::1%25eth0]", "zone"},
	"a zone of a public address":   {"[2a00:1450::1%25eth0]", "zone"},

	"decimal":                       {"2130706433", "unusual form"},
	"decimal of a public address":   {"134744072", "unusual form"},
	"octal":                         {"0177.0.0.1", "unusual form"},
	"octal as one number":           {"017700000001", "unusual form"},
	"hexadecimal":                   {"0x7f000001", "unusual form"},
	"hexadecimal, parts":            {"0x7f.0x0.0x0.0x1", "unusual form"},
	"hexadecimal, upper case":       {"0X7F000001", "unusual form"},
	"hexadecimal, last part alone":  {"127.0.0.0x1", "unusual form"},
	"short, two parts":              {"127.1", "unusual form"},
	"short, three parts":            {"127.0.1", "unusual form"},
	"zero":                          {"0", "unusual form"},
	"a zero in front":               {"127.0.0.01", "unusual form"},
	"a number beyond a byte":        {"127.0.0.257", "unusual form"},
	"a dot behind":                  {"127.0.0.1.", "unusual form"},
	"full-width digits":             {"１２７.0.0.1", "unusual form"},
	"circled digits":                {"①②⑦.0.0.①", "unusual form"},
	"ideographic full stops":        {"127。0。0。1", "unusual form"},
	"localhost":                     {"localhost", "localhost"},
	"localhost with a dot behind":   {"LocalHost.", "localhost"},
	"below localhost":               {"crm.localhost", "localhost"},
	"a Service":                     {"crm.marketing.svc", "Service"},
	"a Service by its whole name":   {"crm.marketing.svc.cluster.local", "Service"},
	"a Service, with a dot behind":  {"crm.marketing.svc.cluster.local.", "Service"},
	"a host of dots":                {"..", "no name of a host"},
	"a host with an empty label":    {"a..example.com", "no name of a host"},
	"a host with a strange letter":  {"a!b.example.com", "no name of a host"},
	"a name that maps to no domain": {"\u2028.example.com", "no name of a host"},
}

func TestForbiddenCallbacks(t *testing.T) {
	for name, row := range forbidden {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			err := guard.Policy{}.CheckURL(parse(t, "https://"+row.host+":8443/T0K3N"))
			g.Expect(err).To(MatchError(And(HavePrefix("callback "), ContainSubstring(row.says), Not(ContainSubstring("T0K3N")))))
			var refusal *guard.RefusedError
			g.Expect(errors.As(err, &refusal)).To(BeTrue())
		})
	}
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	parsed, err := url.Parse(text)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return parsed
}

func TestPublicCallbacks(t *testing.T) {
	for name, host := range map[string]string{
		"a name":                      "crm.example.com",
		"a name with a dot behind":    "crm.example.com.",
		"a name in another script":    "kunden.müller.example",
		"a name with an underscore":   "crm_1.example.com",
		"a name that begins as one":   "127.0.0.1.nip.io", // what it resolves to is looked at when it is dialled
		"a name like a number":        "0x7g.example.1a",
		"a public host called svc":    "svc.example.com",
		"IPv4":                        "8.8.8.8",
		"below 10/8":                  "9.255.255.255",
		"above 10/8":                  "11.0.0.0",
		"below 172.16/12":             "172.15.255.255",
		"above 172.16/12":             "172.32.0.0",
		"above CGNAT":                 "100.128.0.0",
		"below multicast":             "223.255.255.255",
		"IPv6":                        "[2a00:1450:4001:80e::200e]",
		"above the protocols of IPv6": "[2001:200::1]",
		"above documentation":         "[2001:db9::1]",
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(guard.Policy{}.CheckURL(parse(t, "https://"+host+"/"))).To(Succeed())
		})
	}
}

func TestWhatIsAllowed(t *testing.T) {
	for name, row := range map[string]struct {
		policy  guard.Policy
		url     string
		refused string
	}{
		"HTTP without the flag":   {guard.Policy{}, "http://crm.example.com/", "is not HTTPS; --allow-http-callbacks can allow it"},
		"HTTP with it":            {guard.Policy{AllowHTTP: true}, "http://crm.example.com/", ""},
		"HTTP to an allowed host": {hosts("crm.example.com"), "http://crm.example.com/", "is not HTTPS"},
		"FTP":                     {guard.Policy{AllowHTTP: true}, "ftp://crm.example.com/", "no http or https URL"},
		"a name before an at":     {guard.Policy{}, "https://crm.example.com@127.0.0.1/", "user name or password"},
		"an address before an at": {guard.Policy{}, "https://127.0.0.1@crm.example.com/", "user name or password"},
		"no host":                 {guard.Policy{}, "https:///hook", "no name of a host"},

		"a network":                             {networks("10.0.0.0/8"), "https://10.1.2.3/", ""},
		"an address beside the network":         {networks("10.1.0.0/16"), "https://10.2.0.1/", "--allow-callback-networks=10.2.0.1/32 can allow it"},
		"an IPv6 network":                       {networks("fd00::/8"), "https://[fd00::1]/", ""},
		"a spelling in an allowed network":      {networks("127.0.0.0/8"), "https://127.1/", "unusual form"},
		"metadata in a wide network":            {networks("169.254.0.0/16"), "https://169.254.169.254/", "--allow-callback-networks=169.254.169.254/32 can allow it, named alone"},
		"metadata in a wide IPv6 network":       {networks("fc00::/7"), "https://[fd00:ec2::254]/", "--allow-callback-networks=fd00:ec2::254/128 can allow it, named alone"},
		"metadata named alone":                  {networks("169.254.169.254/32"), "https://169.254.169.254/", ""},
		"everything of IPv6, and a mapped IPv4": {networks("::/0"), "https://[::ffff:10.0.0.1]/", "IPv4-mapped"},
		"NAT64 of a public address":             {networks("64:ff9b::/96"), "https://[64:ff9b::808:808]/", ""},
		"NAT64 of a private address":            {networks("64:ff9b::/96"), "https://[64:ff9b::a00:1]/", "NAT64"},
		"NAT64 of an allowed address":           {networks("64:ff9b::/96", "10.0.0.0/8"), "https://[64:ff9b::a00:1]/", ""},
		"a zone in an allowed network":          {networks("fe80::/10"), "https://[fe80::1%25eth0]/", "zone"},
		"localhost, where loopback is":          {networks("127.0.0.0/8"), "https://localhost/", ""},
		"localhost, where IPv6 loopback is":     {networks("::1/128"), "https://localhost/", ""},
		"localhost, where another is":           {networks("10.0.0.0/8"), "https://localhost/", "localhost"},
		"a Service, where a network is":         {networks("10.0.0.0/8"), "https://crm.marketing.svc/", ""},

		"a host":                         {hosts("crm.internal"), "https://crm.internal/", ""},
		"a host in upper case":           {hosts("crm.internal"), "https://CRM.internal./", ""},
		"a Service":                      {hosts("crm.marketing.svc"), "https://crm.marketing.svc/", ""},
		"every Service":                  {hosts("*.svc"), "https://crm.marketing.svc/", ""},
		"a Service of another namespace": {hosts("*.marketing.svc"), "https://crm.sales.svc/", "Service"},
		"localhost by name":              {hosts("localhost"), "https://localhost:8443/", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			err := row.policy.CheckURL(parse(t, row.url))
			if row.refused == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring(row.refused)))
		})
	}
}

func networks(texts ...string) (p guard.Policy) {
	for _, text := range texts {
		p.AllowedNetworks = append(p.AllowedNetworks, netip.MustParsePrefix(text))
	}
	return p
}

func hosts(names ...string) guard.Policy { return guard.Policy{AllowedHosts: names} }

func TestAllowedHosts(t *testing.T) {
	g := NewWithT(t)
	p := hosts("crm.example.com", "*.svc")
	for host, allowed := range map[string]bool{
		"crm.example.com": true, "CRM.Example.COM": true, "crm.example.com.": true,
		"a.crm.example.com": false, "example.com": false, "xcrm.example.com": false, "crm.example.com.evil.example": false,
		"crm.marketing.svc": true, "svc": false, "xsvc": false, "": false, "..": false,
	} {
		g.Expect(p.AllowsHost(host)).To(Equal(allowed), host)
	}
}

func TestParseHost(t *testing.T) {
	for text, want := range map[string]string{
		"crm.example.com": "crm.example.com", "CRM.Example.com.": "crm.example.com", "*.svc": "*.svc",
		"*.Müller.example": "*.xn--mller-kva.example", "localhost": "localhost",
	} {
		g := NewWithT(t)
		host, err := guard.ParseHost(text)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(host).To(Equal(want))
	}
	for text, says := range map[string]string{
		"": "is no host", "*": "is no host", "*.": "is no host", "*.*.svc": "is no host", "a.*": "is no host",
		"https://crm.example.com": "is no host", "crm.example.com:443": "is no host", "127.1": "is no host", "a b": "is no host",
		"10.0.0.1": "allow it by --allow-callback-networks", "::1": "allow it by --allow-callback-networks",
		"[::1]": "allow it by --allow-callback-networks",
	} {
		_, err := guard.ParseHost(text)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(says)), "%q", text)
	}
}

func TestInvalidAddressIsRefused(t *testing.T) {
	NewWithT(t).Expect(guard.Policy{}.CheckAddr(netip.Addr{})).To(MatchError(ContainSubstring("no address")))
}

// Whatever a host is written like: what passes without a name to resolve is
// public, and never dialled as anything else.
func FuzzCheckURL(f *testing.F) {
	for _, row := range forbidden {
		f.Add(row.host)
	}
	f.Add("crm.example.com")
	f.Add("8.8.8.8")
	f.Fuzz(func(t *testing.T, host string) {
		parsed, err := url.Parse("https://" + host + "/")
		if err != nil || (guard.Policy{}).CheckURL(parsed) != nil {
			return
		}
		if addr, err := netip.ParseAddr(parsed.Hostname()); err == nil {
			g := NewWithT(t)
			g.Expect(addr.IsGlobalUnicast()).To(BeTrue())
			g.Expect(addr.IsPrivate() || addr.IsLoopback() || addr.Is4In6() || addr.Zone() != "").To(BeFalse())
		}
	})
}
