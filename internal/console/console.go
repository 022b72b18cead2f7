// Package console answers: how does an operator look at contacts and change
// them from a terminal?
//
// It is a client of ingress, with an API key like any other caller, so what it
// may do, and the source that its events carry, is declared in an ApiKey:
// usually all scopes and the source Console.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// KeyVariable names the environment variable that holds the API key. A flag
// would show it to everybody who can list processes.
const KeyVariable = "POSTBUS_API_KEY"

const usage = `Look at the contacts of a list and change them, through ingress.

Usage: postbus contacts COMMAND [FLAGS] [ARGUMENTS]

Commands:
  add EMAIL [NAME=VALUE…]     create a contact, with the parameters of the API: permission=2 standard_FIRSTNAME=Ada
  change EMAIL [NAME=VALUE…]  the same, and change the contact if there is one
  show EMAIL                  print a contact
  unsubscribe EMAIL           end a contact that leaves
  delete EMAIL                end a contact
  export                      print all contacts, a line each
  import FILE                 import a .csv or .ndjson file

The API key is read from the environment variable ` + KeyVariable + `.
postbus contacts COMMAND --help lists a command's flags.
`

// IO is what a command reads from and writes to.
type IO struct {
	// Environment looks a variable up; os.Getenv.
	Environment func(name string) string
	// Out is where answers go.
	Out io.Writer
}

// settings are what a command's flags say.
type settings struct {
	server, list       string
	reason, reasonText string
	forget, events     bool
	skip               int64
}

// command is one thing to do.
type command struct {
	// arguments is how many there are, at least and, unless more, at most.
	arguments int
	more      bool
	flags     func(*flag.FlagSet, *settings)
	run       func(c *client, ctx context.Context, arguments []string) error
}

var commands = map[string]command{
	"add":         {arguments: 1, more: true, run: (*client).add},
	"change":      {arguments: 1, more: true, run: (*client).change},
	"show":        {arguments: 1, flags: listFlag, run: (*client).show},
	"unsubscribe": {arguments: 1, flags: reasonFlags, run: (*client).unsubscribe},
	"delete":      {arguments: 1, flags: forgetFlag, run: (*client).remove},
	"export":      {flags: listFlag, run: (*client).export},
	"import":      {arguments: 1, flags: importFlags, run: (*client).importFile},
}

func listFlag(flags *flag.FlagSet, s *settings) {
	flags.StringVar(&s.list, "list", "", "`name` of the ContactList that the key belongs to")
}

func reasonFlags(flags *flag.FlagSet, s *settings) {
	flags.StringVar(&s.reason, "reason", "", "why: MailUp's `code` or Maileon's name")
	flags.StringVar(&s.reasonText, "reason-text", "", "why, in the contact's `words`")
}

func forgetFlag(flags *flag.FlagSet, s *settings) {
	flags.BoolVar(&s.forget, "forget", false, "forget the person: remove earlier events too")
}

func importFlags(flags *flag.FlagSet, s *settings) {
	flags.BoolVar(&s.events, "events", false, "raise events for what is imported")
	flags.Int64Var(&s.skip, "skip", 0, "leave out the first `lines`, which an import that was cut off has done")
}

// Run runs the command that the arguments name. An answer other than success is
// an error with the words of ingress.
func Run(ctx context.Context, arguments []string, with IO) error {
	if len(arguments) == 0 || arguments[0] == "help" || arguments[0] == "--help" || arguments[0] == "-h" {
		_, err := fmt.Fprint(with.Out, usage)
		return err
	}
	wanted, known := commands[arguments[0]]
	if !known {
		return fmt.Errorf("there is no command %q; postbus contacts --help lists them", arguments[0])
	}
	var s settings
	flags := flag.NewFlagSet("postbus contacts "+arguments[0], flag.ContinueOnError)
	flags.SetOutput(with.Out)
	flags.StringVar(&s.server, "server", "http://127.0.0.1:8080", "`URL` of ingress")
	if wanted.flags != nil {
		wanted.flags(flags, &s)
	}
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	for n, argument := range flags.Args() {
		if n > 0 && strings.HasPrefix(argument, "-") {
			return fmt.Errorf("%q is behind an argument: flags stand before them; postbus contacts --help tells more", argument)
		}
	}
	if given := flags.NArg(); given < wanted.arguments || given > wanted.arguments && !wanted.more {
		return fmt.Errorf("%s takes another number of arguments than %d; postbus contacts --help tells more", arguments[0], given)
	}
	key := strings.TrimSpace(with.Environment(KeyVariable))
	if key == "" {
		return fmt.Errorf("the environment variable %s must hold the API key", KeyVariable)
	}
	return wanted.run(&client{settings: s, key: key, out: with.Out}, ctx, flags.Args())
}

// client calls ingress.
type client struct {
	settings settings
	key      string
	out      io.Writer
}

func (c *client) add(ctx context.Context, arguments []string) error {
	parameters := url.Values{"key": {c.key}, "email": {arguments[0]}}
	for _, argument := range arguments[1:] {
		name, value, ok := strings.Cut(argument, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=VALUE", argument)
		}
		parameters.Add(name, value)
	}
	return c.postForm(ctx, "/webhooks/contacts/email", parameters)
}

func (c *client) change(ctx context.Context, arguments []string) error {
	return c.add(ctx, append(arguments, "sync_mode=1"))
}

func (c *client) unsubscribe(ctx context.Context, arguments []string) error {
	return c.postForm(ctx, "/webhooks/contacts/unsubscribe", url.Values{
		"key": {c.key}, "email": {arguments[0]}, "reason": {c.settings.reason}, "reason_text": {c.settings.reasonText},
	})
}

func (c *client) remove(ctx context.Context, arguments []string) error {
	return c.postForm(ctx, "/webhooks/contacts/delete", url.Values{
		"key": {c.key}, "email": {arguments[0]}, "forget": {fmt.Sprint(c.settings.forget)},
	})
}

func (c *client) postForm(ctx context.Context, path string, parameters url.Values) error {
	return c.send(ctx, http.MethodPost, path, "application/x-www-form-urlencoded", strings.NewReader(parameters.Encode()))
}

func (c *client) show(ctx context.Context, arguments []string) error {
	return c.read(ctx, "/"+url.PathEscape(arguments[0]))
}

func (c *client) export(ctx context.Context, _ []string) error { return c.read(ctx, "") }

func (c *client) read(ctx context.Context, of string) error {
	if c.settings.list == "" {
		return errors.New("--list must name the ContactList that the key belongs to")
	}
	return c.send(ctx, http.MethodGet, "/v1/lists/"+url.PathEscape(c.settings.list)+"/contacts"+of, "", http.NoBody)
}

// importFile streams a file, and prints a result for each line.
func (c *client) importFile(ctx context.Context, arguments []string) error {
	var kind string
	switch name := arguments[0]; {
	case strings.HasSuffix(name, ".csv"):
		kind = "text/csv"
	case strings.HasSuffix(name, ".ndjson"):
		kind = "application/x-ndjson"
	default:
		return fmt.Errorf("%s ends neither in .csv nor in .ndjson", name)
	}
	file, err := os.Open(arguments[0])
	if err != nil {
		return err
	}
	defer file.Close()
	settings := url.Values{"events": {fmt.Sprint(c.settings.events)}, "skip": {fmt.Sprint(c.settings.skip)}}
	last := &lastLine{out: c.out}
	c.out = last
	if err := c.send(ctx, http.MethodPost, "/webhooks/contacts/import?"+settings.Encode(), kind, file); err != nil {
		return err
	}
	var result struct{ Complete bool }
	if json.Unmarshal(last.line, &result) != nil || !result.Complete {
		return errors.New("the import was cut off: import again with --skip and the last line that has a result")
	}
	return nil
}

// send makes a request and copies the answer of one that succeeds.
func (c *client) send(ctx context.Context, method, path, contentType string, body io.Reader) error {
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.settings.server, "/")+path, body)
	if err != nil {
		return fmt.Errorf("call ingress: %w", err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	if contentType != "application/x-www-form-urlencoded" {
		request.Header.Set("Authorization", "Bearer "+c.key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("call ingress: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return refusal(response)
	}
	if _, err := io.Copy(c.out, response.Body); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// maxRefusal is how much of a refusal is read.
const maxRefusal = 64 << 10

// refusal returns the words of an answer other than success.
func refusal(response *http.Response) error {
	var body struct{ Error struct{ Message string } }
	err := json.NewDecoder(io.LimitReader(response.Body, maxRefusal)).Decode(&body)
	if err != nil || body.Error.Message == "" {
		return fmt.Errorf("ingress answers %s", response.Status)
	}
	return fmt.Errorf("ingress answers %s: %s", response.Status, body.Error.Message)
}
