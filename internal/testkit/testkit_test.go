package testkit_test

import (
	"net/http"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/kube"
	"postbus.dev/postbus/internal/testkit"
)

var plane *testkit.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(testkit.Run(m, func(p *testkit.ControlPlane) { plane = p }))
}

func TestControlPlaneServesOurKinds(t *testing.T) {
	g := NewWithT(t)
	g.Expect(kube.CheckVersion(plane.Config)).To(Succeed())

	namespace := plane.Namespace(t)
	for _, object := range []client.Object{
		testkit.List(namespace, "newsletter"),
		testkit.ApiKey(namespace, "website-form", "newsletter"),
		testkit.Subscription(namespace, "crm", "https://crm.example.com/hooks"),
	} {
		g.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
	}
	lists := &v1alpha1.ContactListList{}
	g.Expect(plane.Client.List(t.Context(), lists, client.InNamespace(namespace))).To(Succeed())
	g.Expect(lists.Items).To(HaveLen(1))
}

func TestMissingProgramsNameTheTarget(t *testing.T) {
	g := NewWithT(t)
	t.Setenv("KUBEBUILDER_ASSETS", t.TempDir())
	_, err := testkit.StartControlPlane()
	g.Expect(err).To(MatchError(testkit.ErrNoControlPlane))
	g.Expect(err).To(MatchError(ContainSubstring("make controlplane")))
}

func TestReceiverRecordsAndAnswers(t *testing.T) {
	g := NewWithT(t)
	receiver := testkit.NewReceiver(t)
	receiver.Answer(http.StatusTeapot)

	response, err := http.Post(receiver.URL()+"/hooks?a=%3a", "text/plain", strings.NewReader("hello"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	g.Expect(response.StatusCode).To(Equal(http.StatusTeapot))

	g.Expect(receiver.Count()).To(Equal(1))
	call := receiver.Calls()[0]
	g.Expect(call.Method).To(Equal(http.MethodPost))
	g.Expect(call.Path).To(Equal("/hooks"))
	g.Expect(call.Query).To(Equal("a=%3a"))
	g.Expect(call.Header.Get("Content-Type")).To(Equal("text/plain"))
	g.Expect(string(call.Body)).To(Equal("hello"))

	receiver.Close()
	_, err = http.Get(receiver.URL())
	g.Expect(err).To(HaveOccurred())
}
