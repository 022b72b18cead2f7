package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

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

const (
	// exportPage is how many contacts an export reads, and holds, at once.
	exportPage = 500
	// exportPageTimeout is how long a reader may take to accept one page.
	exportPageTimeout = 30 * time.Second
)

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
func (s *server) answerRead(w http.ResponseWriter, r *http.Request) {
	list, wanted, err := s.admitReader(r)
	switch {
	case err != nil:
		writeProblem(w, problemOf(r.Context(), err))
	case wanted.email == "":
		s.export(w, r, list)
	default:
		s.answerContact(w, r, list, wanted.email)
	}
}

// admitReader checks the caller and returns the list that it may read.
func (s *server) admitReader(r *http.Request) (list contact.ListKey, wanted reading, err error) {
	if err := s.checkCaller(r, http.MethodGet); err != nil {
		return list, wanted, err
	}
	wanted, ours := parseReading(r.URL.EscapedPath())
	if !ours {
		return list, wanted, errNoRoute
	}
	presented, ok := bearer(r.Header)
	if !ok {
		return list, wanted, errNoBearer
	}
	granted, err := s.keys.grant(r.Context(), presented, v1alpha1.ScopeContactsRead)
	if err != nil {
		return list, wanted, err
	}
	if granted.list.Name != wanted.list {
		return list, wanted, errOtherList
	}
	return contact.ListKey{Namespace: granted.list.Namespace, Name: granted.list.Name}, wanted, nil
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
// and a page's time bounds how slowly it may be read. An error after the first
// page breaks the connection off, so that nobody takes a part for the whole.
func (s *server) export(w http.ResponseWriter, r *http.Request, list contact.ListKey) {
	control := http.NewResponseController(w)
	encoder := json.NewEncoder(w)
	after, started := "", false
	for {
		page, next, err := s.options.Reader.ListContacts(r.Context(), list, after, exportPage)
		if err != nil && !started {
			writeProblem(w, problemOf(r.Context(), err))
			return
		}
		if err != nil {
			_ = problemOf(r.Context(), err) // for the log: the answer has begun
			panic(http.ErrAbortHandler)
		}
		if !started {
			started = true
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusOK)
		}
		_ = control.SetWriteDeadline(time.Now().Add(exportPageTimeout)) // where it is not known, the server's stands
		for i := range page {
			if encoder.Encode(s.contactView(list, &page[i])) != nil {
				return // the reader has gone
			}
		}
		if next == "" {
			return
		}
		_ = control.Flush() // what was read is of use before the rest is
		after = next
	}
}
