package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Callback is what is called.
//
// +kubebuilder:validation:XValidation:rule="has(self.url) != has(self.urlSecretRef)",message="callback must have exactly one of url and urlSecretRef"
// +kubebuilder:validation:XValidation:rule="!has(self.tls) || !has(self.url) || self.url.lowerAscii().startsWith('https:')",message="callback.tls needs an https URL"
// +kubebuilder:validation:XValidation:rule="!has(self.oauth2) || !has(self.headers) || self.headers.all(h, h.name.lowerAscii() != 'authorization')",message="callback.headers must not have Authorization where callback.oauth2 is set: the token is sent in it"
type Callback struct {
	// url is the address that is called: http or https, with a host, without
	// user name, password or fragment. At most 2048 characters. Redirects are
	// not followed. Only what is public and https is called, unless flags of
	// controller and dispatcher allow more. Either this or urlSecretRef is
	// required.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && (url(self).getScheme() == 'http' || url(self).getScheme() == 'https') && url(self).getHostname() != ''",message="callback.url must be an absolute http or https URL"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[a-zA-Z]+://[^/?#]*@')",message="callback.url must not hold a user name or password: it would stand in clear text in the object"
	// +kubebuilder:validation:XValidation:rule="!self.contains('#')",message="callback.url must not have a fragment: it is never sent"
	URL string `json:"url,omitempty"`

	// urlSecretRef names the Secret, and its data key, that holds the address
	// instead, where the address itself is a secret. What url says of it holds
	// here too; status shows its host and nothing else of it.
	//
	// +optional
	URLSecretRef SecretKeyReference `json:"urlSecretRef,omitzero"`

	// method is how the callback is called: POST, the default, or GET, which
	// needs payload.format MailUp and puts the parameters into the query.
	//
	// +optional
	// +default="POST"
	Method CallbackMethod `json:"method,omitempty"`

	// timeout is how long one call may take, from dialling to the end of the
	// answer's headers. 100ms to 30s. By default 10s, and 5s where payload.format
	// is Maileon, as there.
	//
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('30s')",message="callback.timeout must be between 100ms and 30s"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// headers are sent with every call, beside those that Postbus sends. At most
	// 20, each name once.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a.name.lowerAscii() == b.name.lowerAscii()))",message="callback.headers[].name must be there once, in whatever case"
	Headers []CallbackHeader `json:"headers,omitempty"`

	// tls says whom to trust, and with what to say who calls, where that is not
	// what the system has. It needs an https URL.
	//
	// +optional
	TLS CallbackTLS `json:"tls,omitzero"`

	// oauth2 has calls carry a token that a token endpoint gives for the client's
	// credentials (RFC 6749, 4.4), in the header Authorization.
	//
	// +optional
	OAuth2 OAuth2 `json:"oauth2,omitzero"`
}

// CallbackTLS says whom to trust, and with what to say who calls.
//
// +kubebuilder:validation:XValidation:rule="has(self.caSecretRef) || has(self.clientCertSecretRef)",message="callback.tls must have caSecretRef, clientCertSecretRef or both"
type CallbackTLS struct {
	// caSecretRef names the Secret whose data key "ca.crt" holds the
	// certificates, in PEM, of those who may sign the callback's certificate, and
	// that of callback.oauth2.tokenURL. They take the place of the system's.
	//
	// +optional
	CASecretRef SecretReference `json:"caSecretRef,omitzero"`

	// clientCertSecretRef names the Secret, such as one of the type
	// kubernetes.io/tls, whose data keys "tls.crt" and "tls.key" hold the
	// certificate that is shown to who asks for one, and its key, in PEM.
	//
	// +optional
	ClientCertSecretRef SecretReference `json:"clientCertSecretRef,omitzero"`
}

// OAuth2 says where tokens come from.
type OAuth2 struct {
	// tokenURL is the token endpoint. What is said of callback.url holds for it,
	// and it is called as the callback is.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && (url(self).getScheme() == 'http' || url(self).getScheme() == 'https') && url(self).getHostname() != ''",message="callback.oauth2.tokenURL must be an absolute http or https URL"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[a-zA-Z]+://[^/?#]*@')",message="callback.oauth2.tokenURL must not hold a user name or password: it would stand in clear text in the object"
	// +kubebuilder:validation:XValidation:rule="!self.contains('#')",message="callback.oauth2.tokenURL must not have a fragment: it is never sent"
	TokenURL string `json:"tokenURL,omitempty"`

	// clientSecretRef names the Secret whose data keys "client-id" and
	// "client-secret" hold the client's credentials. A line end behind them is
	// left out.
	//
	// +required
	ClientSecretRef SecretReference `json:"clientSecretRef,omitzero"`

	// scopes are what is asked for. At most 20, each of 1 to 256 characters. Empty
	// asks for what the endpoint gives anyway.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:Pattern=`^[\x21\x23-\x5b\x5d-\x7e]+$`
	Scopes []string `json:"scopes,omitempty"`
}

// CallbackHeader is a header that every call carries.
//
// +kubebuilder:validation:XValidation:rule="has(self.value) != has(self.secretRef)",message="callback.headers[] must have exactly one of value and secretRef"
type CallbackHeader struct {
	// name is the header's name: 1 to 128 characters that a token of HTTP may
	// have. What Postbus sends, what says how the body is sent, and what is between
	// two ends of a connection can't be set; nor can Idempotency-Key, because
	// it would be the same for all events, nor Traceparent and its like.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[!#$%&'*+.^_|~0-9A-Za-z\x60-]+$`
	// +kubebuilder:validation:XValidation:rule="!self.lowerAscii().matches('^(webhook|postbus|ce|content|proxy)-') && !(self.lowerAscii() in ['host', 'user-agent', 'connection', 'keep-alive', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'http2-settings', 'expect', 'accept-encoding', 'idempotency-key', 'x-idempotency-key', 'traceparent', 'tracestate', 'baggage'])",message="callback.headers[].name must not be webhook-*, postbus-*, ce-*, content-*, proxy-*, Host, User-Agent, Connection, Keep-Alive, Transfer-Encoding, TE, Trailer, Upgrade, HTTP2-Settings, Expect, Accept-Encoding, Idempotency-Key, X-Idempotency-Key, Traceparent, Tracestate or Baggage: Postbus or the connection sets them"
	Name string `json:"name,omitempty"`

	// value is what is sent: 1 to 4096 visible characters of ASCII, with spaces
	// and tabs between them. Everybody who may read this object can read it.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^[!-~]([\t -~]*[!-~])?$`
	Value string `json:"value,omitempty"`

	// secretRef names the Secret, and its data key, that holds the value
	// instead. A line end behind it is left out.
	//
	// +optional
	SecretRef SecretKeyReference `json:"secretRef,omitzero"`
}

// CallbackMethod is a method of HTTP that a callback is called with. It
// says where the payload is: in the body, or in the query.
//
// +kubebuilder:validation:Enum=POST;GET
type CallbackMethod string

// The methods of callbacks.
const (
	MethodPost CallbackMethod = "POST"
	MethodGet  CallbackMethod = "GET"
)

// secretNames returns the names of the Secrets that the callback needs.
func (c *Callback) secretNames() []string {
	names := []string{
		c.URLSecretRef.Name, c.TLS.CASecretRef.Name, c.TLS.ClientCertSecretRef.Name, c.OAuth2.ClientSecretRef.Name,
	}
	for i := range c.Headers {
		names = append(names, c.Headers[i].SecretRef.Name)
	}
	return names
}
