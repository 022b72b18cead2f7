package contact

import "time"

// View is the part of a contact that receivers and readers are shown, under
// names that stay when the stored contact changes.
type View struct {
	ID               int64             `json:"id,string"`
	Email            string            `json:"email"`
	ExternalID       string            `json:"externalId,omitempty"`
	Permission       Permission        `json:"permission"`
	StandardFields   map[string]string `json:"standardFields,omitempty"`
	CustomFields     map[string]any    `json:"customFields,omitempty"`
	CustomSource     string            `json:"customSource,omitempty"`
	SubscriptionPage string            `json:"subscriptionPage,omitempty"`
	Revision         int64             `json:"revision"`
	CreatedAt        time.Time         `json:"createdAt"`
	UpdatedAt        time.Time         `json:"updatedAt"`
}

// View returns what may be shown of the contact.
func (c *Contact) View() View {
	return View{
		ID: c.ID, Email: c.Email, ExternalID: c.ExternalID, Permission: c.Permission,
		StandardFields: c.StandardFields, CustomFields: c.CustomFields,
		CustomSource: c.Source, SubscriptionPage: c.SubscriptionPage,
		Revision: c.Revision, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
	}
}
