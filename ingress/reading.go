package ingress

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

// The paths that contacts are read back under:
//
//	GET /v1/lists/{list}/contacts            all of a list, a line of JSON each
//	GET /v1/lists/{list}/contacts/{email}    one
//
// Programs call them, not forms, so the key comes as a bearer token, out of the
// URL.
const (
	readPrefix  = "/v1/lists/"
	readContact = readPrefix + "{list}/contacts/{email}"
	readList    = readPrefix + "{list}/contacts"
)

// exportPage is how many contacts an export reads, and holds, at once.
const exportPage = 500

// reading is a request to read contacts back.
type reading struct {
	list string
	// email is empty for the whole list.
	email string
}

// parseReading splits a path, as it was sent, into what it names.
func parseReading(escapedPath string) (reading, bool) {
	parts := strings.Split(strings.TrimPrefix(escapedPath, readPrefix), "/")
	if len(parts) < 2 || len(parts) > 3 || parts[1] != "contacts" {
		return reading{}, false
	}
	list, err := url.PathUnescape(parts[0])
	if err != nil || list == "" {
		return reading{}, false
	}
	if len(parts) == 2 {
		return reading{list: list}, true
	}
	email, err := url.PathUnescape(parts[2])
	return reading{list: list, email: email}, err == nil && email != ""
}

// template names the path without what it names.
func (r reading) template() string {
	if r.email == "" {
		return readList
	}
	return readContact
}

// answerRead answers a request under readPrefix.
func (s *server) answerRead(w *statusRecorder, r *http.Request) {
	granted, wanted, err := s.admitReader(r)
	if err == nil && wanted.email != "" {
		err = w.call.claim(granted.key)
	} else if err == nil {
		err = w.call.stream(s.limits.exports, granted.key)
	}
	switch {
	case err != nil:
		writeProblem(w, problemOf(r.Context(), err))
	case wanted.email == "":
		s.export(w, r, granted.listKey())
	default:
		s.answerContact(w, r, granted.listKey(), wanted.email)
	}
}

// admitReader checks the caller and returns what its key allows.
func (s *server) admitReader(r *http.Request) (granted grant, wanted reading, err error) {
	if err := s.checkCaller(r, http.MethodGet); err != nil {
		return granted, wanted, err
	}
	wanted, ours := parseReading(r.URL.EscapedPath())
	if !ours {
		return granted, wanted, errNoRoute
	}
	presented, ok := bearer(r.Header)
	if !ok {
		return granted, wanted, errNoBearer
	}
	if granted, err = s.keys.grant(r.Context(), presented, v1alpha1.ScopeContactsRead); err != nil {
		return granted, wanted, err
	}
	if granted.list.Name != wanted.list {
		return granted, wanted, errOtherList
	}
	return granted, wanted, nil
}

// bearer returns the token of the one Authorization header, by RFC 6750.
func bearer(header http.Header) (token string, ok bool) {
	values := header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimSpace(token)
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

func (s *server) answerContact(w http.ResponseWriter, r *http.Request, list contact.ListKey, email string) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	address, err := contact.ParseAddress(email)
	if err != nil {
		writeProblem(w, problemOf(ctx, err))
		return
	}
	found, err := s.options.Reader.FindContact(ctx, list, address.Key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		writeProblem(w, errNoContact)
	case err != nil:
		writeProblem(w, problemOf(ctx, err))
	default:
		writeJSON(w, http.StatusOK, s.contactView(list, &found))
	}
}

// export streams a list, in the order of addresses. It holds one page in memory,
// and the reader must keep a minimum rate. An error after the answer has begun
// breaks the connection off, so that nobody takes a part for the whole.
func (s *server) export(w *statusRecorder, r *http.Request, list contact.ListKey) {
	out := &pacedWriter{ResponseWriter: w, pace: &pace{bytesPerSecond: exportBytesPerSecond, slack: exportSlack}, pass: w.call.pass}
	page, next, err := s.options.Reader.ListContacts(r.Context(), list, "", exportPage)
	if err != nil {
		writeProblem(w, problemOf(r.Context(), err))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	for {
		if err = s.sendPage(out, list, page); err != nil || next == "" {
			break
		}
		if page, next, err = s.options.Reader.ListContacts(r.Context(), list, next, exportPage); err != nil {
			_ = problemOf(r.Context(), err) // for the log: the answer has begun
			break
		}
	}
	if errors.Is(err, errSlowReader) {
		s.limits.slowExports.Inc()
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

// sendPage sends contacts, a line of JSON each, before more are read.
func (s *server) sendPage(out *pacedWriter, list contact.ListKey, page []contact.Contact) error {
	lines := bufio.NewWriterSize(out, pacedChunk)
	encoder := json.NewEncoder(lines)
	for i := range page {
		if err := encoder.Encode(s.contactView(list, &page[i])); err != nil {
			return err
		}
	}
	if err := lines.Flush(); err != nil {
		return err
	}
	return out.flush()
}
