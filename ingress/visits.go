package ingress

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/recipient"
)

// confirm asks whoever was sent an opt-in mail to confirm, and confirms.
func (s *server) confirm(ctx context.Context, v *visit) (pageAnswer, error) {
	confirmation := contact.Confirmation{RequestedAt: v.link.RequestedAt, Plus: v.link.Plus, Time: v.at}
	used := pageOf(http.StatusGone, recipient.PageUsed)
	if !v.posts {
		found, err := s.find(ctx, v)
		switch {
		case err != nil:
			return pageAnswer{}, err
		case found == nil:
			return gone(), nil
		case confirmation.Used(found):
			return used, nil
		}
		return pageOf(http.StatusOK, recipient.PageConfirm), nil
	}
	decision, err := s.change(ctx, v, confirmation.Decide)
	switch {
	case err != nil:
		return pageAnswer{}, err
	case decision.Contact.ID == 0:
		return gone(), nil
	case !decision.Changed:
		return used, nil
	case v.list.Spec.OptIn.ConfirmedURL != "":
		return pageAnswer{status: http.StatusSeeOther, location: v.list.Spec.OptIn.ConfirmedURL}, nil
	}
	answer := pageOf(http.StatusOK, recipient.PageConfirmed)
	answer.page.ProfileURL = s.profileFromConfirm(v)
	return answer, nil
}

// profileAfterConfirm is how long the link to the profile works that a page
// shows once an opt-in is confirmed.
const profileAfterConfirm = time.Hour

// profileFromConfirm returns the contact's profile, seen from the page that
// confirms; whatever a proxy has put before their paths is the same.
func (s *server) profileFromConfirm(v *visit) string {
	return ".." + link.Profile.Path() + s.options.LinkKeys.Token(link.Link{
		Purpose: link.Profile, List: v.link.List, Contact: v.link.Contact, Expires: v.at.Add(profileAfterConfirm),
	})
}

// unsubscribe asks whether somebody wants to leave, and ends the contact. Where it
// has ended before, the link can't tell whether the same person is a contact again.
func (s *server) unsubscribe(ctx context.Context, v *visit) (pageAnswer, error) {
	left := pageOf(http.StatusOK, recipient.PageLeft)
	if !v.posts {
		found, err := s.find(ctx, v)
		if err != nil || found == nil {
			return left, err
		}
		return pageOf(http.StatusOK, recipient.PageUnsubscribe), nil
	}
	removal := contact.Removal{
		Event: contact.EventUnsubscribe, EventSource: contact.SourceRecipient, Time: v.at, Reason: reasonOf(v.form),
	}
	decision, err := s.change(ctx, v, removal.Decide)
	if err != nil || !decision.Removed {
		return left, err
	}
	return pageOf(http.StatusOK, recipient.PageUnsubscribed), nil
}

// MailUp's codes of how people leave by a link.
const (
	reasonLink     = 2  // in the message
	reasonOneClick = 32 // in its header List-Unsubscribe
)

// maxReasonText is how many characters of what somebody writes are kept.
const maxReasonText = 255

// reasonOf returns why somebody leaves: by one click (RFC 8058, section 3.1),
// for one of the reasons of the page, or just by the link. What can't be a reason
// is no reason to keep somebody who wants to leave.
func reasonOf(form map[string]string) *contact.Reason {
	code := reasonLink
	if strings.EqualFold(form["List-Unsubscribe"], "One-Click") {
		code = reasonOneClick
	}
	name, text := form[reasonParameter], []rune(unixLines(form[reasonTextParameter]))
	if !slices.Contains(recipient.Reasons(), name) {
		name = ""
	}
	reason, err := contact.ParseReason(name, string(text[:min(len(text), maxReasonText)]))
	if err != nil || reason == nil {
		return &contact.Reason{Code: &code}
	}
	return reason
}

// lineEnds are those that browsers take for one, and what most callers send.
var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// unixLines returns a text with the line ends that most callers send; forms
// send CR LF.
func unixLines(text string) string { return lineEnds.Replace(text) }

// profile shows a contact its fields, and stores what it changes.
func (s *server) profile(ctx context.Context, v *visit) (pageAnswer, error) {
	found, err := s.find(ctx, v)
	switch {
	case err != nil:
		return pageAnswer{}, err
	case found == nil:
		return gone(), nil
	}
	answer := pageOf(http.StatusOK, recipient.PageProfile)
	answer.page.Email, answer.page.Fields = found.Email, v.fields(found)
	answer.page.Shown = shownBy(answer.page.Fields)
	if !v.posts {
		return answer, nil
	}
	if before := v.form[shownParameter]; before != "" && len(before) <= maxShown {
		answer.page.Shown = before
	}
	save, ok := v.readProfile(&answer.page)
	if !ok {
		answer.status = http.StatusUnprocessableEntity
		return answer, nil
	}
	if err := s.logBytes.check(v.link.List.Namespace, v.at); err != nil {
		return pageAnswer{}, err
	}
	decision, err := s.change(ctx, v, save.Decide)
	switch {
	case refuseField(&answer.page, err):
		answer.status = http.StatusUnprocessableEntity
		return answer, nil
	case err != nil:
		return pageAnswer{}, err
	case decision.Contact.ID == 0:
		return gone(), nil
	}
	return pageOf(http.StatusOK, recipient.PageSaved), nil
}

// refuseField marks the field of the form that a refused change names, if it names one. The
// form's values were checked one by one before, so what is left is their total.
func refuseField(page *recipient.Page, err error) bool {
	var refused *problem
	if !errors.As(err, &refused) || refused.parameter == "" {
		return false
	}
	at := slices.IndexFunc(page.Fields, func(field recipient.Field) bool { return contact.Shorten(field.Name) == refused.parameter })
	if at < 0 {
		return false
	}
	page.Fields[at].RefuseTotal()
	return true
}

// fields returns the fields of the list's profile page, with what is stored.
func (v *visit) fields(found *contact.Contact) (fields []recipient.Field) {
	for _, name := range v.list.ProfileFields() {
		field, ok := recipient.NewField(name, v.list.Spec.CustomFields, v.language)
		if !ok {
			continue // the list does not declare it any more
		}
		field.Show(shown(found, name))
		fields = append(fields, field)
	}
	return fields
}

// shown returns a field's value as a form shows it, empty when it is not set.
func shown(found *contact.Contact, name string) string {
	if text, set := found.StandardFields[name]; set {
		return unixLines(text)
	}
	switch value := found.CustomFields[name].(type) {
	case string:
		return unixLines(value)
	case float64:
		const exact = 1 << 53 // integers up to here are written in full
		if math.Abs(value) < exact {
			return strconv.FormatFloat(value, 'f', -1, 64)
		}
		return strconv.FormatFloat(value, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(value)
	}
	return ""
}

// shownParameter has what a form showed when somebody opened it: the contact may
// be another when the form comes back.
const shownParameter = "shown"

// maxShown is how many characters that has at most, with room for more fields
// than a page has.
const maxShown = 1 << 10

// shownBy returns what a form shows: a short digest for each field. It keeps from
// nobody what stands beside it in the form.
func shownBy(fields []recipient.Field) string {
	digests := make([]string, len(fields))
	for i := range fields {
		digests[i] = shownDigest(fields[i].Name, fields[i].Value)
	}
	return strings.Join(digests, " ")
}

func shownDigest(name, value string) string { return digest(name, value)[:16] }

// readProfile reads what the form sent over what it showed, and checks it. What
// came back as it was shown is no change, also where the form can't show all of
// it, and where another has changed it meanwhile. It is not ok when a value is
// refused; the fields then have what was sent.
func (v *visit) readProfile(page *recipient.Page) (save contact.Save, ok bool) {
	save = contact.Save{
		Update: true, EventSource: contact.SourceRecipient, Time: v.at,
		StandardFields: map[string]string{}, CustomFields: map[string]any{},
	}
	ok = true
	shown := strings.Fields(page.Shown)
	for i := range page.Fields {
		field := &page.Fields[i]
		sent, given := v.form[field.Name]
		if !given {
			continue
		}
		sent = unixLines(sent)
		field.Value = sent
		if slices.Contains(shown, shownDigest(field.Name, sent)) {
			continue
		}
		var err error
		if name, custom := strings.CutPrefix(field.Name, contact.CustomPrefix); custom {
			save.CustomFields[name], err = contact.CheckCustomField(v.list.Spec.CustomFields, name, sent)
		} else {
			name = strings.TrimPrefix(field.Name, contact.StandardPrefix)
			save.StandardFields[name], err = contact.CheckStandardField(name, sent)
		}
		if err != nil {
			field.Refuse(sent)
			ok = false
		}
	}
	return save, ok
}
