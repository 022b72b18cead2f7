package recipient

import (
	"cmp"
	"strings"

	"golang.org/x/text/language"

	"postbus.dev/postbus/api/v1alpha1"
)

// languages are those that texts are built in for.
var languages = []v1alpha1.Language{v1alpha1.LanguageEnglish, v1alpha1.LanguageGerman}

// LanguageOf returns the language of a contact whose field LOCALE is xx or
// xx_XX, or the list's where that says nothing that texts are built in for.
func LanguageOf(locale string, list v1alpha1.Language) v1alpha1.Language {
	prefix, _, _ := strings.Cut(locale, "_")
	for _, known := range languages {
		if strings.EqualFold(prefix, string(known)) {
			return known
		}
	}
	return cmp.Or(list, v1alpha1.LanguageEnglish)
}

// maxAcceptLanguage is how long a header is looked at. Browsers send some dozen
// characters.
const maxAcceptLanguage = 256

// LanguageFor returns the language that a browser asks for in its header
// Accept-Language (RFC 9110, section 12.5.4), or the list's where it asks for
// none that texts are built in for.
func LanguageFor(accept string, list v1alpha1.Language) v1alpha1.Language {
	list = cmp.Or(list, v1alpha1.LanguageEnglish)
	if len(accept) > maxAcceptLanguage {
		return list
	}
	wanted, _, err := language.ParseAcceptLanguage(accept)
	if err != nil {
		return list
	}
	for _, tag := range wanted {
		base, _ := tag.Base()
		for _, known := range languages {
			if base.String() == string(known) {
				return known
			}
		}
	}
	return list
}
