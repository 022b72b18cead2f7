package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ContactList is a mailing list: what Maileon calls an account, MailUp and
// Mailingwork a list. Contacts belong to the list of this name in this
// namespace; they are kept when the object is deleted, and a list of the same
// name finds them again.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=postbus
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Display Name",type=string,JSONPath=`.spec.displayName`
// +kubebuilder:printcolumn:name="Contacts",type=integer,JSONPath=`.status.contacts`
// +kubebuilder:printcolumn:name="Subscribed",type=integer,JSONPath=`.status.subscribed`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
type ContactList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what the list shall be.
	// +optional
	Spec ContactListSpec `json:"spec,omitzero"`
	// status is what the controller has seen.
	// +optional
	// +default={"conditions":[{"type":"Ready","status":"Unknown","reason":"Progressing","message":"Waiting for the controller.","lastTransitionTime":"1970-01-01T00:00:00Z"}]}
	Status ContactListStatus `json:"status,omitzero"`
}

// ContactListSpec is what a ContactList shall be.
//
// +kubebuilder:validation:XValidation:rule="!has(self.pages) || !has(self.pages.profileFields) || self.pages.profileFields.all(f, f in ['ADDRESS','BIRTHDAY','CITY','COUNTRY','FIRSTNAME','FULLNAME','GENDER','HNR','LASTNAME','LOCALE','NAMEDAY','ORGANIZATION','REGION','SALUTATION','STATE','TITLE','ZIP'] || has(self.customFields) && self.customFields.exists(c, c.name == f))",message="pages.profileFields must name standard fields or customFields of the list"
// +kubebuilder:validation:XValidation:rule="!has(self.standardFields) || !has(self.customFields) || self.standardFields.all(s, self.customFields.all(c, !has(c.id) || c.id != s.id))",message="standardFields[].id and customFields[].id must each be another number: a receiver tells fields apart by it"
type ContactListSpec struct {
	// displayName is how people call the list; metadata.name without it.
	// At most 255 characters.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	DisplayName string `json:"displayName,omitempty"`

	// id is the number that Mailingwork's lists[].id and optinsetup_id and
	// MailUp's [IdList] carry. 0, the default, where no receiver needs one.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	ID *int32 `json:"id,omitempty"`

	// standardFields gives standard fields the number that Mailingwork's
	// fields[].id carries. A field without a number is left out of that format;
	// 1 is the e-mail address. Each standard field exists without being listed.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=17
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, b.id == a.id))",message="standardFields[].id must each be another number: a receiver tells fields apart by it"
	StandardFields []StandardField `json:"standardFields,omitempty"`

	// customFields are the fields that contacts of this list may have beside
	// the standard ones. A field that is removed here keeps its stored values
	// but can't be set any more.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=200
	// +kubebuilder:validation:XValidation:rule="self.all(a, !has(a.id) || self.exists_one(b, has(b.id) && b.id == a.id))",message="customFields[].id must each be another number: a receiver tells fields apart by it"
	CustomFields []CustomField `json:"customFields,omitempty"`

	// language is what mails and pages are written in for people whose own
	// language is not known: en, the default, or de. A contact's is known by its
	// field LOCALE, a visitor's by what the browser asks for.
	//
	// +optional
	// +default="en"
	Language Language `json:"language,omitempty"`

	// optIn says how double opt-in works on this list.
	//
	// +optional
	OptIn OptIn `json:"optIn,omitzero"`

	// pages says how the pages look that recipients see.
	//
	// +optional
	Pages Pages `json:"pages,omitzero"`

	// deletionPolicy says what becomes of the contacts and events of the list when the
	// list is deleted. Retain, the default, keeps them: a list of the same name in the
	// same Namespace object continues with them. Delete removes them for good. No
	// subscription gets an event about that, and events of the list that are not yet
	// delivered are dropped.
	//
	// +optional
	// +default="Retain"
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// DeletionPolicy is what becomes of contacts whose list is deleted.
//
// +kubebuilder:validation:Enum=Retain;Delete
type DeletionPolicy string

// The deletion policies.
const (
	DeletionRetain DeletionPolicy = "Retain"
	DeletionDelete DeletionPolicy = "Delete"
)

// Language is a language that mails and pages are written in, by ISO 639-1.
//
// +kubebuilder:validation:Enum=en;de
type Language string

// The languages.
const (
	LanguageEnglish Language = "en"
	LanguageGerman  Language = "de"
)

// StandardField gives a standard field its number.
type StandardField struct {
	// name is the standard field's name, in capitals.
	//
	// +required
	Name StandardFieldName `json:"name,omitempty"`

	// id is the number that Mailingwork's fields[].id carries. At least 2,
	// because 1 is the e-mail address.
	//
	// +required
	// +kubebuilder:validation:Minimum=2
	ID *int32 `json:"id,omitempty"`
}

// StandardFieldName is the name of a field that every contact can have.
// The set is Maileon's.
//
// +kubebuilder:validation:Enum=ADDRESS;BIRTHDAY;CITY;COUNTRY;FIRSTNAME;FULLNAME;GENDER;HNR;LASTNAME;LOCALE;NAMEDAY;ORGANIZATION;REGION;SALUTATION;STATE;TITLE;ZIP
type StandardFieldName string

// CustomField declares a field that contacts of the list may have.
//
// +kubebuilder:validation:XValidation:rule="!(self.name in ['ADDRESS','BIRTHDAY','CITY','COUNTRY','FIRSTNAME','FULLNAME','GENDER','HNR','LASTNAME','LOCALE','NAMEDAY','ORGANIZATION','REGION','SALUTATION','STATE','TITLE','ZIP','PERMISSION_STATUS','SENDOUT_STATUS','CUSTOM_SOURCE','CHECKSUM'])",message="customFields[].name must not be the name of a standard field"
// +kubebuilder:validation:XValidation:rule="!(self.name in ['id','created','external_id','local_part','permission_type','permission_status','sendout_status','updated'])",message="customFields[].name must not be a reserved name (id, created, external_id, local_part, permission_type, permission_status, sendout_status, updated)"
type CustomField struct {
	// name is the field's name as callers write it, exact in upper and lower
	// case. 3 to 64 characters, not the name of a standard field, not one of
	// Maileon's reserved names, no space at either end.
	//
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$`
	Name string `json:"name,omitempty"`

	// type is what values are checked against.
	//
	// +required
	Type CustomFieldType `json:"type,omitempty"`

	// id is the number that Mailingwork's fields[].id carries; a field without
	// one is left out of that format. At least 2, because 1 is the e-mail
	// address.
	//
	// +optional
	// +kubebuilder:validation:Minimum=2
	ID *int32 `json:"id,omitempty"`
}

// CustomFieldType is the type of a custom field's values. String holds at most
// 255 characters, Integer 32 bits, Float 64 bits, Boolean true or false, Date
// yyyy-MM-dd (dd.MM.yyyy and a time behind it are accepted).
//
// +kubebuilder:validation:Enum=String;Integer;Float;Boolean;Date
type CustomFieldType string

// The types of custom fields.
const (
	CustomFieldString  CustomFieldType = "String"
	CustomFieldInteger CustomFieldType = "Integer"
	CustomFieldFloat   CustomFieldType = "Float"
	CustomFieldBoolean CustomFieldType = "Boolean"
	CustomFieldDate    CustomFieldType = "Date"
)

// OptIn says how double opt-in works on a list.
//
// +kubebuilder:validation:XValidation:rule="!has(self.mailings) || self.mailings.filter(m, has(m.default) && m.default).size() <= 1",message="optIn.mailings: at most one mailing can be the default"
type OptIn struct {
	// resendPolicy says which contacts a repeated opt-in request starts
	// another opt-in for: Never (none), Unconfirmed (those that have not
	// confirmed yet) or Always.
	//
	// +optional
	// +default="Unconfirmed"
	ResendPolicy ResendPolicy `json:"resendPolicy,omitempty"`

	// resendInterval is how long after an opt-in request of a contact another one
	// starts nothing, whatever the policy, so that a button pressed twice sends one
	// mail. The interval belongs to the contact and ends when the contact is removed:
	// after an address was taken off the list, a new request sends a mail at once. It
	// does not bound the mails to a stranger; the rate limit of an ApiKey
	// (spec.rateLimit) bounds the mails that a key can cause. 0s to 720h, 5m by default.
	//
	// +optional
	// +default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('720h')",message="optIn.resendInterval must be between 0s and 720h"
	ResendInterval *metav1.Duration `json:"resendInterval,omitempty"`

	// linkTTL is how long the link in an opt-in mail works, from the moment that
	// the mail is sent. 1m to 8760h, 168h by default.
	//
	// +optional
	// +default="168h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m') && duration(self) <= duration('8760h')",message="optIn.linkTTL must be between 1m and 8760h"
	LinkTTL *metav1.Duration `json:"linkTTL,omitempty"`

	// confirmedURL is where people are sent who have confirmed, an http or https
	// URL. Without it they see a built-in page.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",message="optIn.confirmedURL must be an http or https URL with a host"
	ConfirmedURL string `json:"confirmedURL,omitempty"`

	// mailings are the opt-in mailings that the parameter doimailing can name. A
	// list without any sends a built-in one.
	//
	// +optional
	// +listType=map
	// +listMapKey=key
	// +kubebuilder:validation:MaxItems=50
	Mailings []OptInMailing `json:"mailings,omitempty"`
}

// ResendPolicy says which contacts a repeated opt-in request starts another
// opt-in for.
//
// +kubebuilder:validation:Enum=Never;Unconfirmed;Always
type ResendPolicy string

// The resend policies.
const (
	ResendNever       ResendPolicy = "Never"
	ResendUnconfirmed ResendPolicy = "Unconfirmed"
	ResendAlways      ResendPolicy = "Always"
)

// OptInMailing is a mailing that asks a contact to confirm.
type OptInMailing struct {
	// key is what the parameter doimailing names. 1 to 64 letters, digits, '_' or '-'.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_-]+$`
	Key string `json:"key,omitempty"`

	// default makes this the mailing of a call without doimailing. At most one
	// mailing is the default; one that is alone need not say so.
	//
	// +optional
	Default *bool `json:"default,omitempty"`

	// subject is the mail's subject. Without it the mail has a built-in one, in
	// the recipient's language.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[^\x00-\x1f\x7f]+$`
	Subject string `json:"subject,omitempty"`

	// from is the mail's sender, such as news@example.com or
	// "Example News <news@example.com>". Without it the mail has the sender that
	// the flag --mail-from names. --allowed-senders can restrict it.
	//
	// +optional
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=320
	// +kubebuilder:validation:Pattern=`^([^\x00-\x1f\x7f<>]*<[^\x00-\x20\x7f<>@]+@[^\x00-\x20\x7f<>@]+>|[^\x00-\x20\x7f<>@]+@[^\x00-\x20\x7f<>@]+)$`
	From string `json:"from,omitempty"`

	// templateRef names the ConfigMap with the mail's templates: mail.txt for
	// text/template and, optionally, mail.html for html/template. Without it the
	// mail has a built-in text, in the recipient's language.
	//
	// +optional
	TemplateRef ConfigMapReference `json:"templateRef,omitzero"`
}

// Pages says how the pages of a list look: confirm, unsubscribe and profile.
type Pages struct {
	// templateRef names the ConfigMap with what the pages look like: page.html,
	// an html/template that the contents are put into, and style.css; each is
	// optional. Without it pages have a plain built-in look.
	//
	// +optional
	TemplateRef ConfigMapReference `json:"templateRef,omitzero"`

	// profileFields are the fields that people may see and change on the profile
	// page, by the names of standard fields or of customFields, in this order.
	// FIRSTNAME and LASTNAME by default.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	// +kubebuilder:validation:items:MinLength=3
	// +kubebuilder:validation:items:MaxLength=64
	ProfileFields []string `json:"profileFields,omitempty"`
}

// ContactListStatus is what the controller has seen of a ContactList.
type ContactListStatus struct {
	// conditions has Ready: see the reasons at ConditionReady.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +patchStrategy=merge
	// +patchMergeKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`

	// observedGeneration is the metadata.generation that this status is about.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// namespaceUID is the UID of the Namespace whose data the list uses in the
	// store. The controller sets it once the data that the store holds under the
	// namespace's name is known to belong to this Namespace. Unset, requests
	// for the list are answered 503, and no mail of it is sent.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	NamespaceUID string `json:"namespaceUID,omitempty"`

	// formerNamespaceUID is the UID of an earlier Namespace of the same name whose
	// data the store still holds. It is set while Ready has the reason
	// NamespaceReplaced, and is the value for the annotation
	// postbus.dev/adopt-data-of or postbus.dev/remove-data-of of the Namespace.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	FormerNamespaceUID string `json:"formerNamespaceUID,omitempty"`

	// contacts is how many contacts the list has, a few seconds old at most
	// while calls come in.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Contacts *int64 `json:"contacts,omitempty"`

	// subscribed is how many of them have a permission other than 1 (none).
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Subscribed *int64 `json:"subscribed,omitempty"`
}

// ContactListList is a list of ContactLists, as the API server answers it.
//
// +kubebuilder:object:root=true
type ContactListList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []ContactList `json:"items"`
}

// GetConditions returns the conditions of the status.
func (l *ContactList) GetConditions() []metav1.Condition { return l.Status.Conditions }

const (
	defaultLinkTTL        = 168 * time.Hour
	defaultResendInterval = 5 * time.Minute
)

// LinkTTL returns how long the link in an opt-in mail works.
func (l *ContactList) LinkTTL() time.Duration {
	if l.Spec.OptIn.LinkTTL == nil {
		return defaultLinkTTL
	}
	return l.Spec.OptIn.LinkTTL.Duration
}

// ResendInterval returns how long after an opt-in request another one starts
// nothing.
func (l *ContactList) ResendInterval() time.Duration {
	if l.Spec.OptIn.ResendInterval == nil {
		return defaultResendInterval
	}
	return l.Spec.OptIn.ResendInterval.Duration
}

// Mailing returns the opt-in mailing of this key; for an empty key the default
// one, which is also that of a list that has only one. It returns nil when there
// is none.
func (l *ContactList) Mailing(key string) *OptInMailing {
	mailings := l.Spec.OptIn.Mailings
	if key == "" && len(mailings) == 1 {
		return &mailings[0]
	}
	for i := range mailings {
		isDefault := mailings[i].Default != nil && *mailings[i].Default
		if mailings[i].Key == key || key == "" && isDefault {
			return &mailings[i]
		}
	}
	return nil
}

// ProfileFields returns the names of the fields that people may change on the
// profile page.
func (l *ContactList) ProfileFields() []string {
	if len(l.Spec.Pages.ProfileFields) == 0 {
		return []string{"FIRSTNAME", "LASTNAME"}
	}
	return l.Spec.Pages.ProfileFields
}

// DisplayName returns how people call the list.
func (l *ContactList) DisplayName() string {
	if l.Spec.DisplayName == "" {
		return l.Name
	}
	return l.Spec.DisplayName
}
