package v1alpha1

// Payload is what a call carries.
//
// +kubebuilder:validation:XValidation:rule="!has(self.format) || self.format != 'MailUp' || has(self.parameters)",message="payload.parameters is required where payload.format is MailUp: it is what is sent"
// +kubebuilder:validation:XValidation:rule="!has(self.parameters) || (has(self.format) && self.format == 'MailUp')",message="payload.parameters needs payload.format MailUp"
// +kubebuilder:validation:XValidation:rule="!has(self.encryption) || self.encryption.algorithm != 'RC4' || (has(self.format) && self.format == 'MailUp')",message="payload.encryption.algorithm RC4 needs payload.format MailUp"
type Payload struct {
	// format is what is sent: Standard (JSON as Standard Webhooks advises),
	// Mailingwork (JSON as Mailingwork sends it; Create and Delete events do not
	// exist there) or MailUp (a form as MailUp sends it, of the parameters).
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

	// encryption hides what is sent from all but those who have the key.
	//
	// +optional
	Encryption Encryption `json:"encryption,omitzero"`
}

// PayloadFormat names the format of what is sent.
//
// +kubebuilder:validation:Enum=Standard;Mailingwork;MailUp
type PayloadFormat string

// The formats of what is sent.
const (
	FormatStandard    PayloadFormat = "Standard"
	FormatMailingwork PayloadFormat = "Mailingwork"
	FormatMailUp      PayloadFormat = "MailUp"
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

// Encryption says how what is sent is encrypted.
type Encryption struct {
	// algorithm is how it is encrypted: RC4, as MailUp does it, which needs the
	// format MailUp. RC4 is broken; it is there for receivers that know nothing
	// else.
	//
	// +required
	Algorithm EncryptionAlgorithm `json:"algorithm,omitempty"`

	// keySecretRef names the Secret, and its data key, that holds the encryption
	// key. For RC4 that is 1 to 256 bytes, taken as they are, without a line end
	// behind them.
	//
	// +required
	KeySecretRef SecretKeyReference `json:"keySecretRef,omitzero"`
}

// EncryptionAlgorithm names how what is sent is encrypted.
//
// +kubebuilder:validation:Enum=RC4
type EncryptionAlgorithm string

// EncryptionRC4 encrypts as MailUp does: RC4, then Base64.
const EncryptionRC4 EncryptionAlgorithm = "RC4"
