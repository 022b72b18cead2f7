package ingress

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"postbus.dev/postbus/internal/contact"
)

// The parameters of a save beside standard_<FIELD> and custom_<Field>. The
// names are Maileon's.
const (
	externalIDParameter       = "external_id"
	permissionParameter       = "permission"
	syncModeParameter         = "sync_mode"
	sourceParameter           = "src"
	subscriptionPageParameter = "subscription_page"
	doiParameter              = "doi"
	doiPlusParameter          = "doiplus"
	doiMailingParameter       = "doimailing"
)

// save creates or updates a contact. Parameters are checked in the same order
// each time, so that of several mistakes the same one is told.
func (c call) save() (apply, error) {
	save := contact.Save{
		Address: c.address, EventSource: c.grant.source(), Time: c.at,
		ResendPolicy: c.grant.list.Spec.OptIn.ResendPolicy, ResendInterval: c.grant.list.ResendInterval(),
	}
	for _, read := range []func(*contact.Save) error{
		c.readSyncMode, c.readPermission, c.readOrigin, c.readOptIn, c.readFields,
	} {
		if err := read(&save); err != nil {
			return nil, err
		}
	}
	return save.Decide, nil
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
	list := c.grant.list
	switch {
	case given && (mailing == "" || list.Mailing(mailing) == nil):
		return illegalValue(doiMailingParameter, "must be the key of an opt-in mailing of the list")
	case !given && len(list.Spec.OptIn.Mailings) > 0 && list.Mailing("") == nil:
		return illegalValue(doiMailingParameter, "is required: no mailing of the list is the default")
	}
	save.OptIn = &contact.OptIn{Mailing: mailing, Plus: plus}
	return nil
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
			value, err := contact.CheckCustomField(c.grant.list.Spec.CustomFields, field, text)
			if err != nil {
				return err
			}
			save.CustomFields[field] = value
		}
	}
	return nil
}

// saved is the body of a 200 to a save.
type saved struct {
	Contact savedContact `json:"contact"`
	DOI     savedOptIn   `json:"doi"`
}

type savedContact struct {
	// ID is a string because JavaScript can't hold every 64-bit number.
	ID      string `json:"id"`
	List    string `json:"list"`
	Created bool   `json:"created"`
}

type savedOptIn struct {
	Started bool `json:"started"`
}

func savedAnswer(list string, decision *contact.Decision) any {
	return saved{Contact: savedContactOf(list, decision), DOI: savedOptIn{Started: decision.OptInStarted}}
}

func savedContactOf(list string, decision *contact.Decision) savedContact {
	return savedContact{ID: strconv.FormatInt(decision.Contact.ID, 10), List: list, Created: decision.Created}
}
