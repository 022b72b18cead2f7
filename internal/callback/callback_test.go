package callback_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/callback"
)

func TestParseURL(t *testing.T) {
	for name, row := range map[string]struct{ text, host, refused string }{
		"a URL":                  {text: "https://crm.example.com/T0K3N?a=b", host: "crm.example.com"},
		"a port":                 {text: "http://crm.example.com:65535/T0K3N", host: "crm.example.com:65535"},
		"an IPv6 host":           {text: "https://[2a00::1]:8443/T0K3N", host: "[2a00::1]:8443"},
		"a line end":             {text: "https://crm.example.com/T0K3N\n", host: "crm.example.com"},
		"a line end of Windows":  {text: "https://crm.example.com/T0K3N\r\n", host: "crm.example.com"},
		"the longest":            {text: "https://crm.example.com/T0K3N" + strings.Repeat("x", 2048-29), host: "crm.example.com"},
		"one character more":     {text: "https://crm.example.com/T0K3N" + strings.Repeat("x", 2048-28), refused: "more than 2048 characters"},
		"the longest host":       {text: "https://" + strings.Repeat("a", 253) + "/T0K3N", host: strings.Repeat("a", 253)},
		"a longer host":          {text: "https://" + strings.Repeat("a", 254) + "/T0K3N", refused: "more than 253 characters"},
		"two line ends":          {text: "https://crm.example.com/T0K3N\n\n", refused: "not an absolute http or https URL"},
		"nothing":                {refused: "not an absolute http or https URL"},
		"another scheme":         {text: "ftp://crm.example.com/T0K3N", refused: "not an absolute http or https URL"},
		"no scheme":              {text: "crm.example.com/T0K3N", refused: "not an absolute http or https URL"},
		"no host":                {text: "https:///T0K3N", refused: "not an absolute http or https URL"},
		"a port without a host":  {text: "https://:443/T0K3N", refused: "not an absolute http or https URL"},
		"a space":                {text: "https://crm.example.com /T0K3N", refused: "not an absolute http or https URL"},
		"a broken escape":        {text: "https://crm.example.com/T0K3N%zz", refused: "not an absolute http or https URL"},
		"a user and a password":  {text: "https://T0K3N:T0K3N@crm.example.com/", refused: "user name or password"},
		"a fragment":             {text: "https://crm.example.com/#T0K3N", refused: "fragment"},
		"an empty fragment":      {text: "https://crm.example.com/T0K3N#", refused: "fragment"},
		"the port 0":             {text: "https://crm.example.com:0/T0K3N", refused: "port outside 1 to 65535"},
		"the port 65536":         {text: "https://crm.example.com:65536/T0K3N", refused: "port outside 1 to 65535"},
		"a port that is no port": {text: "https://crm.example.com:http/T0K3N", refused: "not an absolute http or https URL"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			parsed, err := callback.ParseURL(row.text)
			if row.refused != "" {
				g.Expect(err).To(MatchError(And(ContainSubstring(row.refused), Not(ContainSubstring("T0K3N")))))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(parsed.Host).To(Equal(row.host))
		})
	}
}

func TestParseHeaderValue(t *testing.T) {
	for name, row := range map[string]struct{ text, value, refused string }{
		"a token":               {text: "Bearer T0K3N", value: "Bearer T0K3N"},
		"one character":         {text: "1", value: "1"},
		"a tab":                 {text: "a\tT0K3N", value: "a\tT0K3N"},
		"a line end":            {text: "T0K3N\n", value: "T0K3N"},
		"a line end of Windows": {text: "T0K3N\r\n", value: "T0K3N"},
		"the longest":           {text: strings.Repeat("x", 4096), value: strings.Repeat("x", 4096)},
		"one character more":    {text: strings.Repeat("x", 4097), refused: "more than 4096 characters"},
		"nothing":               {refused: "is empty"},
		"a line end alone":      {text: "\n", refused: "is empty"},
		"two line ends":         {text: "T0K3N\n\n", refused: "line break"},
		"another header":        {text: "T0K3N\r\nX-Admin: yes", refused: "line break"},
		"a carriage return":     {text: "T0K3N\rX-Admin: yes", refused: "line break"},
		"a line break before":   {text: "\nT0K3N", refused: "line break"},
		"a space before":        {text: " T0K3N", refused: "visible characters"},
		"a space behind":        {text: "T0K3N ", refused: "visible characters"},
		"a zero byte":           {text: "T0K3N\x00", refused: "visible characters"},
		"a delete":              {text: "T0K3N\x7f", refused: "visible characters"},
		"an umlaut":             {text: "T0K3Nä", refused: "visible characters"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			value, err := callback.ParseHeaderValue([]byte(row.text))
			if row.refused != "" {
				g.Expect(err).To(MatchError(And(ContainSubstring(row.refused), Not(ContainSubstring("T0K3N")))))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(value).To(Equal(row.value))
		})
	}
}
