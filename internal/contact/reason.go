package contact

import (
	"slices"
	"strconv"
	"strings"
)

// Reason is why a contact left.
type Reason struct {
	// Code is MailUp's number, as its placeholder [Reason] carries it; nil when
	// the reason was given by one of Maileon's names.
	Code *int `json:"code,omitempty"`
	// Name is Maileon's name, empty when the reason was given by a number.
	Name string `json:"name,omitempty"`
	// Text is what the contact wrote, if anything.
	Text string `json:"text,omitempty"`
}

// reasonCodes are MailUp's: 0 administrator, 2 link in the message, 4 import,
// 8 wrong address (80 generic, 81 syntax, 82 domain, 83 abandoned mailbox),
// 16 spam complaint, 32 list-unsubscribe link, 64 list-unsubscribe mail,
// 128 inactive, 256 blocked, 512 repeated bounces, 1024 right to be forgotten.
var reasonCodes = []int{0, 2, 4, 8, 80, 81, 82, 83, 16, 32, 64, 128, 256, 512, 1024}

// reasonNames are Maileon's.
var reasonNames = []string{
	"too_many_messages", "no_demand", "change_of_channel", "change_of_interest", "technical_reasons", "other",
}

// ParseReason checks the parameters reason and reason_text. Both empty is no
// reason: nil. The error is an *InputError.
func ParseReason(reason, text string) (*Reason, error) {
	reason = strings.TrimSpace(reason)
	text, err := parseText("reason_text", text, maxText)
	if err != nil || (reason == "" && text == "") {
		return nil, err
	}
	parsed := &Reason{Text: text}
	code, err := strconv.Atoi(reason)
	switch {
	case reason == "":
		parsed.Name = "other"
	case slices.Contains(reasonNames, reason):
		parsed.Name = reason
	case err == nil && strconv.Itoa(code) == reason && slices.Contains(reasonCodes, code):
		parsed.Code = &code
	default:
		return nil, illegalParameter("reason", "must be one of MailUp's codes or Maileon's names")
	}
	return parsed, nil
}
