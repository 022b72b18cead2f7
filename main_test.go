package main

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"postbus.dev/postbus/internal/store/sqlite"
	"postbus.dev/postbus/internal/testkit"
)

// asPostbus makes the test's own program behave as postbus, so that tests run
// real processes, race detector included.
const asPostbus = "POSTBUS_TEST_RUN_AS_POSTBUS"

var plane *testkit.ControlPlane

func TestMain(m *testing.M) {
	if os.Getenv(asPostbus) != "" {
		main()
		return
	}
	os.Exit(testkit.Run(m, func(p *testkit.ControlPlane) { plane = p }))
}

// patience is how long a test waits for what must happen; it fails then, and
// passes as soon as it does happen.
const patience = 60 * time.Second

// installation is a place where postbus standalone runs, and runs again.
type installation struct {
	t                *testing.T
	kubeconfig       string
	store            string
	ingress, metrics string
	leases           string   // where its controller's Lease is; none waits for that of another, which was killed
	flags            []string // beside the usual ones
	program          string   // the test's own where it is empty
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	folder := t.TempDir()
	return &installation{
		t: t, kubeconfig: writeKubeconfig(t, folder), store: filepath.Join(folder, "postbus.db"),
		ingress: freeAddress(t), metrics: freeAddress(t),
		leases: plane.Namespace(t),
	}
}

func writeKubeconfig(t *testing.T, folder string) string {
	t.Helper()
	return writeKubeconfigOf(t, folder, &clientcmdapi.AuthInfo{
		ClientCertificateData: plane.Config.CertData, ClientKeyData: plane.Config.KeyData, Token: plane.Config.BearerToken,
	})
}

// writeTokenKubeconfig writes a kubeconfig that has a token and nothing else.
func writeTokenKubeconfig(t *testing.T, token string) string {
	t.Helper()
	return writeKubeconfigOf(t, t.TempDir(), &clientcmdapi.AuthInfo{Token: token})
}

func writeKubeconfigOf(t *testing.T, folder string, identity *clientcmdapi.AuthInfo) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: plane.Config.Host, CertificateAuthorityData: plane.Config.CAData}
	config.AuthInfos["test"] = identity
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	path := filepath.Join(folder, "kubeconfig")
	NewWithT(t).Expect(clientcmd.WriteToFile(*config, path)).To(Succeed())
	return path
}

func freeAddress(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(listener.Close()).To(Succeed()) }()
	return listener.Addr().String()
}

// child is a running process of postbus.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	output lockedBuffer
	exited chan struct{}
	err    error // of its end, once exited is closed
}

// asShipped builds postbus without the race detector, for a test that needs its
// speed, and returns the program's path.
func asShipped(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "postbus")
	built, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%s", built)
	return program
}

// start starts postbus with these arguments.
func start(t *testing.T, arguments ...string) *child {
	t.Helper()
	return startProgram(t, os.Args[0], arguments...)
}

func startProgram(t *testing.T, program string, arguments ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.CommandContext(context.WithoutCancel(t.Context()), program, arguments...), exited: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), asPostbus+"=1", "GORACE=atexit_sleep_ms=0") // by default, the race detector takes a second more to end
	c.cmd.Stdout, c.cmd.Stderr = &c.output, &c.output
	NewWithT(t).Expect(c.cmd.Start()).To(Succeed())
	go func() {
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(c.end)
	return c
}

// end ends a process that still runs, in order.
func (c *child) end() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-c.exited:
	case <-time.After(patience):
		c.signal(syscall.SIGKILL)
	}
}

// signal sends a signal and returns when the process has ended.
func (c *child) signal(signal syscall.Signal) {
	_ = c.cmd.Process.Signal(signal) // it may have ended already
	<-c.exited
}

func (i *installation) arguments(more ...string) []string {
	return append([]string{
		"standalone", "--kubeconfig=" + i.kubeconfig, "--store=" + i.store, "--lease-namespace=" + i.leases,
		"--ingress-address=" + i.ingress, "--metrics-address=" + i.metrics, "--allow-plain-http",
		"--allow-http-callbacks", "--allow-callback-networks=127.0.0.0/8", // where receivers of tests are
	}, append(i.flags, more...)...)
}

// start starts postbus standalone and returns when it is ready.
func (i *installation) start() *child {
	i.t.Helper()
	c := startProgram(i.t, cmp.Or(i.program, os.Args[0]), i.arguments()...)
	i.waitUntilReady()
	return c
}

// waitUntilReady waits until ingress takes contacts.
func (i *installation) waitUntilReady() {
	i.t.Helper()
	NewWithT(i.t).Eventually(func() int { return get(i.t, "http://"+i.ingress+"/readyz") }, patience, 50*time.Millisecond).
		Should(Equal(http.StatusOK))
}

// hasSent tells whether the store knows that all of a row has been sent, to the end
// of the log: what a process that is killed before that would send twice.
func (i *installation) hasSent(row string) bool {
	i.t.Helper()
	g := NewWithT(i.t)
	db, err := sql.Open("sqlite", "file:"+i.store+"?mode=ro")
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(db.Close()).To(Succeed()) }()
	var sent int
	g.Expect(db.QueryRowContext(i.t.Context(), `SELECT count(*) FROM deliveries WHERE name = ?
		AND cursor = (SELECT max(position) FROM events) AND json_array_length(open) = 0 AND health ->> '$.lastSuccess' IS NOT NULL`, row).Scan(&sent)).To(Succeed())
	return sent == 1
}

// get returns the status of an answer, 0 when there is none.
func get(t *testing.T, url string) int {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func TestCommands(t *testing.T) {
	for name, row := range map[string]struct {
		arguments []string
		says      string
		succeeds  bool
	}{
		"version":                {[]string{"version"}, programVersion(), true},
		"help":                   {[]string{"--help"}, "Usage: postbus COMMAND", true},
		"help of a command":      {[]string{"ingress", "--help"}, "-allow-plain-http", true},
		"no command":             {nil, "which command?", false},
		"an unknown command":     {[]string{"relay"}, `there is no command "relay"`, false},
		"an unknown flag":        {[]string{"dispatcher", "--allow-plain-http"}, "allow-plain-http", false},
		"an argument too many":   {[]string{"controller", "now"}, `unexpected argument "now"`, false},
		"an unknown log level":   {[]string{"controller", "--log-level=loud"}, "must be info or debug", false},
		"a certificate alone":    {[]string{"ingress", "--tls-cert-file=tls.crt"}, "--tls-cert-file needs --tls-key-file", false},
		"a key alone":            {[]string{"ingress", "--tls-key-file=tls.key"}, "--tls-key-file needs --tls-cert-file", false},
		"a proxy's address":      {[]string{"ingress", "--trusted-proxies=10.0.0.1"}, `"10.0.0.1" is no CIDR such as 10.0.0.0/8 or fd00::/8`, false},
		"a CIDR too many":        {[]string{"ingress", "--trusted-proxies=10.0.0.0/8,"}, `"" is no CIDR`, false},
		"a CIDR beyond a mask":   {[]string{"ingress", "--trusted-proxies=10.1.0.0/8"}, `"10.1.0.0/8" has bits behind its mask, the network is 10.0.0.0/8`, false},
		"a CIDR in disguise":     {[]string{"ingress", "--trusted-proxies=::ffff:10.0.0.0/104"}, "write it as IPv4", false},
		"too short a retention":  {[]string{"controller", "--retention=143h59m"}, "--retention is 143h59m0s, it must be at least 144h0m0s", false},
		"a retention of ingress": {[]string{"ingress", "--retention=240h"}, "flag provided but not defined: -retention", false},
		"no connections":         {[]string{"standalone", "--max-connections=0"}, "--max-connections is 0, it must be at least 1", false},
		"no requests":            {[]string{"ingress", "--max-requests=-1"}, "--max-requests is -1, it must be at least 1", false},
		"no quantity":            {[]string{"ingress", "--max-log-bytes-per-namespace-per-day=500 MB"}, `invalid value "500 MB" for flag -max-log-bytes-per-namespace-per-day: invalid quantity "500 MB" (example: 500Mi)`, false},
		"less than nothing":      {[]string{"ingress", "--max-log-bytes-per-namespace-per-day=-1"}, `invalid value "-1" for flag -max-log-bytes-per-namespace-per-day: invalid quantity "-1" (example: 500Mi)`, false},
		"no calls":               {[]string{"dispatcher", "--max-calls=0"}, "--max-calls is 0, it must be at least 1", false},
		"bytes in words":         {[]string{"dispatcher", "--max-body-bytes=much"}, "it must be a number of bytes, such as 134217728 or 128Mi", false},
		"few bytes of each":      {[]string{"dispatcher", "--max-subscription-body-bytes=8388607"}, "--max-subscription-body-bytes is 8388607, it must be at least 8388608 (8Mi), which the largest body takes", false},
		"few bytes for all":      {[]string{"standalone", "--max-body-bytes=31Mi"}, "--max-body-bytes is 32505856, it must be at least twice --max-subscription-body-bytes (16777216)", false},
		"few bytes that wait":    {[]string{"dispatcher", "--max-pending-bytes=1Mi"}, "--max-pending-bytes is 1048576, it must be at least 8388608 (8Mi)", false},
		"bytes of ingress":       {[]string{"ingress", "--max-body-bytes=1Gi"}, "flag provided but not defined: -max-body-bytes", false},
		"a public URL of a file": {[]string{"ingress", "--public-url=file:///tmp"}, "it must be an http or https URL with a host", false},
		"a public URL that asks": {[]string{"dispatcher", "--public-url=https://lists.example.com/?a=b"}, "it must have nothing but scheme, host, port and path", false},
		"a mail server alone":    {[]string{"dispatcher", "--smtp-server=smtp://mail.example.com"}, "--smtp-server needs --mail-from", false},
		"a mail server without links": {
			[]string{"dispatcher", "--smtp-server=smtp://mail.example.com", "--mail-from=news@example.com"}, "--smtp-server needs --public-url", false,
		},
		"a mail server of the web": {
			[]string{"standalone", "--smtp-server=https://mail.example.com", "--mail-from=news@example.com", "--public-url=http://localhost:8080"},
			"--smtp-server can't be used: it must begin with smtp:// (STARTTLS), smtps:// (TLS) or smtp+plain:// (no TLS)", false,
		},
		"a sender without a domain":    {[]string{"controller", "--allowed-senders=news"}, `invalid sender "news"`, false},
		"a domain without a dot":       {[]string{"dispatcher", "--notice-domains=example"}, `invalid domain "example"`, false},
		"a namespace that can't be":    {[]string{"dispatcher", "--notice-domains=Shop/example.com"}, `"Shop/example.com" does not begin with a valid namespace`, false},
		"credentials without a server": {[]string{"dispatcher", "--smtp-credentials=/etc/smtp"}, "--smtp-credentials needs --smtp-server", false},
		"a sender that is none":        {[]string{"dispatcher", "--mail-from=news"}, `--mail-from is "news", it must be an address`, false},
		"a network that is none":       {[]string{"controller", "--allow-callback-networks=10.0.0.1"}, `"10.0.0.1" is no CIDR such as 10.0.0.0/8 or fd00::/8`, false},
		"a host that is an address":    {[]string{"dispatcher", "--allow-callback-hosts=crm.example.com,10.0.0.1"}, `"10.0.0.1" is an address, allow it by --allow-callback-networks`, false},
		"every host":                   {[]string{"standalone", "--allow-callback-hosts=*"}, `"*" is no host such as crm.example.com or *.svc`, false},
		"a network of no namespace":    {[]string{"controller", "--allow-callback-networks=Marketing/10.0.0.0/8"}, `"Marketing/10.0.0.0/8" does not begin with a valid namespace (example: marketing/crm.marketing.svc)`, false},
		"a namespace without a host":   {[]string{"dispatcher", "--allow-callback-hosts=marketing/"}, `"" is no host such as crm.example.com or *.svc`, false},
		"callbacks of ingress":         {[]string{"ingress", "--allow-http-callbacks"}, "not defined: -allow-http-callbacks", false},
		"a proxy without a port":       {[]string{"dispatcher", "--egress-proxy=http://proxy.example.com"}, "--egress-proxy must be an http URL with host and port", false},
		"a proxy by HTTPS":             {[]string{"dispatcher", "--egress-proxy=https://proxy.example.com:3128"}, "--egress-proxy must be an http URL with host and port", false},
		"a proxy with a password":      {[]string{"dispatcher", "--egress-proxy=http://a:b@proxy.example.com:3128"}, "--egress-proxy must have nothing but scheme, host and port", false},
		"a proxy with a path":          {[]string{"dispatcher", "--egress-proxy=http://proxy.example.com:3128/a"}, "--egress-proxy must have nothing but scheme, host and port", false},
		"two stores":                   {[]string{"ingress", "--store=postbus.db", "--store-dsn-file=/etc/postbus/store/dsn"}, "--store and --store-dsn-file are two stores, name one", false},
		"a namespace that is none":     {[]string{"ingress", "--namespaces=marketing,Sales"}, `invalid namespace "Sales" (example: marketing,sales)`, false},
		"an empty namespace":           {[]string{"controller", "--namespaces="}, `invalid namespace ""`, false},
		"no such kubeconfig":           {[]string{"controller", "--kubeconfig=/nowhere/kubeconfig"}, "/nowhere/kubeconfig", false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			c := start(t, row.arguments...)
			g.Eventually(c.exited, patience).Should(BeClosed())
			g.Expect(c.err == nil).To(Equal(row.succeeds), c.output.String())
			g.Expect(c.output.String()).To(ContainSubstring(row.says))
		})
	}
}

// What can't work stops the start, with one line that says what to look at.
func TestStartRefuses(t *testing.T) {
	occupy := func(t *testing.T, address *string) {
		taken := httptest.NewServer(nil)
		t.Cleanup(taken.Close)
		*address = taken.Listener.Addr().String()
	}
	for name, row := range map[string]struct {
		spoil func(t *testing.T, i *installation)
		says  func(i *installation) string
	}{
		"the port of ingress is taken": {
			func(t *testing.T, i *installation) { occupy(t, &i.ingress) }, func(i *installation) string { return i.ingress },
		},
		"the port of metrics is taken": {
			func(t *testing.T, i *installation) { occupy(t, &i.metrics) }, func(i *installation) string { return i.metrics },
		},
		"the certificate is not there": {
			func(_ *testing.T, i *installation) {
				i.flags = []string{"--tls-cert-file=/nowhere/tls.crt", "--tls-key-file=/nowhere/tls.key"}
			},
			func(*installation) string {
				return "read the certificate /nowhere/tls.crt and its key /nowhere/tls.key: open /nowhere/tls.crt: no such file or directory"
			},
		},
		"the store is in use": {
			func(t *testing.T, i *installation) {
				opened, err := sqlite.Open(t.Context(), i.store)
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
				t.Cleanup(func() { NewWithT(t).Expect(opened.Close()).To(Succeed()) })
			}, func(i *installation) string { return i.store + ": store is in use by another process" },
		},
		"the store is no store": {
			func(t *testing.T, i *installation) {
				NewWithT(t).Expect(os.WriteFile(i.store, []byte(strings.Repeat("not a database\n", 1000)), 0o600)).To(Succeed())
			}, func(i *installation) string { return i.store + ": store is damaged" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			i := newInstallation(t)
			row.spoil(t, i)
			c := start(t, i.arguments()...)
			g.Eventually(c.exited, patience).Should(BeClosed())
			g.Expect(c.err).To(HaveOccurred())
			lines := strings.Split(strings.TrimSpace(c.output.String()), "\n")
			last := lines[len(lines)-1]
			g.Expect(last).To(And(HavePrefix("postbus: "), ContainSubstring(row.says(i))))
		})
	}
}

func TestStopsInOrder(t *testing.T) {
	g := NewWithT(t)
	i := newInstallation(t)
	c := i.start()
	g.Expect(get(t, "http://"+i.metrics+"/readyz")).To(Equal(http.StatusOK))
	g.Expect(get(t, "http://"+i.metrics+"/metrics")).To(Equal(http.StatusOK))
	c.signal(syscall.SIGTERM)
	g.Expect(c.err).NotTo(HaveOccurred(), c.output.String())
	reopened, err := sqlite.Open(t.Context(), i.store)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(reopened.Close()).To(Succeed())
}

func TestVersionNamesItsCommit(t *testing.T) {
	g := NewWithT(t)
	commit = "0123abc"
	defer func() { commit = "" }()
	var out bytes.Buffer
	g.Expect(run(t.Context(), []string{"version"}, &out)).To(Succeed())
	g.Expect(out.String()).To(Equal(programVersion() + " (commit 0123abc)\n"))
}

func TestUseProcessors(t *testing.T) {
	g := NewWithT(t)
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	t.Setenv("GOMAXPROCS", "1")
	useProcessors()
	g.Expect(runtime.GOMAXPROCS(0)).To(Equal(1), "as somebody said")
	t.Setenv("GOMAXPROCS", "")
	useProcessors()
	g.Expect(runtime.GOMAXPROCS(0)).To(Equal(2))
	runtime.GOMAXPROCS(3)
	useProcessors()
	g.Expect(runtime.GOMAXPROCS(0)).To(Equal(3))
}
