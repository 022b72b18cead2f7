package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/testkit"
)

// cluster is an installation of many processes over one PostgreSQL server.
type cluster struct {
	*installation
	dsnFiles map[string]string
	// ingresses are the addresses of the two.
	ingresses []string
	processes map[string]*child
}

// startCluster starts two processes of each component.
func startCluster(t *testing.T, server *testkit.PostgreSQL) *cluster {
	t.Helper()
	c := &cluster{installation: newInstallation(t), dsnFiles: map[string]string{}, processes: map[string]*child{}}
	c.migrate(server)
	c.ingresses = []string{c.ingress, freeAddress(t)}
	for n := range 2 {
		for _, component := range []string{"controller", "ingress", "dispatcher"} {
			c.startOne(component, n)
		}
	}
	c.waitUntilReady()
	return c
}

// migrate makes the tables as their owner, and a role for each component, as docs/operations.md
// says.
func (c *cluster) migrate(server *testkit.PostgreSQL) {
	c.t.Helper()
	g := NewWithT(c.t)
	page, err := os.ReadFile(filepath.Join("docs", "operations.md"))
	g.Expect(err).NotTo(HaveOccurred())
	_, block, _ := strings.Cut(string(page), "```sql\n")
	block, _, found := strings.Cut(block, "\n```")
	g.Expect(found).To(BeTrue())
	// The superuser of the test has the name of the owner.
	block = strings.NewReplacer("ROLE postbus ", "ROLE postbus_owner ", "OWNER postbus", "OWNER postbus_owner").Replace(block)
	for statement := range strings.SplitSeq(block, "\n") {
		server.Execute(c.t, statement)
	}
	folder := c.t.TempDir()
	arguments := []string{"migrate"}
	for n, component := range []string{"owner", "controller", "ingress", "dispatcher"} {
		parsed, err := url.Parse(server.DSN("postbus"))
		g.Expect(err).NotTo(HaveOccurred())
		parsed.User = url.UserPassword("postbus_"+component, fmt.Sprintf("CHANGE-%d", n+1))
		c.dsnFiles[component] = filepath.Join(folder, component)
		g.Expect(os.WriteFile(c.dsnFiles[component], []byte(parsed.String()), 0o600)).To(Succeed())
		if component != "owner" {
			arguments = append(arguments, "--"+component+"-role=postbus_"+component)
		}
	}
	migration := start(c.t, append(arguments, "--store-dsn-file="+c.dsnFiles["owner"])...)
	g.Eventually(migration.exited, patience).Should(BeClosed())
	g.Expect(migration.err).NotTo(HaveOccurred(), migration.output.String())
	g.Expect(migration.output.String()).To(ContainSubstring("granted the role postbus_ingress the rights of ingress"))
	// The controller makes the last partition again.
	conn := c.connect(server)
	_, err = conn.Exec(c.t.Context(), "DROP TABLE "+lastPartition())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(conn.Close(c.t.Context())).To(Succeed())
}

// lastPartition is the name of the partition that is made last, a week ahead.
func lastPartition() string {
	return "postbus.events_" + time.Now().UTC().AddDate(0, 0, 7).Format("20060102")
}

// connect connects to the cluster's database as the superuser.
func (c *cluster) connect(server *testkit.PostgreSQL) *pgx.Conn {
	c.t.Helper()
	conn, err := pgx.Connect(c.t.Context(), server.DSN("postbus"))
	NewWithT(c.t).Expect(err).NotTo(HaveOccurred())
	return conn
}

// startOne starts a process, in the place of one that was killed.
func (c *cluster) startOne(component string, n int) {
	c.t.Helper()
	arguments := []string{
		component, "--kubeconfig=" + c.kubeconfig, "--store-dsn-file=" + c.dsnFiles[component], "--metrics-address=" + freeAddress(c.t),
	}
	callbacks := []string{"--allow-http-callbacks", "--allow-callback-networks=127.0.0.0/8"}
	switch component {
	case "controller":
		arguments = append(arguments, append(callbacks, "--lease-namespace="+c.leases)...)
	case "ingress":
		arguments = append(arguments, "--ingress-address="+c.ingresses[n], "--allow-plain-http")
	case "dispatcher":
		arguments = append(arguments, callbacks...)
	}
	c.processes[fmt.Sprint(component, n)] = start(c.t, arguments...)
}

// TestClusterLosesNothing posts contacts while processes and the database die.
func TestClusterLosesNothing(t *testing.T) {
	g := NewWithT(t)
	const contacts, callers = 3000, 8
	server := testkit.NewPostgreSQL(t)
	receiver := testkit.NewReceiver(t)
	objects := declare(t, receiver.URL())
	c := startCluster(t, server)
	objects.waitUntilReady(t, c.installation)

	var done atomic.Int64
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			at := caller % 2
			for n := caller; n < contacts; n += callers {
				// As a form would behind a Service: until one of them accepts it.
				for ; !post(t, c.ingresses[at], objects.key, fmt.Sprintf("ada.%d@example.com", n)); at = 1 - at {
					select {
					case <-time.After(20 * time.Millisecond):
					case <-t.Context().Done():
						return
					}
				}
				done.Add(1)
			}
		})
	}
	faults := []func(){
		func() { c.processes["dispatcher0"].signal(syscall.SIGKILL); c.startOne("dispatcher", 0) },
		func() { c.processes["ingress0"].signal(syscall.SIGKILL); c.startOne("ingress", 0) },
		func() { g.Expect(server.Kill()).To(Succeed()); g.Expect(server.Start()).To(Succeed()) },
		func() { c.processes["dispatcher1"].signal(syscall.SIGTERM); c.startOne("dispatcher", 1) },
		func() { // it may hold the log's lock, and is thrown out then
			stopped, before := c.processes["ingress0"].cmd.Process, done.Load()
			g.Expect(stopped.Signal(syscall.SIGSTOP)).To(Succeed())
			g.Eventually(done.Load, patience).Should(BeNumerically(">", before+contacts/20), "the other one goes on")
			g.Expect(stopped.Signal(syscall.SIGCONT)).To(Succeed())
		},
	}
	for n, fault := range faults {
		g.Eventually(done.Load, patience).Should(BeNumerically(">", (n+1)*contacts/(len(faults)+1)))
		fault()
	}
	all.Wait()

	calls := &callBook{}
	g.Eventually(func() int { return calls.read(t, receiver) }, 2*patience, 100*time.Millisecond).Should(Equal(contacts))
	g.Expect(calls.conflicts).To(BeEmpty(), "a duplicate repeats its webhook-id")
	t.Logf("%d contacts, %d calls, %d of them repeated", contacts, calls.count, calls.count-len(calls.ids))
	conn := c.connect(server)
	var made bool
	g.Expect(conn.QueryRow(t.Context(), "SELECT to_regclass('"+lastPartition()+"') IS NOT NULL").Scan(&made)).To(Succeed())
	g.Expect(made).To(BeTrue(), "the controller makes partitions")
	g.Expect(conn.Close(t.Context())).To(Succeed())
	for _, process := range c.processes {
		process.signal(syscall.SIGTERM)
		g.Expect(process.err).NotTo(HaveOccurred(), process.output.String())
	}
}
