package main

import (
	"errors"
	"flag"
	"fmt"
	"net/mail"
	"net/url"

	"postbus.dev/postbus/dispatcher"
)

// mailSettings are what the flags of opt-in mails say.
type mailSettings struct {
	// server and from are as they were given. They are read by check, because
	// the flag package shows a value that it can't read, and people write
	// passwords into URLs.
	server, from string
	options      dispatcher.MailOptions
}

// registerPolicy registers the flags that controller and dispatcher both need.
func (s *mailSettings) registerPolicy(flags *flag.FlagSet) {
	flags.StringVar(&s.from, "mail-from", "",
		"`address` that mails come from whose mailing names none, such as \"Example News <news@example.com>\"; give controller and dispatcher the same")
	flags.Func("allowed-senders",
		"`addresses`, separated by commas, that mailings may have as their sender beside --mail-from, such as news@example.com, *@example.com or *@*.example.com; "+
			"NAMESPACE/ADDRESS allows one to the mailings of a namespace alone; any without it; may be repeated; give controller and dispatcher the same",
		s.options.Policy.Senders.AddSenders)
	flags.Func("notice-domains",
		"`domains`, separated by commas, of the addresses in spec.notify.emails, such as example.com, or *.example.com for all below; "+
			"NAMESPACE/DOMAIN allows one to the notices of a namespace alone; any without it; may be repeated; give controller and dispatcher the same",
		s.options.Policy.NoticeDomains.AddDomains)
}

func (s *mailSettings) register(flags *flag.FlagSet) {
	flags.StringVar(&s.server, "smtp-server", "",
		"`URL` of the server that takes mails: smtp://host:587 with STARTTLS, smtps://host:465 with TLS, smtp+plain://host:25 without; mails wait while there is none")
	flags.StringVar(&s.options.Credentials, "smtp-credentials", "",
		"`folder` with the files username and password for the server, a mounted Secret of type kubernetes.io/basic-auth; read again for each mail")
}

// check reads the values, and finds what one flag alone can't tell.
func (s *mailSettings) check(publicURL *url.URL) (err error) {
	if s.from != "" {
		if s.options.From, err = mail.ParseAddress(s.from); err != nil {
			return fmt.Errorf("--mail-from is %q, it must be an address such as news@example.com: %w", s.from, err)
		}
	}
	s.options.Policy.From = s.options.From
	s.options.PublicURL = publicURL
	switch {
	case s.server == "" && s.options.Credentials != "":
		return errors.New("--smtp-credentials needs --smtp-server, the server that they are for")
	case s.server == "":
		return nil
	case s.options.From == nil:
		return errors.New("--smtp-server needs --mail-from, the sender of mails whose mailing names none")
	case publicURL == nil:
		return errors.New("--smtp-server needs --public-url, what the links in mails begin with")
	}
	if s.options.Server, err = dispatcher.ParseMailServer(s.server); err != nil {
		return fmt.Errorf("--smtp-server can't be used: %w", err)
	}
	return nil
}
