package main

import (
	"flag"
	"fmt"
	"net"
	"path/filepath"
)

// settings are what the flags say. The names in brackets are the variables of
// the Makefile that set them.
type settings struct {
	// postbus is the program that is run.
	postbus string
	// programs is the folder of etcd, kube-apiserver and kubectl.
	programs string
	// config is the folder of CRDs and samples.
	config string
	// dir is the only folder that is written to (POSTBUS_DIR).
	dir string
	// kubeconfig and keyFile are written for people and scripts (KUBECONFIG_FILE, KEY_FILE).
	kubeconfig string
	keyFile    string
	// ingress, receiver, mail and metrics are addresses (INGRESS_ADDRESS,
	// RECEIVER_ADDRESS, MAIL_ADDRESS, METRICS_ADDRESS).
	ingress  string
	receiver string
	mail     string
	metrics  string
	// callback is the receiver's address as callbacks name it; where it is empty, the
	// address that it listens on.
	callback string
	// existing uses a cluster that runs already (USE_EXISTING_CLUSTER), which
	// existingKubeconfig names (KUBECONFIG).
	existing           bool
	existingKubeconfig string
}

func parse(subcommand string, args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("devenv "+subcommand, flag.ContinueOnError)
	flags.StringVar(&s.postbus, "postbus", "bin/postbus", "program to run")
	flags.StringVar(&s.programs, "programs", "bin", "folder of etcd, kube-apiserver and kubectl")
	flags.StringVar(&s.config, "config", "config", "folder of crd and samples")
	flags.StringVar(&s.dir, "dir", ".postbus", "folder for everything that is written")
	flags.StringVar(&s.kubeconfig, "kubeconfig-file", "", "kubeconfig to write (default DIR/kubeconfig)")
	flags.StringVar(&s.keyFile, "key-file", "", "file to write the API key to (default DIR/key)")
	flags.StringVar(&s.ingress, "ingress-address", "127.0.0.1:8080", "address of ingress")
	flags.StringVar(&s.receiver, "receiver-address", "127.0.0.1:9000", "address of the receiver of callbacks")
	flags.StringVar(&s.callback, "callback-address", "", "address of the receiver as callbacks name it (default that of the receiver)")
	flags.StringVar(&s.mail, "mail-address", "127.0.0.1:2525", "address of the mailbox that opt-in mails are sent to")
	flags.StringVar(&s.metrics, "metrics-address", "127.0.0.1:8081", "address of metrics and probes")
	flags.BoolVar(&s.existing, "existing-cluster", false, "use a cluster that runs already (default false)")
	flags.StringVar(&s.existingKubeconfig, "existing-kubeconfig", "",
		"kubeconfig of the existing cluster (default KUBECONFIG or ~/.kube/config)")
	if err := flags.Parse(args); err != nil {
		return settings{}, err
	}
	if flags.NArg() > 0 {
		return settings{}, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if s.kubeconfig == "" {
		s.kubeconfig = filepath.Join(s.dir, "kubeconfig")
	}
	if s.keyFile == "" {
		s.keyFile = filepath.Join(s.dir, "key")
	}
	return s, s.checkAddresses()
}

func (s settings) checkAddresses() error {
	for _, a := range s.addresses() {
		if _, _, err := net.SplitHostPort(a.address); err != nil {
			return fmt.Errorf("%s must be host:port: %w", a.variable, err)
		}
	}
	return nil
}

// The variables of the addresses that this program listens on itself.
const (
	receiverVariable = "RECEIVER_ADDRESS"
	mailVariable     = "MAIL_ADDRESS"
)

// namedAddress is an address and the variable of the Makefile that sets it.
type namedAddress struct{ variable, address string }

// addresses are what is listened on.
func (s settings) addresses() []namedAddress {
	return []namedAddress{
		{"INGRESS_ADDRESS", s.ingress},
		{"METRICS_ADDRESS", s.metrics},
		{receiverVariable, s.receiver},
		{mailVariable, s.mail},
	}
}

// called is the receiver's address as callbacks name it.
func (s settings) called() string {
	if s.callback != "" {
		return s.callback
	}
	return dialable(s.receiver)
}

// logs is the folder of all logs.
func (s settings) logs() string { return filepath.Join(s.dir, "logs") }

// dialable returns an address to call what listens on this one: one that
// listens everywhere is called on the loopback address.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}
