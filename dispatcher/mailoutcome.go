package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"regexp"
	"strings"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
)

// The reasons that mails alone can have; none is ever in a status.
const (
	// mailServerStatus: the mail server answered with a status that may change:
	// 4yz, or one that is not about this mail.
	mailServerStatus v1alpha1.FailureReason = "ServerStatus"
	// mailAnswerTooLong: the mail server sent more than a limit of answerLimit allows.
	mailAnswerTooLong v1alpha1.FailureReason = "AnswerTooLong"
	// mailAuth: the credentials can't be read, or can't be used at this server.
	mailAuth v1alpha1.FailureReason = "AuthError"
	// mailTemplateMissing: the mailing has a template, and the controller has not
	// found a good one yet.
	mailTemplateMissing v1alpha1.FailureReason = "TemplateMissing"
	// mailSenderForbidden: --allowed-senders does not allow the mailing's sender.
	mailSenderForbidden v1alpha1.FailureReason = "SenderForbidden"
	// mailRecipientForbidden: --notice-domains does not allow the address of a notice.
	mailRecipientForbidden v1alpha1.FailureReason = "RecipientForbidden"
	// mailStore: the store could not be read.
	mailStore v1alpha1.FailureReason = "StoreError"
	// mailListNotFound: the list is gone, and may come back.
	mailListNotFound v1alpha1.FailureReason = "ListNotFound"

	// mailRejected: the mail server refused the recipient or the mail for good.
	mailRejected v1alpha1.FailureReason = "Rejected"
	// mailExpired: an attempt failed after giveUpAfter.
	mailExpired v1alpha1.FailureReason = "Expired"
	// mailObsolete: the contact is gone, has confirmed meanwhile, or has another
	// mail coming. Of a notice: the subscription is gone, or was reactivated, or
	// does not name the address any more.
	mailObsolete v1alpha1.FailureReason = "Obsolete"
)

// mailReasons are all that an attempt to send a mail can have.
var mailReasons = []v1alpha1.FailureReason{
	v1alpha1.FailureTimeout, v1alpha1.FailureConnectionRefused, v1alpha1.FailureConnectionBroken, v1alpha1.FailureDNS,
	v1alpha1.FailureTLS, v1alpha1.FailureNetwork, v1alpha1.FailureRender,
	mailSenderForbidden, mailRecipientForbidden, mailServerStatus, mailAnswerTooLong, mailAuth, mailTemplateMissing, mailStore, mailRejected, mailExpired, mailListNotFound, mailObsolete,
}

// giveUpAfter is how old an opt-in request or a notice is when an attempt that fails is the
// last: the upper end of what RFC 5321, section 4.5.4.1, asks for.
const giveUpAfter = 5 * 24 * time.Hour

// untilExpired makes a failed attempt the last when what it is about is too old.
func untilExpired(o outcome, age time.Duration) outcome {
	if o.verdict == failed && age >= giveUpAfter {
		return outcome{verdict: givenUp, reason: mailExpired, status: o.status}
	}
	return o
}

// smtpError is an answer that was not the one to hope for. It has the answer's
// codes alone: its text can have the recipient's address or a user's name in it.
type smtpError struct {
	// step is the SMTP command, or what it was about.
	step string
	// code is the reply code, such as 550, and enhanced the enhanced status code
	// (RFC 3463), such as 5.1.1; empty when there was none.
	code     int
	enhanced string
}

// Error implements error.
func (e *smtpError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("mail server answered %s with %d %s", e.step, e.code, e.enhanced))
}

// The steps after which a server's refusal is about this mail.
const (
	stepRecipient = "RCPT"
	stepData      = "DATA"
	stepMessage   = "the message"
	stepAuth      = "AUTH"
)

var enhancedStatus = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}\b`)

// errGarbled: what the server sent is no SMTP, or breaks the rules of a
// mechanism to log in.
var errGarbled = errors.New("mail server's answer makes no sense")

// stepError returns what became of a step, without any text of the server's.
func stepError(step string, err error) error {
	if err == nil {
		return nil
	}
	if answer, ok := errors.AsType[*textproto.Error](err); ok {
		return &smtpError{step: step, code: answer.Code, enhanced: enhancedStatus.FindString(answer.Msg)}
	}
	for _, limit := range []error{errAnswerTooLong, errSessionTooLong} {
		if errors.Is(err, limit) {
			return fmt.Errorf("%s: %w", step, limit)
		}
	}
	if reasonOf(err) == v1alpha1.FailureNetwork {
		return fmt.Errorf("%s: %w", step, errGarbled)
	}
	return fmt.Errorf("%s: %w", step, clippedError{err})
}

// maxErrorText bounds, in bytes, the text of an error that the server has a part in:
// the errors of crypto/x509 quote names of its certificate.
const maxErrorText = 256

// clippedError is an error whose text is bounded.
type clippedError struct{ error }

// Error implements error.
func (e clippedError) Error() string {
	text := e.error.Error()
	if len(text) <= maxErrorText {
		return text
	}
	return strings.ToValidUTF8(text[:maxErrorText], "") + "…"
}

// Unwrap returns the error itself.
func (e clippedError) Unwrap() error { return e.error }

// authError is a login that did not work out.
type authError struct{ error }

// Unwrap returns why.
func (e authError) Unwrap() error { return e.error }

// ofMailError is the outcome of an attempt that the mail server did not answer
// with 250.
func ofMailError(err error) outcome {
	if errors.Is(err, context.Canceled) {
		return outcome{verdict: aborted}
	}
	answer, answered := errors.AsType[*smtpError](err)
	_, isAuth := errors.AsType[authError](err)
	switch {
	case answered && answer.isFinal():
		return outcome{verdict: givenUp, reason: mailRejected, status: answer.code}
	case errors.Is(err, errNoUTF8):
		return outcome{verdict: givenUp, reason: mailRejected}
	case answered && isAuth:
		return outcome{verdict: failed, reason: mailAuth, status: answer.code}
	case answered:
		return outcome{verdict: failed, reason: mailServerStatus, status: answer.code}
	case errors.Is(err, errAnswerTooLong), errors.Is(err, errSessionTooLong):
		return outcome{verdict: failed, reason: mailAnswerTooLong}
	case errors.Is(err, errNoStartTLS):
		return outcome{verdict: failed, reason: v1alpha1.FailureTLS}
	case isAuth && (reasonOf(err) == v1alpha1.FailureNetwork):
		return outcome{verdict: failed, reason: mailAuth}
	}
	return outcome{verdict: failed, reason: reasonOf(err)}
}

// isFinal tells whether the server refused this mail or its recipient for good,
// so that nothing is gained by trying again. What is not about the mail is the
// operator's to mend: 530 asks for a login (RFC 4954, section 6), and X.7.Z (RFC
// 3463, section 3.8) is about who may send, as in "554 5.7.1 Relay access denied".
func (e *smtpError) isFinal() bool {
	aboutMail := e.step == stepRecipient || e.step == stepData || e.step == stepMessage
	mayChange := e.code == 530 || e.step == stepRecipient && strings.HasPrefix(e.enhanced, "5.7.")
	return aboutMail && e.code >= 500 && e.code <= 599 && !mayChange
}
