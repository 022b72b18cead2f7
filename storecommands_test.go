package main

import (
	"bytes"
	"context"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/sqlite"
	"postbus.dev/postbus/internal/testkit"
)

// aLink returns a link that works for an hour.
func aLink() link.Link {
	return link.Link{
		Purpose: link.Unsubscribe, List: contact.ListKey{Namespace: "marketing", Name: "newsletter"}, Contact: 1,
		Expires: time.Now().Add(time.Hour),
	}
}

// say runs a command and returns what it prints.
func say(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), arguments, &out)
	return out.String(), err
}

// The key of a store in SQLite is replaced while a process works with it.
func TestRotateLinkKeyOfAStoreInUse(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "postbus.db")
	opened, err := sqlite.Open(t.Context(), file)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(opened.Close()).To(Succeed()) }()
	keys := testkit.LinkKeys(t, opened)
	before := keys.Token(aLink())
	g.Expect(say(t, "rotate-link-key", "--store="+file)).To(MatchRegexp(
		`^made the link key [0-9a-f]{6}, which signs in 30s; links of older keys work for 8760h0m0s more\n$`))
	g.Expect(keys.Open(before, link.Unsubscribe, time.Now())).Error().NotTo(HaveOccurred())
	g.Expect(say(t, "rotate-link-key", "--store="+file, "--overlap=0")).To(MatchRegexp(
		`^made the link key [0-9a-f]{6}, which signs now; links of older keys are revoked, in each process within 5s\n$`))
	g.Eventually(func() error {
		_, err := keys.Open(before, link.Unsubscribe, time.Now())
		return err
	}, patience).Should(MatchError(link.ErrInvalid))
	g.Expect(keys.Open(keys.Token(aLink()), link.Unsubscribe, time.Now())).Error().NotTo(HaveOccurred())
}

func TestStoreCommandsRefuse(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.db")
	for name, row := range map[string]struct {
		arguments []string
		says      string
	}{
		"a migration without a database":     {[]string{"migrate"}, "--store-dsn-file is missing"},
		"a migration with an argument":       {[]string{"migrate", "now"}, `unexpected argument "now"`},
		"grants to nobody":                   {[]string{"migrate", "--print-grants"}, "--print-grants needs --controller-role"},
		"a rotation with an argument":        {[]string{"rotate-link-key", "now"}, `unexpected argument "now"`},
		"a rotation of the future":           {[]string{"rotate-link-key", "--overlap=-1s"}, "--overlap is -1s, it must be 0 or more"},
		"a rotation of a store that is none": {[]string{"rotate-link-key", "--store=" + missing}, "no such file"},
		"a rotation of two stores":           {[]string{"rotate-link-key", "--store=a", "--store-dsn-file=b"}, "name one"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := say(t, row.arguments...)
			g.Expect(err).To(MatchError(ContainSubstring(row.says)))
		})
	}
	NewWithT(t).Expect(missing).NotTo(BeAnExistingFile())
}

// Only standalone migrates by itself; the other processes wait for postbus migrate.
func TestWhoMigrates(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewPostgreSQL(t)
	file := filepath.Join(t.TempDir(), "dsn")
	g.Expect(os.WriteFile(file, []byte(server.Database(t)), 0o600)).To(Succeed())
	settings := storeSettings{dsnFile: file}
	for _, command := range []string{"controller", "ingress", "dispatcher"} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err := settings.open(ctx, command)
		cancel()
		g.Expect(err).To(MatchError(context.DeadlineExceeded), "%s waits", command)
	}
	_, err := settings.rotateLinkKey(t.Context(), time.Hour)
	g.Expect(err).To(MatchError(store.ErrNotMigrated))

	opened, err := settings.open(t.Context(), "standalone")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(opened.Close()).To(Succeed())
	for _, command := range []string{"controller", "ingress", "dispatcher", "standalone"} {
		opened, err := settings.open(t.Context(), command)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(opened.Close()).To(Succeed())
	}
	g.Expect(say(t, "migrate", "--store-dsn-file="+file)).To(Equal("the schema postbus has version 1 (before: 1)\n"))
	g.Expect(say(t, "rotate-link-key", "--store-dsn-file="+file, "--overlap=720h")).To(ContainSubstring("work for 720h0m0s more"))
	g.Expect(say(t, "migrate", "--print-grants", "--ingress-role=forms")).To(And(
		ContainSubstring("GRANT SELECT ON \"postbus\".link_keys TO \"forms\";\n"), Not(ContainSubstring("make_partitions"))))
}

// The database of the trial has the roles that its connection strings name.
func TestTrialHasItsRoles(t *testing.T) {
	g := NewWithT(t)
	server := testkit.NewPostgreSQL(t)
	dsn := server.Database(t)
	owner := filepath.Join(t.TempDir(), "owner")
	g.Expect(os.WriteFile(owner, []byte(dsn), 0o600)).To(Succeed())
	strings := map[string]string{}
	for _, object := range testkit.Kustomize(t, filepath.Join("hack", "e2e", "trial")) {
		switch object.GetKind() + " " + object.GetName() {
		case "ConfigMap postbus-trial-postgresql":
			server.Execute(t, object.Object["data"].(map[string]any)["roles.sql"].(string))
		case "Secret postbus-store-controller", "Secret postbus-store-ingress", "Secret postbus-store-dispatcher":
			strings[object.GetName()] = object.Object["stringData"].(map[string]any)["dsn"].(string)
		}
	}
	g.Expect(say(t, "migrate", "--store-dsn-file="+owner, "--controller-role=postbus_controller", "--ingress-role=postbus_ingress",
		"--dispatcher-role=postbus_dispatcher")).To(ContainSubstring("granted the role postbus_dispatcher"))
	g.Expect(strings).To(HaveLen(3))
	here, err := url.Parse(dsn)
	g.Expect(err).NotTo(HaveOccurred())
	for name, text := range strings {
		there, err := url.Parse(text)
		g.Expect(err).NotTo(HaveOccurred())
		there.Host, there.Path = here.Host, here.Path
		file := filepath.Join(t.TempDir(), name)
		g.Expect(os.WriteFile(file, []byte(there.String()), 0o600)).To(Succeed())
		opened, err := (&storeSettings{dsnFile: file}).open(t.Context(), "ingress")
		g.Expect(err).NotTo(HaveOccurred(), name)
		g.Expect(opened.Close()).To(Succeed())
	}
}
