package recipient

import (
	"html"
	"os"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// links finds what a mail client could make a link of, more than any known one does: URLs
// of any scheme, bare domains of any ending, addresses, network paths, telephone numbers.
var links = []*regexp.Regexp{
	regexp.MustCompile(`(?i)[a-z][a-z0-9+.-]*:[^\s\x{2060}]`),
	regexp.MustCompile(`(?i)www[.]`),
	regexp.MustCompile(`[\pL\pN-][.\x{3002}\x{FF0E}\x{FF61}][\pL]`),
	regexp.MustCompile(`[\pL\pN.+_-]@[\pL\pN]`),
	regexp.MustCompile(`\\\\|//`),
	regexp.MustCompile(`\pN[-+() ./]*\pN[-+() ./]*\pN[-+() ./]*\pN[-+() ./]*\pN[-+() ./]*\pN[-+() ./]*\pN`),
}

func linksIn(text string) (found []string) {
	for _, pattern := range links {
		found = append(found, pattern.FindAllString(text, -1)...)
	}
	return found
}

// hostileNames are names of strangers that say where to go or whom to call.
var hostileNames = []string{
	"you-won-a-prize.claim-it-at.evil.example", "www.evil.example", "WWW.EVIL.EXAMPLE", "https://evil.example/login?a=b#c", "http:evil.example",
	"ftp://1.2.3.4/x", "mailto:eve@evil.example", "eve@evil.example", "tel:+18005550199", "1-800-555-0199", "+49 (0)800 555-0199", "08005550199",
	`\\\\evil\\share`, "//evil.example", "evil。example", "evil．example", "evil｡example", "bücher.example", "evil.example.", "see evil.example:443/x now",
	"x.y", "javascript:alert(1)", "evil.\u2060example", "a\r\nhttps://evil.example/", "news\u202eelpmaxe.live",
}

func TestUnlinked(t *testing.T) {
	for _, name := range hostileNames {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			unlinked := Unlinked(name)
			g.Expect(linksIn(unlinked)).To(BeEmpty(), "%q", unlinked)
			g.Expect(unlinked).NotTo(MatchRegexp(`[\r\n\x{202E}]`))
		})
	}
	for _, name := range []string{"crm", "crm-2026", "team-a-42", "Example News", "Grüne Post", "Dr. Max J. Müller", "Nr. 5", "Route 66"} {
		NewWithT(t).Expect(Unlinked(name)).To(Equal(name), "it can be copied")
	}
	NewWithT(t).Expect(linksIn("go to evil.example")).NotTo(BeEmpty(), "the rule finds links")
}

// shown returns the text of a part of a mail without the links and the date that are ours.
func shown(part string, data MailData) string {
	for _, ours := range []string{data.ConfirmURL, data.UnsubscribeURL, data.ExpiresAt.Format("02.01.2006")} {
		part = strings.ReplaceAll(part, ours, "")
	}
	return html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(part, " "))
}

// No name that somebody else chose is a link in a built-in mail.
func TestBuiltInMailsMakeNoLinksOfNames(t *testing.T) {
	for _, name := range hostileNames {
		for _, language := range languages {
			g := NewWithT(t)
			data := sampleMail()
			data.ConfirmURL = "https://lists.example.com/confirm/SAMPLE"
			data.List, data.Fields["FIRSTNAME"] = name, name
			data.Email = "victim+" + strings.Map(func(r rune) rune {
				if strings.ContainsRune(" @:\\()\r\n", r) {
					return -1
				}
				return r
			}, name) + "@example.com"
			text, html, err := BuiltInMail(language).Render(data)
			g.Expect(err).NotTo(HaveOccurred())
			for _, part := range []string{text, html} {
				g.Expect(linksIn(shown(part, data))).To(BeEmpty(), "%q in %s", name, part)
			}
			subject := Subject(language, name)
			_, named, _ := strings.Cut(subject, ": ")
			g.Expect(linksIn(named)).To(BeEmpty(), "%q", subject)
			g.Expect(subject).NotTo(ContainSubstring("\n"))
		}
	}
}

// The sample as it is shipped says nothing that a stranger wrote.
func TestSampleMailShowsNothingOfAStranger(t *testing.T) {
	g := NewWithT(t)
	content, err := os.ReadFile("../../config/samples/configmap-doi-mail.yaml")
	g.Expect(err).NotTo(HaveOccurred())
	var sample corev1.ConfigMap
	g.Expect(yaml.UnmarshalStrict(content, &sample)).To(Succeed())
	mail, err := ParseMail(sample.Data)
	g.Expect(err).NotTo(HaveOccurred())
	data := sampleMail()
	data.ConfirmURL = "https://lists.example.com/confirm/SAMPLE"
	text, html, err := mail.Render(data)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(text).To(HavePrefix("Hello Ada,\n"))
	g.Expect(html).To(ContainSubstring("<p>Hello Ada,</p>"))

	const phishing = "winner!\n\nYour bank account was locked. Unlock it now at https://evil.example/login before it is too late"
	for _, name := range append(hostileNames, phishing) {
		data.Fields = map[string]string{"FIRSTNAME": name, "LASTNAME": name}
		data.Email, data.Source, data.Custom = "victim+evil.example/login@example.com", name, map[string]string{"loyalty points": name}
		text, html, err := mail.Render(data)
		g.Expect(err).NotTo(HaveOccurred())
		for _, part := range []string{text, html} {
			g.Expect(linksIn(shown(part, data))).To(BeEmpty(), "%q in %s", name, part)
			g.Expect(part).NotTo(Or(ContainSubstring("bank account"), ContainSubstring("victim")))
		}
	}
}
