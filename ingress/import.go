package ingress

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/store"
)

const importPath = "/webhooks/contacts/import"

const (
	// importBatch is how many lines share a commit, and are in memory at once;
	// importBatchSize bounds their text, in bytes, but for the last one's.
	importBatch     = 256
	importBatchSize = 1 << 20
	// lingerTimeout and lingerSize bound how long, and how many bytes, are read
	// from a caller whose import has ended early.
	lingerTimeout = 5 * time.Second
	lingerSize    = 16 << 20
)

// The parameters of an import's URL beside the key and those that are the
// defaults of every line.
const (
	eventsParameter = "events"
	skipParameter   = "skip"
)

// importer imports one file. It holds one batch of it.
type importer struct {
	server *server
	grant  grant
	// results encodes into lines, and lines are sent to the caller through out.
	results *json.Encoder
	lines   *bufio.Writer
	out     *pacedWriter
	// defaults are the parameters that a line does not have itself.
	defaults map[string]string
	// events tells that the import raises events, hops how many callbacks led to it.
	events bool
	hops   int
	// line is the number of the last line that was read, skip how many not to
	// look at again.
	line, skip int64
	failed     int64
}

// lineResult is a line of an import's answer: what became of one line.
type lineResult struct {
	Line    int64         `json:"line"`
	Contact *savedContact `json:"contact,omitempty"`
	Error   *refusedError `json:"error,omitempty"`
}

// importResult is the last line of an import's answer. An answer without it was
// cut off.
type importResult struct {
	Complete bool          `json:"complete"`
	Lines    int64         `json:"lines"`
	Failed   int64         `json:"failed"`
	Error    *refusedError `json:"error,omitempty"`
}

// answerImport answers an import: it begins to answer before it has read the
// whole request.
func (s *server) answerImport(w *statusRecorder, r *http.Request) {
	// Otherwise net/http waits for more of the body even to answer that it is
	// refused. HTTP/2 always has it.
	_ = http.NewResponseController(w).EnableFullDuplex()
	i, lines, err := s.admitImport(w, r)
	if err != nil {
		writeProblem(w, problemOf(r.Context(), err))
		w.call.linger(r.ProtoMajor)
		return
	}
	w.Header().Set("Content-Type", typeNDJSON)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	err = i.run(r.Context(), lines)
	result := importResult{Complete: err == nil, Lines: i.line, Failed: i.failed}
	if err != nil {
		result.Error = refusedOf(problemOf(r.Context(), err))
	}
	if errors.Is(err, errSlowImport) {
		s.limits.slowImports.Inc()
		w.call.pace.behind = 0 // there is time to say so
	}
	_ = i.results.Encode(result) // whoever has gone asks again
	_ = i.lines.Flush()
	if err != nil {
		w.call.linger(r.ProtoMajor)
	}
}

// linger reads on for a while from a caller who has been told that the import
// has ended: a connection that is closed on somebody who still sends loses what
// they have not read yet. HTTP/2 closes the stream alone.
func (c *admittedCall) linger(protocol int) {
	c.leave()
	if protocol > 1 {
		return
	}
	control := http.NewResponseController(c.writer)
	_ = control.Flush()
	_ = control.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, c.body, lingerSize)
}

// admitImport checks the caller, its key, and what the URL says.
func (s *server) admitImport(w *statusRecorder, r *http.Request) (*importer, lineReader, error) {
	if err := s.checkCaller(r, http.MethodPost); err != nil {
		return nil, nil, err
	}
	hops, err := hopsOf(r)
	if err != nil {
		return nil, nil, err
	}
	newReader := lineReaderOf(r.Header)
	if newReader == nil {
		return nil, nil, errImportType
	}
	given := parsePairs(r.URL.RawQuery)
	presented, err := importKey(given, r.Header)
	if err != nil {
		return nil, nil, err
	}
	granted, err := s.keys.grant(r.Context(), presented, v1alpha1.ScopeContactsImport)
	if err != nil {
		return nil, nil, err
	}
	if given.wrong != nil {
		return nil, nil, given.wrong
	}
	i := &importer{server: s, grant: granted, defaults: given.values, hops: hops}
	if err := i.readSettings(); err != nil {
		return nil, nil, err
	}
	if err := s.logBytes.check(granted.list.Namespace, s.now()); err != nil {
		return nil, nil, err
	}
	if err := w.call.stream(s.limits.imports, granted.key); err != nil {
		return nil, nil, err
	}
	// One pace for both directions: a caller who doesn't take its results is slow, too.
	w.call.pace = &pace{bytesPerSecond: importBytesPerSecond, slack: importSlack}
	i.out = &pacedWriter{ResponseWriter: w, pace: w.call.pace}
	i.lines = bufio.NewWriter(i.out)
	i.results = json.NewEncoder(i.lines)
	return i, newReader(r.Body), nil
}

// importKey returns the one key of the URL or the Authorization header.
func importKey(given place, header http.Header) (string, error) {
	key := strings.TrimSpace(given.values[keyParameter])
	token, hasToken := bearer(header)
	if given.keyRefused || (key == "") == !hasToken {
		return "", errNoKey
	}
	return key + token, nil
}

// readSettings takes what is about the import as a whole out of the defaults.
func (i *importer) readSettings() (err error) {
	settings := call{given: i.defaults}
	if i.events, err = settings.flag(eventsParameter); err != nil {
		return err
	}
	if text, given := i.defaults[skipParameter]; given {
		if i.skip, err = strconv.ParseInt(text, 10, 64); err != nil || i.skip < 0 {
			return illegalValue(skipParameter, "must be a number of lines")
		}
	}
	for _, name := range []string{keyParameter, eventsParameter, skipParameter} {
		delete(i.defaults, name)
	}
	return nil
}

// run imports batch by batch. The error says why it ended before the file did;
// all results that were sent before are durable.
func (i *importer) run(ctx context.Context, lines lineReader) error {
	for {
		batch, readErr := i.readBatch(lines)
		if errors.Is(readErr, errSlowImport) {
			ctx = context.WithoutCancel(ctx) // net/http takes a read that timed out for a caller who is gone
		}
		if err := i.store(ctx, batch); err != nil {
			return err
		}
		switch {
		case errors.Is(readErr, io.EOF):
			return nil
		case readErr != nil:
			return readErr
		}
		if err := errors.Join(i.lines.Flush(), i.out.flush()); err != nil {
			return i.sendError(err)
		}
	}
}

// line is one line of a file, as far as it is known.
type line struct {
	number int64
	change store.Change
	err    error
}

// readBatch reads lines that are not skipped, until they are a batch. What was
// read before an error is returned with it.
func (i *importer) readBatch(lines lineReader) (batch []line, err error) {
	for size := 0; len(batch) < importBatch && size < importBatchSize; {
		given, err := lines.next()
		if err != nil {
			return batch, err
		}
		i.line++
		if i.line <= i.skip {
			continue
		}
		size += given.size()
		l := line{number: i.line}
		l.change, l.err = i.changeOf(given)
		batch = append(batch, l)
	}
	return batch, nil
}

// changeOf checks one line as a call of its own.
func (i *importer) changeOf(given place) (store.Change, error) {
	in := input{url: place{values: maps.Clone(i.defaults)}, body: given, json: true}
	merged, err := in.merge(i.grant.list.Spec.CustomFields)
	if err != nil {
		return store.Change{}, err
	}
	c := call{grant: i.grant, given: merged, at: i.server.now().UTC(), hops: i.hops}
	change, err := c.change(operations[contactPath])
	if err != nil || i.events {
		return change, err
	}
	decide := change.Apply
	change.Apply = func(current *contact.Contact) contact.Decision {
		decision := decide(current)
		decision.Events = nil
		return decision
	}
	return change, nil
}

// store makes the changes of a batch and sends a result for each line.
func (i *importer) store(ctx context.Context, batch []line) error {
	var changes []store.Change
	for _, l := range batch {
		if l.err == nil {
			changes = append(changes, l.change)
		}
	}
	err := i.server.logBytes.check(i.grant.list.Namespace, i.server.now())
	var results []store.ChangeResult
	if err == nil {
		results, err = i.server.options.Contacts.ChangeAll(ctx, changes)
	}
	if err != nil {
		i.line -= int64(len(batch)) // they were not imported
		return err
	}
	for _, l := range batch {
		result := store.ChangeResult{Err: l.err}
		if l.err == nil {
			result, results = results[0], results[1:]
		}
		if err := i.results.Encode(i.resultOf(ctx, l.number, result)); err != nil {
			return i.sendError(err)
		}
	}
	return nil
}

// sendError returns the error of results that could not be sent.
func (i *importer) sendError(err error) error {
	if errors.Is(err, errSlowReader) {
		return errSlowImport
	}
	return fmt.Errorf("send results: %w", err)
}

func (i *importer) resultOf(ctx context.Context, number int64, result store.ChangeResult) lineResult {
	if result.Err != nil {
		i.failed++
		return lineResult{Line: number, Error: refusedOf(problemOf(ctx, result.Err))}
	}
	i.server.count(i.grant.listKey(), &result.Decision)
	saved := savedContactOf(i.grant.list.Name, &result.Decision)
	return lineResult{Line: number, Contact: &saved}
}
