package recipient

import "postbus.dev/postbus/api/v1alpha1"

// words are what a form says in one language.
type words struct {
	// labels are those of the standard fields, by name.
	labels map[string]string
	// The rules say what would be right where a value was refused.
	text, choice, date, integer, float, locale string
	// tooLong says that the values of all fields together are too long.
	tooLong string
	// genders and booleans are what can be chosen.
	genders, booleans []Option
}

// fieldWords are the words by language.
var fieldWords = map[v1alpha1.Language]words{
	v1alpha1.LanguageEnglish: {
		labels: map[string]string{
			"ADDRESS": "Street", "BIRTHDAY": "Date of birth", "CITY": "City", "COUNTRY": "Country",
			"FIRSTNAME": "First name", "FULLNAME": "Full name", "GENDER": "Gender", "HNR": "House number",
			"LASTNAME": "Last name", "LOCALE": "Language (such as en or en_GB)", "NAMEDAY": "Name day",
			"ORGANIZATION": "Organization", "REGION": "Region", "SALUTATION": "Salutation", "STATE": "State",
			"TITLE": "Title", "ZIP": "Postal code",
		},
		text:     "Please write at most 255 characters, without control characters.",
		choice:   "Please choose one of the answers.",
		date:     "Please write a date that exists, as 1990-12-31.",
		integer:  "Please write a whole number, such as 12.",
		float:    "Please write a number, such as 12.5.",
		locale:   "Please write a language such as en, or a language and country such as en_GB.",
		tooLong:  "Please write less here: this is too much text for all fields together.",
		genders:  []Option{{"", "Not given"}, {"f", "Female"}, {"m", "Male"}, {"d", "Diverse"}},
		booleans: []Option{{"", "Not given"}, {"true", "Yes"}, {"false", "No"}},
	},
	v1alpha1.LanguageGerman: {
		labels: map[string]string{
			"ADDRESS": "Straße", "BIRTHDAY": "Geburtsdatum", "CITY": "Ort", "COUNTRY": "Land",
			"FIRSTNAME": "Vorname", "FULLNAME": "Vollständiger Name", "GENDER": "Geschlecht", "HNR": "Hausnummer",
			"LASTNAME": "Nachname", "LOCALE": "Sprache (zum Beispiel de oder de_AT)", "NAMEDAY": "Namenstag",
			"ORGANIZATION": "Organisation", "REGION": "Region", "SALUTATION": "Anrede", "STATE": "Bundesland",
			"TITLE": "Titel", "ZIP": "Postleitzahl",
		},
		text:     "Bitte schreiben Sie höchstens 255 Zeichen, ohne Steuerzeichen.",
		choice:   "Bitte wählen Sie eine der Antworten.",
		date:     "Bitte schreiben Sie ein Datum, das es gibt, in der Form 1990-12-31.",
		integer:  "Bitte schreiben Sie eine ganze Zahl, zum Beispiel 12.",
		float:    "Bitte schreiben Sie eine Zahl mit Punkt, zum Beispiel 12.5.",
		locale:   "Bitte schreiben Sie eine Sprache wie de oder eine Sprache mit Land wie de_AT.",
		tooLong:  "Bitte schreiben Sie hier weniger: Das ist zu viel Text für alle Felder zusammen.",
		genders:  []Option{{"", "Keine Angabe"}, {"f", "Weiblich"}, {"m", "Männlich"}, {"d", "Divers"}},
		booleans: []Option{{"", "Keine Angabe"}, {"true", "Ja"}, {"false", "Nein"}},
	},
}

// Reasons returns the values that can be chosen as why somebody unsubscribes,
// Maileon's names, and none.
func Reasons() (values []string) {
	for _, reason := range reasons[v1alpha1.LanguageEnglish] {
		values = append(values, reason.Value)
	}
	return values
}

// reasons are what can be chosen as why somebody unsubscribes, by language. The
// values are Maileon's, see contact.ParseReason.
var reasons = map[v1alpha1.Language][]Option{
	v1alpha1.LanguageEnglish: {
		{"", "I'd rather not say"},
		{"too_many_messages", "I get too many mails"},
		{"no_demand", "I don't need this any more"},
		{"change_of_channel", "I follow you in another way"},
		{"change_of_interest", "My interests have changed"},
		{"technical_reasons", "The mails don't display well, or another technical reason"},
		{"other", "Something else"},
	},
	v1alpha1.LanguageGerman: {
		{"", "Das möchte ich nicht sagen"},
		{"too_many_messages", "Ich bekomme zu viele Mails"},
		{"no_demand", "Ich brauche das nicht mehr"},
		{"change_of_channel", "Ich folge Ihnen auf anderem Weg"},
		{"change_of_interest", "Meine Interessen haben sich geändert"},
		{"technical_reasons", "Die Mails werden schlecht angezeigt, oder ein anderer technischer Grund"},
		{"other", "Etwas anderes"},
	},
}
