package ingress

import (
	"maps"
	"slices"
	"strings"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
)

// The parameters beside standard_<FIELD> and custom_<Field>. The names are
// Maileon's.
const (
	keyParameter              = "key"
	emailParameter            = "email"
	externalIDParameter       = "external_id"
	permissionParameter       = "permission"
	syncModeParameter         = "sync_mode"
	sourceParameter           = "src"
	subscriptionPageParameter = "subscription_page"
	doiParameter              = "doi"
	doiPlusParameter          = "doiplus"
	doiMailingParameter       = "doimailing"
)

var parameters = []string{
	keyParameter, emailParameter, externalIDParameter, permissionParameter, syncModeParameter, sourceParameter,
	subscriptionPageParameter, doiParameter, doiPlusParameter, doiMailingParameter,
}

// call is a request of an accepted key.
type call struct {
	given map[string]string
	list  *v1alpha1.ContactListSpec
}

// save checks the parameters, in the same order each time, so that of several
// mistakes the same one is told.
func (c call) save() (contact.Save, error) {
	save := contact.Save{ResendPolicy: c.list.OptIn.ResendPolicy}
	for _, read := range []func(*contact.Save) error{
		c.readAddress, c.readSyncMode, c.readPermission, c.readOrigin, c.readOptIn, c.readFields,
	} {
		if err := read(&save); err != nil {
			return contact.Save{}, err
		}
	}
	return save, nil
}

func (c call) readAddress(save *contact.Save) (err error) {
	save.Address, err = contact.ParseAddress(c.given[emailParameter])
	return err
}

func (c call) readSyncMode(save *contact.Save) error {
	mode, given := c.given[syncModeParameter]
	if !given {
		return nil
	}
	switch strings.TrimSpace(mode) {
	case "1":
		save.Update = true
	case "2":
	default:
		return illegalValue(syncModeParameter, "must be 1 (update) or 2 (ignore)")
	}
	return nil
}

func (c call) readPermission(save *contact.Save) (err error) {
	if permission, given := c.given[permissionParameter]; given {
		save.Permission, err = contact.ParsePermission(permission)
	}
	return err
}

func (c call) readOrigin(save *contact.Save) (err error) {
	if text, given := c.given[externalIDParameter]; given {
		id, err := contact.ParseExternalID(text)
		if err != nil {
			return err
		}
		save.ExternalID = &id
	}
	if save.Source, err = contact.ParseSource(c.given[sourceParameter]); err != nil {
		return err
	}
	save.SubscriptionPage, err = contact.ParseSubscriptionPage(c.given[subscriptionPageParameter])
	return err
}

// readOptIn reads the double opt-in. Its other parameters are ignored without
// doi=true, whatever they hold.
func (c call) readOptIn(save *contact.Save) error {
	wanted, err := c.flag(doiParameter)
	if err != nil || !wanted {
		return err
	}
	plus, err := c.flag(doiPlusParameter)
	if err != nil {
		return err
	}
	mailing, given := c.given[doiMailingParameter]
	mailing = strings.TrimSpace(mailing)
	if given && !c.hasMailing(mailing) {
		return illegalValue(doiMailingParameter, "must be the key of an opt-in mailing of the list")
	}
	save.OptIn = &contact.OptIn{Mailing: mailing, Plus: plus}
	return nil
}

func (c call) hasMailing(key string) bool {
	return slices.ContainsFunc(c.list.OptIn.Mailings, func(mailing v1alpha1.OptInMailing) bool {
		return mailing.Key == key
	})
}

func (c call) flag(name string) (bool, error) {
	text, given := c.given[name]
	if !given {
		return false, nil
	}
	switch strings.TrimSpace(text) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, illegalValue(name, "must be true or false")
}

func (c call) readFields(save *contact.Save) error {
	save.StandardFields = map[string]string{}
	save.CustomFields = map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(c.given)) {
		text := c.given[name]
		if field, standard := strings.CutPrefix(name, contact.StandardPrefix); standard {
			value, err := contact.CheckStandardField(field, text)
			if err != nil {
				return err
			}
			save.StandardFields[field] = value
		}
		if field, custom := strings.CutPrefix(name, contact.CustomPrefix); custom {
			value, err := contact.CheckCustomField(c.list.CustomFields, field, text)
			if err != nil {
				return err
			}
			save.CustomFields[field] = value
		}
	}
	return nil
}

func illegalValue(parameter, rule string) error {
	return &contact.InputError{Problem: contact.IllegalParameter, Parameter: parameter, Name: parameter, Rule: rule}
}
