package v1alpha1

// Payload is what a call carries.
//
// +kubebuilder:validation:XValidation:rule="!has(self.format) || self.format != 'MailUp' || has(self.parameters)",message="payload.parameters is required where payload.format is MailUp: it is what is sent"
// +kubebuilder:validation:XValidation:rule="!has(self.parameters) || (has(self.format) && self.format == 'MailUp')",message="payload.parameters needs payload.format MailUp"
// +kubebuilder:validation:XValidation:rule="!has(self.urlParameters) || (has(self.format) && self.format == 'Maileon')",message="payload.urlParameters needs payload.format Maileon"
// +kubebuilder:validation:XValidation:rule="!has(self.bodyFields) || (has(self.format) && self.format == 'Maileon')",message="payload.bodyFields needs payload.format Maileon"
// +kubebuilder:validation:XValidation:rule="!has(self.format) || self.format != 'Template' || has(self.template)",message="payload.template is required where payload.format is Template: it is what is sent"
// +kubebuilder:validation:XValidation:rule="!has(self.template) || (has(self.format) && self.format == 'Template')",message="payload.template needs payload.format Template"
// +kubebuilder:validation:XValidation:rule="!has(self.cloudEvents) || !self.cloudEvents || !has(self.format) || self.format == 'Standard'",message="payload.cloudEvents needs payload.format Standard"
// +kubebuilder:validation:XValidation:rule="!has(self.encryption) || self.encryption.algorithm != 'JWE' || !has(self.format) || self.format != 'Maileon' || has(self.bodyFields)",message="payload.bodyFields is required where payload.format is Maileon and payload.encryption.algorithm is JWE: it is what is encrypted"
// +kubebuilder:validation:XValidation:rule="!has(self.encryption) || self.encryption.algorithm != 'JWE' || !has(self.urlParameters) || self.urlParameters.all(parameter, has(parameter.constant))",message="payload.urlParameters can only be constants where payload.encryption.algorithm is JWE: they are not encrypted"
// +kubebuilder:validation:XValidation:rule="!has(self.encryption) || self.encryption.algorithm != 'RC4' || (has(self.format) && self.format == 'MailUp')",message="payload.encryption.algorithm RC4 needs payload.format MailUp"
type Payload struct {
	// format is what is sent: Standard (JSON as Standard Webhooks advises),
	// Mailingwork (JSON as Mailingwork sends it; Create and Delete events do not
	// exist there), MailUp (a form as MailUp sends it, of the parameters), Maileon
	// (as Maileon sends it, of urlParameters and bodyFields) or Template (JSON as
	// the template says).
	//
	// +optional
	// +default="Standard"
	Format PayloadFormat `json:"format,omitempty"`

	// parameters are what a call in the format MailUp carries, in the order in
	// which they are sent. That format requires 1 to 50 of them, the others have
	// none. A name may stand there more than once.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	Parameters []PayloadParameter `json:"parameters,omitempty"`

	// urlParameters are what a call in the format Maileon has behind the URL's own
	// query, in this order. At most 50; other formats have none.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	URLParameters []PayloadField `json:"urlParameters,omitempty"`

	// bodyFields are what a call in the format Maileon has in its body, which is
	// one flat JSON object. At most 50; other formats have none. Without
	// bodyFields the body is empty.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	BodyFields []PayloadField `json:"bodyFields,omitempty"`

	// template says what is sent in the format Template, which requires it; other
	// formats have none. It is a CEL expression over the variable event whose
	// result, a map or a list, is sent as JSON of at most 1 MiB:
	// {"mail": event.contact.email, "what": event.type}. One that does not compile,
	// or could cost too much, is not accepted; an event that it fails with is set
	// aside. 1 to 16384 characters.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	Template string `json:"template,omitempty"`

	// cloudEvents adds the headers of CloudEvents 1.0, in its binary content mode, to
	// calls in the format Standard, so that a sink of Knative takes them as they are.
	//
	// +optional
	CloudEvents *bool `json:"cloudEvents,omitempty"`

	// encryption hides what is sent from all but those who have the key.
	//
	// +optional
	Encryption Encryption `json:"encryption,omitzero"`
}

// PayloadFormat names the format of what is sent.
//
// +kubebuilder:validation:Enum=Standard;Mailingwork;MailUp;Maileon;Template
type PayloadFormat string

// The formats of what is sent.
const (
	FormatStandard    PayloadFormat = "Standard"
	FormatMailingwork PayloadFormat = "Mailingwork"
	FormatMailUp      PayloadFormat = "MailUp"
	FormatMaileon     PayloadFormat = "Maileon"
	FormatTemplate    PayloadFormat = "Template"
)

// PayloadParameter is a parameter of a form.
type PayloadParameter struct {
	// name is the parameter's name. 1 to 128 characters.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name,omitempty"`

	// value is the parameter's value: text with MailUp's placeholders, usually
	// one of them. They are [EventDate], [IdConsole], [IdList], [IdNL],
	// [EventType], [EventSource], [Reason], [Email], [Prefix], [Number],
	// [Groups], [Channel], and [Field:NAME] for a standard or a custom field.
	// Square brackets stand for nothing else. 1 to 1024 characters.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([^\\[\\]]|\\[(EventDate|IdConsole|IdList|IdNL|EventType|EventSource|Reason|Email|Prefix|Number|Groups|Channel|Field:[^\\[\\]]{1,64})\\])*$')`,message="payload.parameters[].value has a placeholder that is not known; known are [EventDate], [IdConsole], [IdList], [IdNL], [EventType], [EventSource], [Reason], [Email], [Prefix], [Number], [Groups], [Channel] and [Field:NAME], and square brackets stand for nothing else"
	Value string `json:"value,omitempty"`
}

// PayloadField is one thing that a call in the format Maileon tells, and the name
// that it has there.
//
// +kubebuilder:validation:XValidation:rule="[has(self.standardField), has(self.customField), has(self.constant), has(self.eventField)].filter(chosen, chosen).size() == 1",message="payload.urlParameters[] and payload.bodyFields[] have exactly one of standardField, customField, constant and eventField"
type PayloadField struct {
	// name is what it is called in the call. 1 to 128 characters.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name,omitempty"`

	// standardField is a standard field of the contact, or its email or
	// external_id.
	//
	// +optional
	StandardField MaileonField `json:"standardField,omitempty"`

	// customField is the name of a custom field of the contact, exact in upper and
	// lower case. 3 to 64 characters.
	//
	// +optional
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=64
	CustomField string `json:"customField,omitempty"`

	// constant is a text that is the same in every call, such as the receiver's own
	// token. It stands in clear text in the object. 1 to 1024 characters.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Constant string `json:"constant,omitempty"`

	// eventField is something of the event: timestamp, source (of an Unsubscribe),
	// property and new_value (of a ChangeProfile). msg_id, transaction_id and
	// old_value are taken, and always empty, because nothing is known of them here.
	//
	// +optional
	EventField EventField `json:"eventField,omitempty"`
}

// MaileonField is a field of a contact that Maileon calls a standard one.
//
// +kubebuilder:validation:Enum=email;external_id;ADDRESS;BIRTHDAY;CITY;COUNTRY;FIRSTNAME;FULLNAME;GENDER;HNR;LASTNAME;LOCALE;NAMEDAY;ORGANIZATION;REGION;SALUTATION;STATE;TITLE;ZIP
type MaileonField string

// The fields that are not among ContactList's standard fields.
const (
	FieldEmail      MaileonField = "email"
	FieldExternalID MaileonField = "external_id"
)

// EventField is something of an event, by Maileon's name.
//
// +kubebuilder:validation:Enum=timestamp;msg_id;transaction_id;property;old_value;new_value;source
type EventField string

// The fields of events that something is known of.
const (
	EventFieldTimestamp EventField = "timestamp"
	EventFieldProperty  EventField = "property"
	EventFieldNewValue  EventField = "new_value"
	EventFieldSource    EventField = "source"
)

// Encryption says how what is sent is encrypted.
type Encryption struct {
	// algorithm is how it is encrypted: JWE (RFC 7516), which every format can have
	// that is sent in a body, or RC4, as MailUp does it, which needs the format
	// MailUp. RC4 is broken; it is there for receivers that know nothing else.
	//
	// +required
	Algorithm EncryptionAlgorithm `json:"algorithm,omitempty"`

	// keySecretRef names the Secret, and its data key, that holds the encryption
	// key. For JWE that is a shared key, exactly 32 bytes or a JWK of the type oct, or
	// the receiver's public key of an elliptic curve, a JWK or a PEM block. For RC4 it
	// is 1 to 256 bytes. Bytes are taken as they are, without a line end behind them.
	//
	// +required
	KeySecretRef SecretKeyReference `json:"keySecretRef,omitzero"`
}

// EncryptionAlgorithm names how what is sent is encrypted.
//
// +kubebuilder:validation:Enum=JWE;RC4
type EncryptionAlgorithm string

// The algorithms of encryption.
const (
	// EncryptionJWE makes a JWE of the body (RFC 7516), in compact serialization: dir
	// with a shared key, ECDH-ES+A256KW with a public one, and A256GCM.
	EncryptionJWE EncryptionAlgorithm = "JWE"
	// EncryptionRC4 encrypts as MailUp does: RC4, then Base64.
	EncryptionRC4 EncryptionAlgorithm = "RC4"
)
