package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	. "github.com/onsi/gomega"

	"postbus.dev/postbus/internal/contact"
	"postbus.dev/postbus/internal/link"
	"postbus.dev/postbus/internal/store"
	"postbus.dev/postbus/internal/store/storetest"
)

// smallRoles are the roles of the tests. Roles are the server's, so all databases have them.
var smallRoles = Roles{Controller: "small_controller", Ingress: "small_ingress", Dispatcher: "small_dispatcher"}

// makeRoles makes roles that may connect, and nothing else.
func makeRoles(t *testing.T) {
	t.Helper()
	for role := range smallRoles.components() {
		server.Execute(t, fmt.Sprintf(`DO $$ BEGIN
			IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%[1]s') THEN CREATE ROLE %[1]s LOGIN PASSWORD 'small'; END IF;
		END $$`, role))
	}
}

// asRole returns the file of a connection string with another role.
func asRole(t *testing.T, dsn, role string) (file string) {
	t.Helper()
	parsed, err := url.Parse(dsn)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	parsed.User = url.UserPassword(role, "small")
	return writeDSN(t, parsed.String())
}

// routed is one store whose methods are called by the components that call them, each with the
// rights of its own role.
type routed struct {
	store.Store // as the owner, for what no component does
	// components has a store for each.
	components map[string]*Store
	// preferred is who calls what several components call.
	preferred string
}

// by returns the store of the preferred component if it is one of these, and that of the first
// otherwise.
func (r *routed) by(components ...string) *Store {
	for _, component := range components {
		if component == r.preferred {
			return r.components[component]
		}
	}
	return r.components[components[0]]
}

func (r *routed) Change(ctx context.Context, change store.Change) (contact.Decision, error) {
	return r.by("ingress").Change(ctx, change)
}

func (r *routed) ChangeAll(ctx context.Context, changes []store.Change) ([]store.ChangeResult, error) {
	return r.by("ingress").ChangeAll(ctx, changes)
}

func (r *routed) Count(ctx context.Context, list contact.ListKey) (contact.Counts, error) {
	return r.by("controller").Count(ctx, list)
}

func (r *routed) CountAll(ctx context.Context) (map[contact.ListKey]contact.Counts, error) {
	return r.by("controller").CountAll(ctx)
}

func (r *routed) ScrubForgotten(ctx context.Context) (int, error) {
	return r.by("dispatcher").ScrubForgotten(ctx)
}

func (r *routed) FindContact(ctx context.Context, list contact.ListKey, address string) (contact.Contact, error) {
	return r.by("ingress").FindContact(ctx, list, address)
}

func (r *routed) FindContactByID(ctx context.Context, list contact.ListKey, id int64) (contact.Contact, error) {
	return r.by("ingress", "dispatcher").FindContactByID(ctx, list, id)
}

func (r *routed) ListContacts(ctx context.Context, list contact.ListKey, after string, limit int) ([]contact.Contact, string, error) {
	return r.by("ingress", "controller").ListContacts(ctx, list, after, limit)
}

func (r *routed) Head(ctx context.Context) (int64, error) {
	return r.by("ingress", "controller", "dispatcher").Head(ctx)
}

func (r *routed) OldestEvent(ctx context.Context) (time.Time, error) {
	return r.by("ingress", "controller", "dispatcher").OldestEvent(ctx)
}

func (r *routed) Read(ctx context.Context, query store.Query) ([]contact.Event, error) {
	return r.by("dispatcher").Read(ctx, query)
}

func (r *routed) CountEvents(ctx context.Context, query store.Query) (int64, error) {
	return r.by("dispatcher").CountEvents(ctx, query)
}

func (r *routed) PositionBefore(ctx context.Context, at time.Time) (int64, error) {
	return r.by("dispatcher", "controller").PositionBefore(ctx, at)
}

func (r *routed) LastPosition(ctx context.Context, list contact.ListKey, address string, upTo int64) (int64, error) {
	return r.by("dispatcher").LastPosition(ctx, list, address, upTo)
}

func (r *routed) WaitForEvents(ctx context.Context, after int64) error {
	return r.by("dispatcher").WaitForEvents(ctx, after)
}

func (r *routed) Prune(ctx context.Context, before time.Time) (int64, error) {
	return r.by("controller").Prune(ctx, before)
}

func (r *routed) PrepareLog(ctx context.Context) error { return r.by("controller").PrepareLog(ctx) }

// RaiseOnce is the controller's for keys that expire. No component raises the others so.
func (r *routed) RaiseOnce(ctx context.Context, once store.Once, event contact.Event) error {
	if event.Type != contact.EventKeyExpiring {
		return r.Store.RaiseOnce(ctx, once, event)
	}
	return r.by("controller").RaiseOnce(ctx, once, event)
}

func (r *routed) OpenDelivery(ctx context.Context, key store.SubscriptionKey) error {
	return r.by("controller").OpenDelivery(ctx, key)
}

func (r *routed) DropDelivery(ctx context.Context, key store.SubscriptionKey) error {
	return r.by("controller").DropDelivery(ctx, key)
}

func (r *routed) LoadDelivery(ctx context.Context, key store.SubscriptionKey) (store.Delivery, error) {
	return r.by("dispatcher", "ingress", "controller").LoadDelivery(ctx, key)
}

func (r *routed) Checkpoint(ctx context.Context, progress []store.Progress) ([]store.SubscriptionKey, error) {
	return r.by("dispatcher").Checkpoint(ctx, progress)
}

func (r *routed) DeliveriesSince(ctx context.Context, revision int64) ([]store.Delivery, error) {
	return r.by("dispatcher", "controller").DeliveriesSince(ctx, revision)
}

func (r *routed) SetAsideEvents(ctx context.Context, key store.SubscriptionKey, after int64, limit int) ([]int64, error) {
	return r.by("dispatcher").SetAsideEvents(ctx, key, after, limit)
}

func (r *routed) Join(ctx context.Context, dispatcher string, lasting time.Duration) ([]string, error) {
	return r.by("dispatcher").Join(ctx, dispatcher, lasting)
}

func (r *routed) Leave(ctx context.Context, dispatcher string) error {
	return r.by("dispatcher").Leave(ctx, dispatcher)
}

func (r *routed) ClaimDelivery(ctx context.Context, key store.SubscriptionKey, dispatcher string) (store.Delivery, error) {
	return r.by("dispatcher").ClaimDelivery(ctx, key, dispatcher)
}

func (r *routed) ReleaseDelivery(ctx context.Context, key store.SubscriptionKey, dispatcher string) error {
	return r.by("dispatcher").ReleaseDelivery(ctx, key, dispatcher)
}

func (r *routed) WaitForOwners(ctx context.Context, after int64) (int64, error) {
	return r.by("dispatcher").WaitForOwners(ctx, after)
}

func (r *routed) PutRequest(ctx context.Context, request store.Request) error {
	return r.by("controller", "ingress").PutRequest(ctx, request)
}

func (r *routed) LoadRequests(ctx context.Context, key store.SubscriptionKey) ([]store.Request, error) {
	return r.by("dispatcher").LoadRequests(ctx, key)
}

func (r *routed) RequestsSince(ctx context.Context, revision int64) ([]store.Request, error) {
	return r.by("dispatcher").RequestsSince(ctx, revision)
}

func (r *routed) AddAttempts(ctx context.Context, added []store.AttemptLog) error {
	return r.by("dispatcher").AddAttempts(ctx, added)
}

func (r *routed) LoadAttempts(ctx context.Context, key store.SubscriptionKey, limit int) ([]store.Attempt, error) {
	return r.by("controller", "dispatcher").LoadAttempts(ctx, key, limit)
}

func (r *routed) NoteKeyUse(ctx context.Context, uses map[store.KeyName]time.Time) error {
	return r.by("ingress").NoteKeyUse(ctx, uses)
}

func (r *routed) KeyUses(ctx context.Context, since time.Time) (map[store.KeyName]time.Time, error) {
	return r.by("controller").KeyUses(ctx, since)
}

func (r *routed) ForgetKey(ctx context.Context, key store.KeyName) error {
	return r.by("controller").ForgetKey(ctx, key)
}

func (r *routed) SaveTexts(ctx context.Context, list contact.ListKey, texts store.ListTexts) error {
	return r.by("controller").SaveTexts(ctx, list, texts)
}

func (r *routed) LoadTexts(ctx context.Context, list contact.ListKey) (store.ListTexts, error) {
	return r.by("ingress", "controller", "dispatcher").LoadTexts(ctx, list)
}

func (r *routed) LoadNamespace(ctx context.Context, name string) (store.Namespace, error) {
	return r.by("controller", "dispatcher").LoadNamespace(ctx, name)
}

func (r *routed) AdoptNamespace(ctx context.Context, name, from, to string) error {
	return r.by("controller").AdoptNamespace(ctx, name, from, to)
}

func (r *routed) RenewNamespace(ctx context.Context, name, from, to string) error {
	return r.by("controller").RenewNamespace(ctx, name, from, to)
}

func (r *routed) BindObject(ctx context.Context, namespace, namespaceUID, object string) error {
	return r.by("controller").BindObject(ctx, namespace, namespaceUID, object)
}

func (r *routed) ReleaseObject(ctx context.Context, object string) error {
	return r.by("controller").ReleaseObject(ctx, object)
}

func (r *routed) IsBound(ctx context.Context, object string) (bool, error) {
	return r.by("ingress", "dispatcher").IsBound(ctx, object)
}

func (r *routed) RemoveEvents(ctx context.Context, list contact.ListKey, limit int) (int, error) {
	return r.by("controller").RemoveEvents(ctx, list, limit)
}

func (r *routed) LinkKeys(ctx context.Context) (*link.Ring, error) {
	return r.by("ingress", "dispatcher").LinkKeys(ctx)
}

// Close ends those of the components first.
func (r *routed) Close() error {
	var errs []error
	for _, component := range r.components {
		errs = append(errs, component.Close())
	}
	return errors.Join(append(errs, r.Store.Close())...)
}

// newRoutedPlace returns the file of the owner of a database whose components have small roles.
func newRoutedPlace(t *testing.T) (file string) {
	t.Helper()
	makeRoles(t)
	file = newPlace(t)
	prepare(t, file)
	_, err := Migrate(t.Context(), Options{DSNFile: file}, smallRoles)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return file
}

func openRouted(t *testing.T, file, preferred string) *routed {
	t.Helper()
	g := NewWithT(t)
	owner, err := Open(t.Context(), Options{DSNFile: file})
	g.Expect(err).NotTo(HaveOccurred())
	made := &routed{Store: owner, components: map[string]*Store{}, preferred: preferred}
	for role, components := range smallRoles.components() {
		made.components[components[0]], err = Open(t.Context(), Options{DSNFile: asRole(t, readFile(t, file), role)})
		g.Expect(err).NotTo(HaveOccurred())
	}
	return made
}

// Each component does its work with the rights of its role: the whole suite, each method called
// by a component that calls it.
func TestConformanceOfSmallRoles(t *testing.T) {
	for _, preferred := range []string{"ingress", "dispatcher", "controller"} {
		t.Run(preferred, func(t *testing.T) {
			storetest.Run(t, storetest.Engine{
				NewPlace:      newRoutedPlace,
				Open:          func(t *testing.T, file string) store.Store { return openRouted(t, file, preferred) },
				RotateLinkKey: rotateAs(smallRoles.Controller),
			})
		})
	}
}

// The controller removes the contacts of a list that is deleted, and opens and closes the rest.
func TestControllerRemovesContacts(t *testing.T) {
	g := NewWithT(t)
	s := openRouted(t, newRoutedPlace(t), "controller")
	defer func() { g.Expect(s.Close()).To(Succeed()) }()
	_, err := s.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	controller := s.components["controller"]
	page, _, err := controller.ListContacts(t.Context(), list, "", 10)
	g.Expect(err).NotTo(HaveOccurred())
	results, err := controller.ChangeAll(t.Context(), []store.Change{{List: list, ContactID: page[0].ID, Apply: contact.EndWithList}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(results).To(ConsistOf(HaveField("Err", BeNil())))
	g.Expect(controller.CountAll(t.Context())).To(HaveKeyWithValue(list, contact.Counts{}))
}

// denied are what a role must not do, beside what it has no table for.
var denied = map[string][]string{
	"everybody": {
		`DROP TABLE events`, `DROP TABLE contacts`, `TRUNCATE events`, `ALTER TABLE events DISABLE ROW LEVEL SECURITY`,
		`CREATE TABLE mine (n int)`, `CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `DROP SCHEMA postbus CASCADE`,
		`DELETE FROM events`, `UPDATE events SET payload = '{}'`, `DELETE FROM counters`, `INSERT INTO counters VALUES ('mine', 1)`,
		`UPDATE meta SET value = 'mine'`, `DELETE FROM schema_version`, `UPDATE schema_version SET oldest = 99`,
		`INSERT INTO link_keys VALUES ('abcdef', 'a secret that the thief has chosen', now())`, `UPDATE link_keys SET secret = 'x'`, `DELETE FROM link_keys`,
		`INSERT INTO appenders VALUES (current_user, '{Create}')`, `UPDATE appenders SET types = '{Create,Failing}'`,
		`SELECT _make_partition('2999-01-01')`, `DELETE FROM deliveries WHERE name = 'x' RETURNING _make_partition('2999-01-01')`,
		`SELECT * FROM {partition}`, `INSERT INTO {partition} SELECT * FROM {partition}`, `DROP TABLE {partition}`,
	},
	"ingress": {
		`SELECT payload FROM events`, `SELECT address FROM events`, `DELETE FROM log_days`, `DELETE FROM forgetting`,
		`UPDATE deliveries SET cursor = 0`, `DELETE FROM deliveries`, `DELETE FROM requests`, `SELECT * FROM attempts`, `SELECT * FROM dispatchers`,
		`UPDATE texts SET texts = '{}'`, `DELETE FROM key_usage`, `INSERT INTO set_aside VALUES ('a', 'b', 1)`, `DELETE FROM set_aside`,
		`SELECT drop_partition('2000-01-01')`, `SELECT make_partitions()`, `SELECT scrub_forgotten()`, `SELECT rotate_link_key('0')`,
		`SELECT forget_events('{marketing}', '{newsletter}', '{a@example.com}', '{1}')`, // its event is no Delete
		insertOf("Failing"), insertOf("Deactivated"), insertOf("Notice"), insertOf("KeyExpiring"),
	},
	"dispatcher": {
		`INSERT INTO contacts SELECT * FROM contacts`, `UPDATE contacts SET state = '{}'`, `DELETE FROM contacts`, `DELETE FROM lists`,
		`SELECT * FROM idempotency`, `SELECT * FROM key_usage`, `UPDATE texts SET texts = '{}'`, `DELETE FROM requests`, `UPDATE requests SET value = ''`,
		`DELETE FROM deliveries`, `DELETE FROM attempts`, `DELETE FROM forgetting`, `DELETE FROM log_days`,
		`SELECT drop_partition('2000-01-01')`, `SELECT make_partitions()`, `SELECT rotate_link_key('0')`,
		`SELECT forget_events('{marketing}', '{newsletter}', '{a@example.com}', '{1}')`,
		insertOf("Create"), insertOf("Unsubscribe"), insertOf("Delete"), insertOf("OptInMail"), insertOf("KeyExpiring"),
	},
	"controller": {
		`SELECT * FROM link_keys`, `SELECT payload FROM events`, `SELECT address FROM events`, `INSERT INTO contacts SELECT * FROM contacts`,
		`UPDATE contacts SET state = '{}'`, `INSERT INTO forgetting VALUES (1)`, `UPDATE deliveries SET cursor = 0`, `INSERT INTO attempts VALUES ('a', 'b', '')`, `SELECT * FROM dispatchers`, `UPDATE key_usage SET last_used = now()`,
		`SELECT drop_partition((now() AT TIME ZONE 'UTC')::date)`, `SELECT drop_partition((now() AT TIME ZONE 'UTC')::date - 5)`, `SELECT scrub_forgotten()`,
		`SELECT forget_events('{marketing}', '{newsletter}', '{a@example.com}', '{1}')`,
		insertOf("Create"), insertOf("Delete"), insertOf("Deactivated"), insertOf("Notice"),
	},
}

// insertOf returns a statement that appends an event of a type.
func insertOf(kind string) string {
	return `INSERT INTO events VALUES (99, ` + today + `, 'evt', 'marketing', 'newsletter', 'a@example.com', '` + kind + `', 'API', now(), '{}')`
}

// A role that somebody has taken over can do no more than its component does.
func TestSmallRolesAreDenied(t *testing.T) {
	file := newRoutedPlace(t)
	s := openAt(t, file)
	NewWithT(t).Expect(s.readRow(t.Context(), []any{new(string)},
		`UPDATE meta SET value = $2 WHERE name = $1 RETURNING value`, metaShortestRetention, defaultShortestRetention)).To(Succeed())
	_, err := s.Change(t.Context(), save("a@example.com"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for role, components := range smallRoles.components() {
		t.Run(components[0], func(t *testing.T) {
			g := NewWithT(t)
			conn, _, err := connectOnce(t.Context(), asRole(t, readFile(t, file), role))
			g.Expect(err).NotTo(HaveOccurred())
			defer func() { g.Expect(conn.Close(t.Context())).To(Succeed()) }()
			for _, statement := range append(denied["everybody"], denied[components[0]]...) {
				statement = strings.ReplaceAll(statement, "{partition}", partitionOf(time.Now().UTC()))
				var refused *pgconn.PgError
				_, err := conn.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol)
				g.Expect(errors.As(err, &refused)).To(BeTrue(), "%s: %v", statement, err)
				g.Expect(refused.Code).To(Equal(insufficientPrivilege), "%s: %s", statement, refused.Message)
			}
		})
	}
	g := NewWithT(t)
	g.Expect(s.Head(t.Context())).To(Equal(int64(1)))
	g.Expect(s.Read(t.Context(), store.Query{})).To(HaveLen(1))
}

// What --print-grants prints gives the same rights as the migration itself.
func TestPrintedGrants(t *testing.T) {
	g := NewWithT(t)
	file := newRoutedPlace(t)
	s := openAt(t, file)
	rightsNow := func() []string {
		all, err := readAll(t.Context(), s, pgx.RowTo[string], `
			SELECT relname || ' ' || coalesce(relacl::text, '') FROM pg_class WHERE relnamespace = 'postbus'::regnamespace
			UNION ALL SELECT attrelid::regclass || '.' || attname || ' ' || attacl::text FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid = 'events'::regclass
			UNION ALL SELECT proname || ' ' || proacl::text FROM pg_proc WHERE pronamespace = 'postbus'::regnamespace
			UNION ALL SELECT nspacl::text FROM pg_namespace WHERE nspname = 'postbus'
			UNION ALL SELECT a::text FROM appenders a ORDER BY 1`)
		g.Expect(err).NotTo(HaveOccurred())
		return all
	}
	granted := rightsNow()
	g.Expect(granted).To(ContainElement(ContainSubstring("small_ingress")))
	conn, _, err := connectOnce(t.Context(), file)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(conn.Close(t.Context())).To(Succeed()) }()
	for role := range smallRoles.components() {
		_, err := conn.Exec(t.Context(), `REVOKE ALL ON ALL TABLES IN SCHEMA postbus FROM `+role+`; DELETE FROM appenders`)
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(rightsNow()).NotTo(Equal(granted))
	printed, err := Grants(t.Context(), Options{}, smallRoles)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = conn.Exec(t.Context(), strings.Join(printed, ";\n"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(rightsNow()).To(Equal(granted))
}

// A role that is missing stops the migration, so that nobody takes it for done; the owner keeps
// its own rights, and one role can be that of several components.
func TestRolesOfMigration(t *testing.T) {
	g := NewWithT(t)
	makeRoles(t)
	file := newPlace(t)
	_, err := Migrate(t.Context(), Options{DSNFile: file}, Roles{Ingress: "nobody's"})
	g.Expect(err).To(MatchError(ContainSubstring(`there is no role "nobody's": CREATE ROLE "nobody's" LOGIN PASSWORD`)))
	_, err = Open(t.Context(), Options{DSNFile: file})
	g.Expect(err).To(MatchError(store.ErrNotMigrated), "nothing was made")

	done, err := Migrate(t.Context(), Options{DSNFile: file}, Roles{
		Controller: "postbus", Ingress: smallRoles.Ingress, Dispatcher: smallRoles.Ingress,
	})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(done).To(ContainElements("the role postbus owns the tables, so it has all rights",
		"granted the role small_ingress the rights of ingress and dispatcher"))
	g.Expect(Open(t.Context(), Options{DSNFile: asRole(t, readFile(t, file), smallRoles.Dispatcher)})).Error().
		To(And(MatchError(store.ErrNotMigrated), MatchError(ContainSubstring("or this role has no right to it"))))
	both, err := Open(t.Context(), Options{DSNFile: asRole(t, readFile(t, file), smallRoles.Ingress)})
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(both.Close()).To(Succeed()) }()
	_, err = both.Change(t.Context(), save("a@example.com"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(both.Join(t.Context(), "a", time.Minute)).To(ConsistOf("a"))
}

// A controller that was away for a long weekend, and is when the next week begins, loses nothing:
// each day has its partition.
func TestControllerIsAwayForAWeek(t *testing.T) {
	g := NewWithT(t)
	file, today := newPlace(t), newCalendar(firstDay)
	openWith(t, file, today) // which makes the partitions as the controller does, once
	s := openWith(t, file, today)
	for day := range daysAhead + 1 {
		today.set(firstDay.AddDate(0, 0, day))
		_, err := s.Change(t.Context(), save(fmt.Sprintf("day.%d@example.com", day)))
		g.Expect(err).NotTo(HaveOccurred(), "day %d", day)
	}
	g.Expect(s.Head(t.Context())).To(Equal(int64(daysAhead + 1)))
}
