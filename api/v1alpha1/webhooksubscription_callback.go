package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Callback is what is called.
type Callback struct {
	// url is the address that is called: http or https, with a host, without
	// user name, password or fragment. At most 2048 characters. Redirects are
	// not followed. Only what is public and https is called, unless flags of
	// controller and dispatcher allow more.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && (url(self).getScheme() == 'http' || url(self).getScheme() == 'https') && url(self).getHostname() != ''",message="callback.url must be an absolute http or https URL"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[a-zA-Z]+://[^/?#]*@')",message="callback.url must not hold a user name or password: it would stand in clear text in the object"
	// +kubebuilder:validation:XValidation:rule="!self.contains('#')",message="callback.url must not have a fragment: it is never sent"
	URL string `json:"url,omitempty"`

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
