package main

import (
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"postbus.dev/postbus/hack/devenv/receiver"
)

func TestSettings(t *testing.T) {
	g := NewWithT(t)
	s, err := parse("run", []string{"--dir=else", "--ingress-address=:8443"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.kubeconfig).To(Equal(filepath.Join("else", "kubeconfig")))
	g.Expect(s.keyFile).To(Equal(filepath.Join("else", "key")))
	g.Expect(dialable(s.ingress)).To(Equal("127.0.0.1:8443"))

	_, err = parse("run", []string{"--metrics-address=8081"})
	g.Expect(err).To(MatchError(HavePrefix("METRICS_ADDRESS must be host:port")))
	_, err = parse("run", []string{"extra"})
	g.Expect(err).To(MatchError(`unknown argument "extra"`))
	_, err = parse("run", []string{"--help"})
	g.Expect(err).To(MatchError(flag.ErrHelp))
}

func TestUnknownSubcommandIsNamed(t *testing.T) {
	g := NewWithT(t)
	g.Expect(command(t.Context(), []string{"walk"})).To(MatchError(ContainSubstring(`"walk"`)))
	g.Expect(command(t.Context(), nil)).To(MatchError("say run, demo or story"))
}

func TestDialable(t *testing.T) {
	for address, want := range map[string]string{
		"0.0.0.0:80": "127.0.0.1:80", "[::]:80": "127.0.0.1:80", ":80": "127.0.0.1:80",
		"127.0.0.1:80": "127.0.0.1:80", "localhost:80": "localhost:80", "[::1]:80": "[::1]:80",
	} {
		NewWithT(t).Expect(dialable(address)).To(Equal(want), address)
	}
}

func TestTakenAddressIsNamed(t *testing.T) {
	g := NewWithT(t)
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	defer taken.Close()
	s := settings{ingress: "127.0.0.1:0", metrics: taken.Addr().String(), receiver: "127.0.0.1:0", mail: "127.0.0.1:0"}
	_, err = newEnvironment(s, func(string) {}, func(string) {}, func(string) {}).claimAddresses(t.Context())
	g.Expect(err).To(MatchError(And(
		ContainSubstring(s.metrics+" is in use"), ContainSubstring("METRICS_ADDRESS"))))
}

func TestRetarget(t *testing.T) {
	for name, c := range map[string]struct{ from, want string }{
		"the samples' receiver is replaced, the path stays": {"http://127.0.0.1:9000/crm?a=1", "http://127.0.0.1:9999/crm?a=1"},
		"another host stays": {"https://crm.example.com/hook", "https://crm.example.com/hook"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			sample := &unstructured.Unstructured{Object: map[string]any{
				"spec": map[string]any{"callback": map[string]any{"url": c.from}},
			}}
			g.Expect(retarget(sample, "127.0.0.1:9999")).To(Succeed())
			got, _, err := unstructured.NestedString(sample.Object, "spec", "callback", "url")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got).To(Equal(c.want))
		})
	}
	g := NewWithT(t)
	g.Expect(retarget(&unstructured.Unstructured{Object: map[string]any{}}, "x")).To(Succeed())
}

func TestLockKeepsASecondOneOut(t *testing.T) {
	g := NewWithT(t)
	dir := filepath.Join(t.TempDir(), "postbus")
	unlock, err := lock(dir)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = lock(dir)
	g.Expect(err).To(MatchError(And(ContainSubstring(dir), ContainSubstring("POSTBUS_DIR"))))
	unlock()
	unlock, err = lock(dir)
	g.Expect(err).NotTo(HaveOccurred())
	unlock()
}

func TestReceiverMayBeCalled(t *testing.T) {
	for address, flag := range map[string]string{
		"127.0.0.1:9000": "--allow-callback-networks=127.0.0.1/32", "[::1]:9000": "--allow-callback-networks=::1/128",
		"localhost:9000": "--allow-callback-hosts=localhost",
	} {
		NewWithT(t).Expect(allowReceiver(address)).To(Equal(flag))
	}
}

func TestSeparateSettingsShareNothing(t *testing.T) {
	g := NewWithT(t)
	given := settings{dir: t.TempDir(), ingress: "127.0.0.1:8080", receiver: "127.0.0.1:9000", mail: "127.0.0.1:2525", metrics: "127.0.0.1:8081"}
	s, err := separate(t.Context(), given)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(filepath.Dir(s.dir)).To(Equal(given.dir))
	g.Expect(filepath.Dir(s.keyFile)).To(Equal(s.dir))
	for i, a := range s.addresses() {
		g.Expect(a.address).NotTo(Equal(given.addresses()[i].address))
	}
	g.Expect(os.Stat(s.dir)).To(HaveField("IsDir()", true))
}

func call(id, body string, status int) receiver.Call {
	return receiver.Call{Headers: map[string]string{"webhook-id": id}, Body: body, Status: status}
}

func TestAccount(t *testing.T) {
	created := `{"type":"contact.created","data":{"email":"a@example.com"}}`
	subscribed := `{"type":"contact.subscribed","data":{"email":"a@example.com"}}`
	for name, c := range map[string]struct {
		calls   []receiver.Call
		arrived int
		wrong   string
	}{
		"a retry under the same id is one event":   {[]receiver.Call{call("1", created, 500), call("1", created, 200)}, 1, ""},
		"two events of one contact are two":        {[]receiver.Call{call("1", created, 200), call("2", subscribed, 200)}, 2, ""},
		"what only failed has not arrived":         {[]receiver.Call{call("1", created, 500)}, 0, ""},
		"a retry under another id is wrong":        {[]receiver.Call{call("1", created, 500), call("2", created, 200)}, 0, "two ids: 1 and 2"},
		"a body that names no contact is an error": {[]receiver.Call{call("1", "{}", 200)}, 0, "read the call 1"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			arrived, err := account(c.calls)
			if c.wrong != "" {
				g.Expect(err).To(MatchError(ContainSubstring(c.wrong)))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(arrived).To(HaveLen(c.arrived))
		})
	}
}

func TestEventually(t *testing.T) {
	g := NewWithT(t)
	wrong := errors.New("still wrong")
	asked := 0
	g.Expect(eventually(t.Context(), time.Minute, func(context.Context) error {
		if asked++; asked < 3 {
			return wrong
		}
		return nil
	})).To(Succeed())
	late := eventually(t.Context(), time.Millisecond, func(context.Context) error { return wrong })
	g.Expect(late).To(MatchError(wrong))
	g.Expect(late).To(MatchError(HavePrefix("not within 1ms")))

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	g.Expect(eventually(canceled, time.Minute, func(context.Context) error { return wrong })).To(MatchError(context.Canceled))
}
