package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// linesType is the media type of contacts by the thousand, a line each.
const linesType = "application/x-ndjson"

// importURL takes them for a list, and has them raise their events.
func (i *installation) importURL(list int) string {
	return i.ingress + "/webhooks/contacts/import?events=true&key=" + i.keys[list]
}

// importers is how many imports are under way at once: they share commits.
const importers = 4

// importing is contacts to be imported into the first list, with their events.
type importing struct {
	// name is in the addresses, so that they are new.
	name     string
	contacts int
	// subscribed: each raises Create and Subscribe, else Create alone.
	subscribed bool
}

// events is how many of them there are.
func (m importing) events() int {
	if m.subscribed {
		return 2 * m.contacts
	}
	return m.contacts
}

// run imports them.
func (m importing) run(ctx context.Context, i *installation) error {
	return each(ctx, importers, func(ctx context.Context, n int) error {
		reader, writer := io.Pipe()
		defer func() { _ = reader.Close() }() // it ends what writes to it
		go func() { _ = writer.CloseWithError(m.write(writer, n)) }()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, i.importURL(0), reader)
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", linesType)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return fmt.Errorf("import contacts: %w", err)
		}
		defer response.Body.Close()
		return readImported(response.Body)
	})
}

// write writes the lines of one importer.
func (m importing) write(to io.Writer, importer int) error {
	buffered := bufio.NewWriter(to)
	permission := 1 // none
	if m.subscribed {
		permission = 2
	}
	for n := importer; n < m.contacts; n += importers {
		_, err := fmt.Fprintf(buffered, `{"email":"imported-%s-%d@example.com","permission":%d,"FIRSTNAME":"Ada","LASTNAME":"Lovelace"}`+"\n", m.name, n, permission)
		if err != nil {
			return err
		}
	}
	return buffered.Flush()
}

// readImported reads an answer, the last line of which says whether all of it was
// imported.
func readImported(answer io.Reader) error {
	var last struct {
		Complete bool
		Failed   int64
		Error    any
	}
	lines := bufio.NewScanner(answer)
	text := ""
	for lines.Scan() {
		text = lines.Text()
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("import contacts: %w", err)
	}
	if err := json.Unmarshal([]byte(text), &last); err != nil || !last.Complete || last.Failed > 0 {
		return fmt.Errorf("import contacts: it ends with %s", text)
	}
	return nil
}
