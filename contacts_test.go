package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"postbus.dev/postbus/api/v1alpha1"
	"postbus.dev/postbus/internal/apikey"
	"postbus.dev/postbus/internal/console"
	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/testkit"
)

// operator types commands at an installation.
type operator struct {
	t            *testing.T
	server, key  string
	installation *installation
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	g := NewWithT(t)
	namespace := plane.Namespace(t)
	o := &operator{t: t, key: apikey.Generate(), installation: newInstallation(t)}
	o.server = "http://" + o.installation.ingress
	key := testkit.ApiKey(namespace, "operator", "newsletter")
	key.Spec.Source = contact.SourceConsole
	key.Spec.Scopes = []v1alpha1.ApiKeyScope{
		v1alpha1.ScopeContactsWrite, v1alpha1.ScopeContactsRemove,
		v1alpha1.ScopeContactsImport, v1alpha1.ScopeContactsRead,
	}
	for _, object := range []client.Object{
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "operator"},
			StringData: map[string]string{apikey.SecretKey: o.key},
		},
		testkit.List(namespace, "newsletter"), key,
	} {
		g.Expect(plane.Client.Create(t.Context(), object)).To(Succeed())
	}
	dropFinalizers(t, key)
	o.installation.start()
	g.Eventually(func() error { _, err := o.types("export", "--list=newsletter"); return err }, patience).Should(Succeed())
	return o
}

// types runs postbus contacts in a process of its own.
func (o *operator) types(arguments ...string) (out string, err error) {
	o.t.Helper()
	o.t.Setenv(console.KeyVariable, o.key)
	words := []string{"contacts", arguments[0], "--server=" + o.server}
	c := start(o.t, append(words, arguments[1:]...)...)
	NewWithT(o.t).Eventually(c.exited, patience).Should(BeClosed())
	return c.output.String(), c.err
}

func TestContactsCommand(t *testing.T) {
	g := NewWithT(t)
	o := newOperator(t)
	succeeds := func(arguments ...string) string {
		t.Helper()
		out, err := o.types(arguments...)
		g.Expect(err).NotTo(HaveOccurred(), out)
		return out
	}
	fails := func(says string, arguments ...string) {
		t.Helper()
		out, err := o.types(arguments...)
		g.Expect(err).To(HaveOccurred())
		g.Expect(out).To(And(ContainSubstring("postbus: "), ContainSubstring(says), Not(ContainSubstring(o.key))))
	}

	g.Expect(succeeds("add", "ada+news@example.com", "permission=2", "standard_FIRSTNAME=Ada & Eve")).To(ContainSubstring(`"created":true`))
	g.Expect(succeeds("change", "ada+news@example.com", "standard_FIRSTNAME=Ada")).To(ContainSubstring(`"created":false`))
	g.Expect(succeeds("show", "--list=newsletter", "ada+news@example.com")).To(And(
		ContainSubstring(`"email":"ada+news@example.com"`), ContainSubstring(`"FIRSTNAME":"Ada"`), ContainSubstring(`"revision":2`)))
	g.Expect(succeeds("unsubscribe", "--reason=no_demand", "ada+news@example.com")).To(ContainSubstring(`"removed":true`))
	fails("404 Not Found: no such contact", "show", "--list=newsletter", "ada+news@example.com")

	folder := t.TempDir()
	file := filepath.Join(folder, "contacts.csv")
	g.Expect(os.WriteFile(file, []byte("email,permission\ngrace@example.com,2\nhedy@example.com,9\n"), 0o600)).To(Succeed())
	g.Expect(succeeds("import", file)).To(And(
		ContainSubstring(`{"line":1,"contact":`), ContainSubstring(`{"line":2,"error":`), ContainSubstring(`{"complete":true,"lines":2,"failed":1}`)))
	g.Expect(strings.Count(succeeds("export", "--list=newsletter"), "\n")).To(Equal(1))
	g.Expect(succeeds("delete", "--forget", "grace@example.com")).To(ContainSubstring(`"removed":true`))
	g.Expect(succeeds("export", "--list=newsletter")).To(BeEmpty())
	g.Expect(os.WriteFile(file, []byte("email\n\"grace"), 0o600)).To(Succeed())
	fails("the import was cut off", "import", file)

	fails("--list must name", "export")
	fails(`"FIRSTNAME" is not NAME=VALUE`, "add", "ada@example.com", "FIRSTNAME")
	fails("ends neither in .csv nor in .ndjson", "import", folder)
	fails("contacts.ndjson: no such file", "import", filepath.Join(folder, "contacts.ndjson"))
	fails("another number of arguments than 0", "show", "--list=newsletter")
	fails(`there is no command "remove"`, "remove")
	fails("illegal parameter value: permission", "add", "ada@example.com", "permission=9")
	o.key = "\n"
	out, err := o.types("add", "ada@example.com")
	g.Expect(err).To(HaveOccurred())
	g.Expect(out).To(Equal("postbus: the environment variable " + console.KeyVariable + " must hold the API key\n"))
	o.key = "nonsense"
	fails(fmt.Sprint(http.StatusUnauthorized, " Unauthorized: no such api key"), "add", "ada@example.com")
}
