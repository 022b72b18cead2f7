package ingress

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/recipient"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/tracing"
)

// tokenTemplate stands for a token where a path is shown: a token lets whoever
// has it do what the link is for.
const tokenTemplate = "{token}"

// parsePagePath splits the path of a page that people see.
func parsePagePath(path string) (purpose link.Purpose, token string, ours bool) {
	for _, purpose := range []link.Purpose{link.Confirm, link.Unsubscribe, link.Profile, link.Reactivate} {
		if token, ours := strings.CutPrefix(path, purpose.Path()); ours {
			return purpose, token, true
		}
	}
	return 0, "", false
}

func isPage(r *http.Request) bool {
	_, _, ours := parsePagePath(r.URL.Path)
	return ours
}

// visit is a request for a page.
type visit struct {
	link     link.Link
	language v1alpha1.Language
	// list is nil as long as the link is not known to be ours, and where the
	// list is gone.
	list *v1alpha1.ContactList
	// posts tells that a button was pressed; form then has what was sent. Any
	// other visit changes nothing: mail scanners open every link.
	posts bool
	form  map[string]string
	// at is when it came.
	at time.Time
}

// pageAnswer is what a visit is answered.
type pageAnswer struct {
	status int
	page   recipient.Page
	header map[string]string
	// location is where the visitor is sent instead, with a 303.
	location string
}

func pageOf(status int, kind recipient.PageKind) pageAnswer {
	return pageAnswer{status: status, page: recipient.Page{Kind: kind}}
}

// gone answers a visit about a contact or a list that is there no more.
func gone() pageAnswer { return pageOf(http.StatusGone, recipient.PageGone) }

// answerPage answers a request for a page.
func (s *server) answerPage(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	visit := s.newVisit(r)
	answer, err := s.receive(r, visit)
	if err != nil {
		answer = refusedPage(problemOf(ctx, err))
	}
	s.writePage(w, r, visit, answer)
}

// refusePage answers a request for a page that was refused before it was looked at.
func (s *server) refusePage(w http.ResponseWriter, r *http.Request, p *problem) {
	s.writePage(w, r, s.newVisit(r), refusedPage(p))
}

// refusedPage returns the page for a problem.
func refusedPage(p *problem) pageAnswer {
	kind := recipient.PageError
	switch {
	case p == errPlainHTTP:
		kind = recipient.PageInsecure
	case p.status == http.StatusServiceUnavailable, p.status == http.StatusTooManyRequests:
		kind = recipient.PageLater
	}
	answer := pageOf(p.status, kind)
	answer.header = p.header
	return answer
}

func (s *server) newVisit(r *http.Request) *visit {
	return &visit{
		language: recipient.LanguageFor(r.Header.Get("Accept-Language"), ""),
		posts:    r.Method == http.MethodPost, at: s.now().UTC(),
	}
}

// receive checks the request and does what the link is for.
func (s *server) receive(r *http.Request, v *visit) (answer pageAnswer, err error) {
	switch {
	case !s.isHTTPS(r) && !s.options.AllowPlainHTTP:
		return answer, errPlainHTTP
	case !v.posts && r.Method != http.MethodGet && r.Method != http.MethodHead:
		return answer, methodNotAllowed("GET, HEAD, POST")
	}
	purpose, token, _ := parsePagePath(r.URL.Path)
	if purpose == link.Reactivate {
		return s.reactivate(r, v, token)
	}
	opened, expired, valid := s.openLink(token, purpose, v.at)
	if !valid {
		return pageOf(http.StatusNotFound, recipient.PageInvalid), nil
	}
	v.link = opened
	if v.list, err = s.listOf(r.Context(), v.link.List); err != nil {
		return answer, err
	}
	if v.list != nil {
		v.language = recipient.LanguageFor(r.Header.Get("Accept-Language"), v.list.Spec.Language)
	}
	switch {
	case expired && purpose == link.Confirm:
		return pageOf(http.StatusGone, recipient.PageConfirmExpired), nil
	case expired:
		return pageOf(http.StatusGone, recipient.PageExpired), nil
	case v.list == nil:
		return gone(), nil
	}
	if v.posts {
		if v.form, err = readForm(r); err != nil {
			return answer, err
		}
	}
	if !v.posts {
		return s.follow(r.Context(), v)
	}
	ctx, span := s.accept(r, v.list, v.at)
	defer func() { endCall(span, err) }()
	return s.follow(ctx, v)
}

// openLink returns what a token says. One that has expired is valid, too. Without
// a key none is.
func (s *server) openLink(token string, purpose link.Purpose, now time.Time) (opened link.Link, expired, valid bool) {
	if s.options.LinkKeys == nil {
		return link.Link{}, false, false
	}
	opened, err := s.options.LinkKeys.Open(token, purpose, now)
	expired = errors.Is(err, link.ErrExpired)
	return opened, expired, expired || err == nil
}

// listOf returns the list of a link, nil when it is gone.
func (s *server) listOf(ctx context.Context, key contact.ListKey) (*v1alpha1.ContactList, error) {
	list := &v1alpha1.ContactList{}
	err := s.options.Objects.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: key.Name}, list, client.UnsafeDisableDeepCopy)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errLookUp, err)
	case list.DeletionTimestamp != nil:
		return nil, nil
	}
	return list, s.keys.bindings.check(ctx, list)
}

// follow does what a good link is for.
func (s *server) follow(ctx context.Context, v *visit) (pageAnswer, error) {
	switch v.link.Purpose {
	case link.Confirm:
		return s.confirm(ctx, v)
	case link.Unsubscribe:
		return s.unsubscribe(ctx, v)
	default:
		return s.profile(ctx, v)
	}
}

// find returns the contact of a link, nil when it is gone.
func (s *server) find(ctx context.Context, v *visit) (*contact.Contact, error) {
	found, err := s.options.Reader.FindContactByID(ctx, v.link.List, v.link.Contact)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, storeProblem(ctx, err)
	}
	return &found, nil
}

// change changes the contact of a link. The decision's contact has no ID when
// there is none.
func (s *server) change(ctx context.Context, v *visit, decide apply) (contact.Decision, error) {
	decision, err := s.options.Contacts.Change(ctx, store.Change{
		List: v.link.List, ContactID: v.link.Contact, Apply: carrying(decide, 0, tracing.Carried(ctx)),
	})
	if err != nil {
		return decision, storeProblem(ctx, err)
	}
	s.count(v.link.List, &decision)
	return decision, nil
}

// storeProblem has a visitor try again, whatever is wrong with the store: the
// link stays good.
func storeProblem(ctx context.Context, err error) error {
	p := problemOf(ctx, err)
	if p == errInternal {
		return errUnavailable
	}
	return p
}

// writePage writes a page in the look of its list.
func (s *server) writePage(w http.ResponseWriter, r *http.Request, v *visit, answer pageAnswer) {
	header := w.Header()
	for name, value := range answer.header {
		header.Set(name, value)
	}
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer") // the page's address has the token in it
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Robots-Tag", "noindex")
	if answer.location != "" {
		header.Set("Location", answer.location)
		w.WriteHeader(answer.status)
		return
	}
	answer.page.Language = v.language
	if v.list != nil {
		answer.page.List = v.list.DisplayName()
	}
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Language", string(v.language))
	header.Set("Vary", "Accept-Language")
	header.Set("Content-Security-Policy", v.contentPolicy())
	text := s.render(r.Context(), v, answer.page)
	w.WriteHeader(answer.status)
	_, _ = w.Write([]byte(text)) // a write error means that nobody is left to tell
}

// render returns a page in the look of its list, or in the built-in one where
// that can't be used.
func (s *server) render(ctx context.Context, v *visit, page recipient.Page) string {
	logger := logr.FromContextOrDiscard(ctx)
	if v.list != nil && s.options.Texts != nil {
		text, err := s.renderBranded(ctx, v, page)
		if err == nil {
			return text
		}
		logger.Error(err, "use the list's own pages", "namespace", v.list.Namespace, "list", v.list.Name)
	}
	text, err := new(recipient.Pages).Render(page)
	if err != nil {
		logger.Error(err, "render a page")
	}
	return text
}

func (s *server) renderBranded(ctx context.Context, v *visit, page recipient.Page) (string, error) {
	texts, err := s.options.Texts.LoadTexts(ctx, v.link.List)
	if err != nil {
		return "", err
	}
	pages, err := recipient.ParsePages(texts.Pages)
	if err != nil {
		return "", err
	}
	return pages.Render(page)
}

// contentPolicy returns the Content-Security-Policy of a page: no scripts, and
// nothing from elsewhere but images. Chromium applies form-action to where an
// answer redirects to, and to where that redirects, so it names the scheme of
// the list's own page.
func (v *visit) contentPolicy() string {
	forms := "'self'"
	if v.list != nil && v.link.Purpose == link.Confirm {
		if confirmed, err := url.Parse(v.list.Spec.OptIn.ConfirmedURL); err == nil && confirmed.Scheme != "" {
			forms += " " + confirmed.Scheme + ":"
		}
	}
	return "default-src 'none'; style-src 'unsafe-inline'; img-src https: data:; form-action " + forms +
		"; frame-ancestors 'none'; base-uri 'none'"
}
