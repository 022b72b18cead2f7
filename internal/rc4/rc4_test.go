package rc4_test

import (
	"encoding/hex"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/rc4"
)

func TestParseKey(t *testing.T) {
	for name, row := range map[string]struct{ value, refused string }{
		"a text":                {value: "myKey1234"},
		"one byte":              {value: "k"},
		"bytes":                 {value: "\x00\xff"},
		"256 bytes":             {value: strings.Repeat("k", 256)},
		"spaces are a part":     {value: " my key "},
		"nothing":               {"", "it has 0 bytes, it must have 1 to 256"},
		"257 bytes":             {strings.Repeat("k", 257), "it has 257 bytes"},
		"a line end":            {"myKey1234\n", "it ends with a line end"},
		"a line end of Windows": {"myKey1234\r\n", "it ends with a line end"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := rc4.ParseKey([]byte(row.value))
			if row.refused == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(And(MatchError(rc4.ErrKey), MatchError(ContainSubstring(row.refused))))
			g.Expect(err.Error()).NotTo(ContainSubstring("myKey1234"))
		})
	}
}

// The first bytes of the key stream, by RFC 6229.
func TestEncrypt(t *testing.T) {
	for key, stream := range map[string]string{
		"0102030405":                       "b2396305f03dc027ccc3524a0a1118a8",
		"0102030405060708090a0b0c0d0e0f10": "9ac7cc9a609d1ef7b2932899cde41b97",
	} {
		g := NewWithT(t)
		raw, err := hex.DecodeString(key)
		g.Expect(err).NotTo(HaveOccurred())
		parsed, err := rc4.ParseKey(raw)
		g.Expect(err).NotTo(HaveOccurred())
		encrypted := parsed.Encrypt(make([]byte, 16))
		g.Expect(hex.EncodeToString(encrypted)).To(Equal(stream))
		g.Expect(parsed.Encrypt(encrypted)).To(Equal(make([]byte, 16)), "each text begins at the start of the stream")
	}
	NewWithT(t).Expect(rc4.Key{}.Encrypt([]byte("text"))).To(BeEmpty())
}
