package contact

import "strings"

// maxSubscriptionPage is how many characters a page's address may have: what
// browsers and proxies agree on for a URL.
const maxSubscriptionPage = 2048

// ParsePermission returns the permission that the parameter "permission" names.
// The error is an *InputError.
func ParsePermission(text string) (Permission, error) {
	text = strings.TrimSpace(text)
	if len(text) == 1 && text[0] >= '1' && text[0] <= '6' {
		return Permission(text[0] - '0'), nil
	}
	return 0, illegalParameter("permission", "must be 1, 2, 3, 4, 5 or 6")
}

// ParseExternalID returns the contact's id elsewhere without surrounding
// spaces, at most 255 characters. The error is an *InputError.
func ParseExternalID(text string) (string, error) {
	return parseText("external_id", text, maxText)
}

// ParseSource returns the value of the parameter "src" without surrounding
// spaces, at most 255 characters. The error is an *InputError.
func ParseSource(text string) (string, error) {
	return parseText("src", text, maxText)
}

// ParseSubscriptionPage returns the value of the parameter "subscription_page"
// without surrounding spaces, at most 2048 characters. The error is an
// *InputError.
func ParseSubscriptionPage(text string) (string, error) {
	return parseText("subscription_page", text, maxSubscriptionPage)
}

func parseText(parameter, text string, longest int) (string, error) {
	text = strings.TrimSpace(text)
	if rule := checkText(text, longest); rule != "" {
		return "", illegalParameter(parameter, rule)
	}
	return text, nil
}

func illegalParameter(name, rule string) error {
	return &InputError{Problem: IllegalParameter, Parameter: name, Name: name, Rule: rule}
}
