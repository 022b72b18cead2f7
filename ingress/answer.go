package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/resource"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// problem is an answer other than 200. Its message is for the caller.
type problem struct {
	status  int
	code    string
	message string
	// parameter is the parameter that the message is about, if it is about one.
	parameter string
	// header is what goes with the status, such as Allow.
	header map[string]string
}

// Error returns the message.
func (p *problem) Error() string { return p.message }

// retryAfter is how many seconds a caller should wait while the store can't
// commit, about what a restart of it takes, or while there are too many calls.
const retryAfter = 5

// The problems that are always the same. The messages of the first two are
// Maileon's, word for word.
var (
	errNoKey = &problem{
		status: http.StatusUnauthorized, code: "KeyMissing",
		message: "'key' parameter not found or too many values.", parameter: keyParameter,
	}
	errUnknownKey = &problem{
		status: http.StatusUnauthorized, code: "KeyUnknown",
		message: "no such api key", parameter: keyParameter,
	}
	errNoBearer = &problem{
		status: http.StatusUnauthorized, code: "KeyMissing",
		message: "the api key must come as Authorization: Bearer", header: map[string]string{"WWW-Authenticate": "Bearer"},
	}
	errOtherList = &problem{
		status: http.StatusForbidden, code: "OtherList",
		message: "the api key belongs to another list",
	}
	errNoContact = &problem{
		status: http.StatusNotFound, code: "ContactMissing",
		message: "no such contact", parameter: emailParameter,
	}
	errPlainHTTP = &problem{
		status: http.StatusForbidden, code: "HTTPSRequired",
		message: "only HTTPS is allowed",
	}
	errBrowser = &problem{
		status: http.StatusForbidden, code: "BrowserCall",
		message: "calls from a browser are not allowed: the api key would be readable there",
	}
	errNoRoute = &problem{
		status: http.StatusNotFound, code: "NotFound",
		message: "no such resource",
	}
	errTooLarge = &problem{
		status: http.StatusRequestEntityTooLarge, code: "BodyTooLarge",
		message: "the body must have at most 1 MiB", header: map[string]string{"Connection": "close"},
	}
	errMediaType = &problem{
		status: http.StatusUnsupportedMediaType, code: "UnsupportedMediaType",
		message: "the content type must be application/json or application/x-www-form-urlencoded, in UTF-8 and not compressed",
	}
	errImportType = &problem{
		status: http.StatusUnsupportedMediaType, code: "UnsupportedMediaType",
		message: "the content type must be application/x-ndjson or text/csv, in UTF-8 and not compressed",
	}
	errExternalID = &problem{
		status: http.StatusConflict, code: "ExternalIDTaken",
		message: "illegal parameter value: external_id belongs to another contact of the list", parameter: "external_id",
	}
	errOnceReused = &problem{
		status: http.StatusUnprocessableEntity, code: "IdempotencyKeyReused",
		message: "this Idempotency-Key was used for another call", parameter: idempotencyHeader,
	}
	errUnavailable = &problem{
		status: http.StatusServiceUnavailable, code: "Unavailable",
		message: "contacts can't be stored at the moment, nothing was stored",
		header:  map[string]string{"Retry-After": strconv.Itoa(retryAfter)},
	}
	errListNotReady = &problem{
		status: http.StatusServiceUnavailable, code: "ListNotReady",
		message: "the contact list is not ready yet, nothing was stored; see its status",
		header:  map[string]string{"Retry-After": strconv.Itoa(retryAfter)},
	}
	errOverloaded = &problem{
		status: http.StatusServiceUnavailable, code: "Overloaded",
		message: "too many calls at the moment, nothing was stored",
		header:  map[string]string{"Retry-After": strconv.Itoa(retryAfter)},
	}
	errSlow = &problem{
		status: http.StatusRequestTimeout, code: "BodyTooSlow",
		message: "the body did not arrive in time", header: map[string]string{"Connection": "close"},
	}
	errSlowImport = &problem{
		status: http.StatusRequestTimeout, code: "BodyTooSlow",
		message: fmt.Sprintf("the import is slower than the limit: it fell more than %s behind %d KiB a second",
			importSlack, importBytesPerSecond>>10),
		header: map[string]string{"Connection": "close"},
	}
	errInternal = &problem{
		status: http.StatusInternalServerError, code: "Internal",
		message: "internal server error",
	}
	errLoop = &problem{
		status: http.StatusLoopDetected, code: "LoopDetected",
		message: "the call goes in a circle: a callback leads to it that it leads to",
	}
	errClientGone = &problem{
		status: statusClientGone, code: "ClientGone",
		message: "the caller did not wait for the answer",
	}
)

func noScope(scope v1alpha1.ApiKeyScope) *problem {
	return &problem{
		status: http.StatusForbidden, code: "ScopeMissing",
		message: fmt.Sprintf("the api key does not have the scope %s", scope),
	}
}

func listGone(scope v1alpha1.ApiKeyScope) *problem {
	return &problem{
		status: http.StatusForbidden, code: "ListMissing",
		message: fmt.Sprintf("the scope %s has no list: the contact list of the api key does not exist", scope),
	}
}

func overRate(perSecond, retryAfter int) *problem {
	return &problem{
		status: http.StatusTooManyRequests, code: "RateLimited",
		message: fmt.Sprintf("the api key is over its rate of %d requests a second", perSecond),
		header:  map[string]string{"Retry-After": strconv.Itoa(retryAfter)},
	}
}

// overLogLimit is the problem of a namespace that may append no more to the log until
// the end of the day.
func overLogLimit(namespace string, limit int64, left time.Duration) *problem {
	return &problem{
		status: http.StatusTooManyRequests, code: "LogLimitReached",
		message: fmt.Sprintf("the namespace %s has reached its limit of %s in the event log for today (UTC), "+
			"set by --max-log-bytes-per-namespace-per-day; unsubscribing, deleting and forgetting still work",
			namespace, resource.NewQuantity(limit, resource.BinarySI)),
		header: map[string]string{"Retry-After": strconv.Itoa(max(1, int(math.Ceil(left.Seconds()))))},
	}
}

func tooManyAtATime(holder string, limit int, requests string) *problem {
	return &problem{
		status: http.StatusTooManyRequests, code: "TooManyAtATime",
		message: fmt.Sprintf("%s is at its limit of %d %s at a time", holder, limit, requests),
		header:  map[string]string{"Retry-After": strconv.Itoa(retryAfter)},
	}
}

func methodNotAllowed(allowed string) *problem {
	return &problem{
		status: http.StatusMethodNotAllowed, code: "MethodNotAllowed",
		message: "the method must be " + allowed, header: map[string]string{"Allow": allowed},
	}
}

func malformed(message string) *problem {
	return &problem{status: http.StatusBadRequest, code: "Malformed", message: message}
}

func tooManyValues(parameter string) *problem {
	parameter = contact.Shorten(parameter)
	return &problem{
		status: http.StatusBadRequest, code: "TooManyValues",
		message: "too many values: " + parameter + " is given more than once", parameter: parameter,
	}
}

// inputCodes are the codes of what contact rules refuse.
var inputCodes = map[contact.Problem]string{
	contact.IllegalParameter:     "IllegalValue",
	contact.IllegalStandardField: "IllegalValue",
	contact.IllegalCustomField:   "IllegalValue",
	contact.UnknownStandardField: "UnknownField",
	contact.UnknownCustomField:   "UnknownField",
}

// problemOf returns what to answer for an error. It logs the ones whose text
// the caller must not see, and only those.
func problemOf(ctx context.Context, err error) *problem {
	var known *problem
	var input *contact.InputError
	logger := logr.FromContextOrDiscard(ctx)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &input):
		return &problem{
			status: http.StatusBadRequest, code: inputCodes[input.Problem],
			message: input.Error(), parameter: contact.Shorten(input.Parameter),
		}
	case errors.Is(err, store.ErrExternalIDTaken):
		return errExternalID
	case errors.Is(err, store.ErrOnceReused):
		return errOnceReused
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, errLookUp), errors.Is(err, context.DeadlineExceeded):
		logger.V(1).Info("turned a call away", "reason", err.Error())
		return errUnavailable
	case errors.Is(err, context.Canceled):
		return errClientGone
	}
	logger.Error(err, "answer a call")
	return errInternal
}

// refused is the body of every other answer.
type refused struct {
	Error refusedError `json:"error"`
}

type refusedError struct {
	Message   string `json:"message"`
	Code      string `json:"code"`
	Parameter string `json:"parameter,omitempty"`
}

func writeProblem(w http.ResponseWriter, p *problem) {
	for name, value := range p.header {
		w.Header().Set(name, value)
	}
	writeJSON(w, p.status, refused{Error: *refusedOf(p)})
}

func refusedOf(p *problem) *refusedError {
	return &refusedError{Message: p.message, Code: p.code, Parameter: p.parameter}
}

// writeJSON writes an answer. A write error means that the caller is gone, and
// there is nobody left to tell.
func writeJSON(w http.ResponseWriter, status int, body any) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
