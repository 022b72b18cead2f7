package mailpolicy

import (
	"net/mail"
	"testing"

	. "github.com/onsi/gomega"
)

func TestCheckSender(t *testing.T) {
	for name, row := range map[string]struct {
		flags   []string
		address string
		allowed bool
	}{
		"no flag":                                {nil, "security@bank.example", true},
		"the sender itself":                      {[]string{"news@a.example"}, "News@A.example", true},
		"another sender of its domain":           {[]string{"news@a.example"}, "security@a.example", false},
		"another domain":                         {[]string{"news@a.example"}, "news@b.example", false},
		"any sender of a domain":                 {[]string{"news@a.example,*@b.example"}, "x@b.example", true},
		"a domain below it":                      {[]string{"*@b.example"}, "x@a.b.example", false},
		"domains below it":                       {[]string{"*@*.b.example"}, "x@a.b.example", true},
		"not itself":                             {[]string{"*@*.b.example"}, "x@b.example", false},
		"a domain that merely ends so":           {[]string{"*@*.b.example"}, "x@evilb.example", false},
		"--mail-from":                            {[]string{"news@a.example"}, "Default@Example.com", true},
		"for this namespace":                     {[]string{"marketing/news@a.example"}, "news@a.example", true},
		"for another namespace":                  {[]string{"shop/news@a.example"}, "news@a.example", false},
		"for this namespace by a second flag":    {[]string{"shop/news@a.example", "marketing/*@a.example"}, "news@a.example", true},
		"anything for this namespace":            {[]string{"news@a.example,marketing/*"}, "x@bank.example", true},
		"an internationalized domain":            {[]string{"*@bücher.example"}, "x@XN--bcher-kva.example", true},
		"two @, of which the last one counts":    {[]string{"*@a.example"}, "a@a.example@bank.example", false},
		"something that is not an address":       {[]string{"*@a.example"}, "a.example", false},
		"a homograph is a domain of its own":     {[]string{"*@bank.example"}, "x@bаnk.example", false},
		"an address of an entry without a local": {[]string{"*@a.example"}, "@a.example", true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			policy := Policy{From: &mail.Address{Address: "default@example.com"}}
			for _, flag := range row.flags {
				g.Expect(policy.Senders.AddSenders(flag)).To(Succeed())
			}
			err := policy.CheckSender("marketing", row.address)
			if row.allowed {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring("--allowed-senders can allow it")))
		})
	}
}

func TestCheckRecipient(t *testing.T) {
	g := NewWithT(t)
	var policy Policy
	g.Expect(policy.CheckRecipient("marketing", "stranger@anywhere.example")).To(Succeed(), "no flag")
	g.Expect(policy.NoticeDomains.AddDomains("example.com, *.example.org,shop/shop.example")).To(Succeed())
	for _, allowed := range []string{"ops@example.com", "ops@EXAMPLE.com", "ops@a.b.example.org"} {
		g.Expect(policy.CheckRecipient("marketing", allowed)).To(Succeed(), allowed)
	}
	g.Expect(policy.CheckRecipient("shop", "ops@shop.example")).To(Succeed())
	for _, refused := range []string{"ops@example.org", "ops@sub.example.com", "ops@shop.example", "example.com", "x@example.com@evil.example"} {
		g.Expect(policy.CheckRecipient("marketing", refused)).NotTo(Succeed(), refused)
	}
	g.Expect(policy.CheckRecipient("marketing", "victim@evil.example")).To(MatchError(
		`has an address at "evil.example", which this namespace may not use; --notice-domains can allow it`))
}

func TestInvalidEntries(t *testing.T) {
	for _, text := range []string{"", "news", "@a.example", "n*@a.example", "*@", "*@example", "Ma_rketing/news@a.example", "marketing/", "news@a.example,"} {
		NewWithT(t).Expect(new(Allowlist).AddSenders(text)).NotTo(Succeed(), text)
	}
	for _, text := range []string{"", "example", "*.", "*.example", "ops@example.com", "a..b", "a b.example", "marketing/"} {
		NewWithT(t).Expect(new(Allowlist).AddDomains(text)).NotTo(Succeed(), text)
	}
}
