package dispatcher

import (
	"context"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/net/dns/dnsmessage"
	"k8s.io/utils/clock"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/guard"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/testkit"
)

// nameServer is a DNS server that gives every name the same answer.
type nameServer struct {
	address string

	mu     sync.Mutex
	answer nameAnswer
	asked  int // for IPv4 addresses
}

// nameAnswer is what a nameServer answers.
type nameAnswer struct {
	code      dnsmessage.RCode
	addresses []netip.Addr
	// silent sends nothing, wrongID an answer to what was not asked.
	silent, wrongID bool
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	connection, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	s := &nameServer{address: connection.LocalAddr().String()}
	var serving sync.WaitGroup
	serving.Go(func() { s.serve(connection) })
	t.Cleanup(func() { _ = connection.Close(); serving.Wait() })
	return s
}

func (s *nameServer) serve(connection net.PacketConn) {
	buffer := make([]byte, 1<<12)
	for {
		n, from, err := connection.ReadFrom(buffer)
		if err != nil {
			return
		}
		var query dnsmessage.Message
		if query.Unpack(buffer[:n]) != nil || len(query.Questions) != 1 {
			continue
		}
		if answer, err := s.reply(query); err == nil && len(answer) > 0 {
			_, _ = connection.WriteTo(answer, from)
		}
	}
}

func (s *nameServer) reply(query dnsmessage.Message) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	question := query.Questions[0]
	if question.Type == dnsmessage.TypeA {
		s.asked++
	}
	if s.answer.silent {
		return nil, nil
	}
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: query.ID, Response: true, Authoritative: true, RCode: s.answer.code},
		Questions: query.Questions,
	}
	if s.answer.wrongID {
		reply.ID++
	}
	if question.Type == dnsmessage.TypeA {
		for _, addr := range s.answer.addresses {
			reply.Answers = append(reply.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class},
				Body:   &dnsmessage.AResource{A: addr.As4()},
			})
		}
	}
	return reply.Pack()
}

// says sets what every name resolves to from now on.
func (s *nameServer) says(addresses ...string) {
	var answer nameAnswer
	for _, address := range addresses {
		answer.addresses = append(answer.addresses, netip.MustParseAddr(address))
	}
	s.answersWith(answer)
}

func (s *nameServer) answersWith(answer nameAnswer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// count returns how often an IPv4 address was asked for.
func (s *nameServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.address)
	}}
}

// callURL calls a URL once.
func callURL(t *testing.T, c *caller, target string) (outcome, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, nil)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	client, err := c.clients.of(t.Context(), &subscription{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return c.send(client, request)
}

func newTestCaller(t *testing.T, options Options) *caller {
	t.Helper()
	options.Clock = clock.RealClock{}
	c := newCaller(&options, &listBook{})
	t.Cleanup(c.close)
	return c
}

// named returns the URL of a receiver under a name that a nameServer resolves.
func named(t *testing.T, receiver *testkit.Receiver) string {
	t.Helper()
	parsed, err := url.Parse(receiver.URL())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return "http://crm.example.com:" + parsed.Port() + "/hook"
}

var forbiddenCall = outcome{verdict: failed, reason: v1alpha1.FailureAddressForbidden}

// What a policy makes of a name, by what it resolves to at the moment of the call.
func TestGuardOfDialledAddresses(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	for name, row := range map[string]struct {
		policy   guard.Policy
		resolves []string
		want     outcome
	}{
		"a name of a loopback address":      {guard.Policy{AllowHTTP: true}, []string{"127.0.0.1"}, forbiddenCall},
		"a name of several, all forbidden":  {guard.Policy{AllowHTTP: true}, []string{"127.0.0.1", "10.0.0.1", "169.254.169.254"}, forbiddenCall},
		"a name in an allowed network":      {guard.Policy{AllowHTTP: true, AllowedNetworks: loopback}, []string{"127.0.0.1"}, outcome{verdict: delivered, status: 200}},
		"a name of which one is allowed":    {guard.Policy{AllowHTTP: true, AllowedNetworks: loopback}, []string{"10.0.0.1", "127.0.0.1"}, outcome{verdict: delivered, status: 200}},
		"a name beside an allowed network":  {guard.Policy{AllowHTTP: true, AllowedNetworks: loopback}, []string{"127.0.0.2"}, forbiddenCall},
		"an allowed name":                   {guard.Policy{AllowHTTP: true, AllowedHosts: []string{"crm.example.com"}}, []string{"127.0.0.1"}, outcome{verdict: delivered, status: 200}},
		"an allowed domain":                 {guard.Policy{AllowHTTP: true, AllowedHosts: []string{"*.example.com"}}, []string{"127.0.0.1"}, outcome{verdict: delivered, status: 200}},
		"another name that is allowed":      {guard.Policy{AllowHTTP: true, AllowedHosts: []string{"shop.example.com"}}, []string{"127.0.0.1"}, forbiddenCall},
		"an allowed name, but without TLS":  {guard.Policy{AllowedHosts: []string{"crm.example.com"}}, []string{"127.0.0.1"}, forbiddenCall},
		"an allowed network, but no answer": {guard.Policy{AllowHTTP: true, AllowedNetworks: loopback}, nil, outcome{verdict: failed, reason: v1alpha1.FailureDNS}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			names, receiver := newNameServer(t), testkit.NewReceiver(t)
			names.says(row.resolves...)
			c := newTestCaller(t, Options{Guard: guard.Policies{Everywhere: row.policy}, Resolver: names.resolver()})
			o, err := callURL(t, c, named(t, receiver))
			g.Expect(o).To(Equal(row.want), "%v", err)
			g.Expect(receiver.Count() == 1).To(Equal(row.want.verdict == delivered))
		})
	}
}

// The name is fine when it is looked at, and another machine's when it is called
// again. Each connection is checked on what it is made to.
func TestNameThatChangesItsAnswer(t *testing.T) {
	g := NewWithT(t)
	names, receiver := newNameServer(t), testkit.NewReceiver(t)
	policy := guard.Policies{Everywhere: guard.Policy{AllowHTTP: true, AllowedNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}}
	c := newTestCaller(t, Options{Guard: policy, Resolver: names.resolver()})
	names.says("127.0.0.1")
	o, _ := callURL(t, c, named(t, receiver))
	g.Expect(o.verdict).To(Equal(delivered))
	g.Expect(names.count()).To(Equal(1), "nothing is resolved twice, once to be looked at and once to be dialled")

	names.says("169.254.169.254")
	o, _ = callURL(t, c, named(t, receiver))
	g.Expect(o.verdict).To(Equal(delivered), "the connection is the one that was checked")
	g.Expect(names.count()).To(Equal(1))

	c.close()
	o, err := callURL(t, c, named(t, receiver))
	g.Expect(o).To(Equal(forbiddenCall))
	g.Expect(err).To(MatchError(ContainSubstring("points to 169.254.169.254, a metadata service")))
	g.Expect(receiver.Count()).To(Equal(2))
}

// What needs no name server to be refused is refused before anything is dialled.
func TestForbiddenURLsAreNotCalled(t *testing.T) {
	c := newTestCaller(t, Options{})
	for name, target := range map[string]string{
		"HTTP": "http://crm.example.com/", "loopback": "https://127.0.0.1/", "IPv4-mapped": "https://[::ffff:8.8.8.8]/",
		"decimal": "https://2130706433/", "localhost": "https://localhost/", "metadata": "https://169.254.169.254/latest/meta-data/",
	} {
		t.Run(name, func(t *testing.T) {
			o, err := callURL(t, c, target)
			NewWithT(t).Expect(o).To(Equal(forbiddenCall), "%v", err)
		})
	}
}

func TestRedirectLeadsNowhere(t *testing.T) {
	g := NewWithT(t)
	receiver, inside := testkit.NewReceiver(t), testkit.NewReceiver(t)
	receiver.AnswerWith(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inside.URL(), http.StatusTemporaryRedirect)
	})
	o, _ := callURL(t, newTestCaller(t, Options{Guard: toReceivers}), receiver.URL())
	g.Expect(o).To(Equal(outcome{verdict: failed, reason: v1alpha1.FailureRedirect, status: http.StatusTemporaryRedirect}))
	g.Expect(inside.Count()).To(BeZero())
}

// egressProxy is an HTTP proxy that leads every call to one server, and the
// targets that it was asked for.
func egressProxy(t *testing.T, server string) (proxy *url.URL, targets func() []string) {
	t.Helper()
	receiver := testkit.NewReceiver(t)
	var mu sync.Mutex
	var asked []string
	receiver.AnswerWith(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Method+" "+r.Host)
		mu.Unlock()
		if r.Method == http.MethodConnect {
			tunnel(w, r, server)
		}
	})
	parsed, err := url.Parse(receiver.URL())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return parsed, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), asked...)
	}
}

// tunnel connects the caller with a server until one of them ends.
func tunnel(w http.ResponseWriter, r *http.Request, server string) {
	out, err := new(net.Dialer).DialContext(r.Context(), "tcp", server)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer func() { _ = out.Close() }()
	in, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer func() { _ = in.Close() }()
	_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
	go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
	_, _ = io.Copy(in, out)
}

// Through a proxy the target's name is the proxy's to resolve, but what a URL
// says by itself is still refused.
func TestEgressProxy(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	proxy, targets := egressProxy(t, server.Listener.Addr().String())
	c := newTestCaller(t, Options{Guard: guard.Policies{Everywhere: guard.Policy{AllowHTTP: true}}, EgressProxy: proxy, RootCAs: roots})

	for target, want := range map[string]outcome{
		"https://example.com/hook":        {verdict: delivered, status: 200}, // the name in httptest's certificate
		"http://crm.example.com:8080/":    {verdict: delivered, status: 200},
		"https://10.0.0.1/":               forbiddenCall,
		"https://localhost/":              forbiddenCall,
		"http://[::ffff:127.0.0.1]:8080/": forbiddenCall,
	} {
		o, err := callURL(t, c, target)
		g.Expect(o).To(Equal(want), "%s: %v", target, err)
	}
	g.Expect(targets()).To(ConsistOf("CONNECT example.com:443", "POST crm.example.com:8080"))
}

func TestEgressProxyThatRefuses(t *testing.T) {
	g := NewWithT(t)
	proxy := testkit.NewReceiver(t)
	proxy.Answer(http.StatusProxyAuthRequired)
	address, err := url.Parse(proxy.URL())
	g.Expect(err).NotTo(HaveOccurred())
	o, err := callURL(t, newTestCaller(t, Options{EgressProxy: address}), "https://crm.example.com/hook")
	g.Expect(o).To(Equal(because(v1alpha1.FailureNetwork)))
	g.Expect(err).To(MatchError(ContainSubstring("the proxy answers 407")))
}

func TestProxiesOfTheEnvironmentAreNotUsed(t *testing.T) {
	g := NewWithT(t)
	g.Expect(newCallTransport(&Options{}, "", nil).Proxy).To(BeNil())

	proxy, targets := egressProxy(t, "")
	t.Setenv("HTTP_PROXY", proxy.String())
	names, receiver := newNameServer(t), testkit.NewReceiver(t)
	names.says("127.0.0.1")
	o, _ := callURL(t, newTestCaller(t, Options{Guard: toReceivers, Resolver: names.resolver()}), named(t, receiver))
	g.Expect(o.verdict).To(Equal(delivered))
	g.Expect(targets()).To(BeEmpty())
}

// A forbidden address is a failure like others: told, counted and tried again.
func TestForbiddenCallbackIsRetried(t *testing.T) {
	g := NewWithT(t)
	r := newRig(t)
	r.options.Guard = guard.Policies{Everywhere: guard.Policy{AllowHTTP: true}}
	object := r.subscribe("crm", nil)
	r.run()
	r.post("ada@example.com")
	g.Eventually(func() (failure *store.Failure) {
		delivery, err := r.store.LoadDelivery(t.Context(), keyOf(object))
		g.Expect(err).NotTo(HaveOccurred())
		return delivery.Health.LastFailure
	}, patience).Should(And(Not(BeNil()), HaveField("Reason", v1alpha1.FailureAddressForbidden), HaveField("Attempts", BeNumerically(">=", 2))))
	g.Expect(r.receiver.Count()).To(BeZero())
}
