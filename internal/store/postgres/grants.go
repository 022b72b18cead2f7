package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"postbus.dev/postbus/internal/contact"
)

// Roles are the roles that the components connect as. Migrate grants each what its component
// needs; an empty name gets nothing. Two components may share a role.
type Roles struct {
	Controller, Ingress, Dispatcher string
}

// grant is what a component may do with a table. Columns restrict SELECT.
type grant struct {
	table, verbs string
}

// rights are what a component needs of the store.
type rights struct {
	tables    []grant
	functions []string
	// appends are the types of events that it may append to the log.
	appends []string
}

// everybody needs to know the version of the schema, and how far the log is. All who append to
// the log or change deliveries count.
var everybody = []grant{
	{"schema_version", "SELECT"},
	{"meta", "SELECT"},
	{"counters", "SELECT, UPDATE"},
	{"appenders", "SELECT"},
	{"log_days", "SELECT, INSERT"},
	{"events", "SELECT (position, day, time), INSERT"},
	{"deliveries", "SELECT, INSERT"},
	{"set_aside", "SELECT"},
	{"namespaces", "SELECT"},
	{"bound_objects", "SELECT"},
}

// contactTypes are the events that a change of a contact appends.
var contactTypes = append(texts(contact.EventTypes), string(contact.EventOptInMail))

// operationTypes are the events that delivering appends.
var operationTypes = []string{
	string(contact.EventFailing), string(contact.EventDeactivated), string(contact.EventReactivated), string(contact.EventNotice),
}

var componentRights = map[string]rights{
	"ingress": {
		tables: slices.Concat(everybody, []grant{
			{"link_keys", "SELECT"},
			{"contacts", "SELECT, INSERT, UPDATE, DELETE"},
			{"lists", "SELECT, INSERT, UPDATE"},
			{"forgetting", "INSERT"},
			{"idempotency", "SELECT, INSERT, UPDATE, DELETE"},
			{"key_usage", "SELECT, INSERT, UPDATE"},
			{"requests", "SELECT, INSERT, UPDATE"},
			{"texts", "SELECT"},
			{"log_usage", "SELECT, INSERT, UPDATE, DELETE"},
		}),
		functions: []string{"forget_events(text[], text[], text[], bigint[])"},
		appends:   contactTypes,
	},
	"dispatcher": {
		tables: slices.Concat(everybody, []grant{
			{"link_keys", "SELECT"},
			{"events", "SELECT"},
			{"contacts", "SELECT"},
			{"deliveries", "UPDATE"},
			{"set_aside", "INSERT, DELETE"},
			{"dispatchers", "SELECT, INSERT, UPDATE, DELETE"},
			{"attempts", "SELECT, INSERT, UPDATE"},
			{"requests", "SELECT"},
			{"forgetting", "SELECT"},
			{"texts", "SELECT"},
		}),
		functions: []string{"scrub_forgotten()"},
		appends:   operationTypes,
	},
	"controller": {
		tables: slices.Concat(everybody, []grant{
			{"contacts", "SELECT, DELETE"},
			{"lists", "SELECT, INSERT, UPDATE, DELETE"},
			{"namespaces", "INSERT, UPDATE"},
			{"bound_objects", "INSERT, UPDATE, DELETE"},
			{"log_days", "DELETE"},
			{"forgetting", "SELECT, DELETE"},
			{"idempotency", "SELECT, INSERT, UPDATE, DELETE"},
			{"key_usage", "SELECT, DELETE"},
			{"deliveries", "DELETE"},
			{"set_aside", "DELETE"},
			{"attempts", "SELECT, DELETE"},
			{"requests", "SELECT, INSERT, UPDATE, DELETE"},
			{"texts", "SELECT, INSERT, UPDATE, DELETE"},
		}),
		functions: []string{"make_partitions()", "drop_partition(date)", "remove_events(text, integer, text)", "rotate_link_key(interval)"},
		appends:   []string{string(contact.EventKeyExpiring), string(contact.EventListRemoved)},
	},
}

// components returns the rights of each role, those of a role of several components together.
func (r Roles) components() map[string][]string {
	byRole := map[string][]string{}
	for _, named := range []struct{ component, role string }{
		{"controller", r.Controller}, {"ingress", r.Ingress}, {"dispatcher", r.Dispatcher},
	} {
		if named.role != "" {
			byRole[named.role] = append(byRole[named.role], named.component)
		}
	}
	return byRole
}

// grantsTo returns the statements that give a role the rights of components and no others.
func grantsTo(schema, role string, components []string) []string {
	in, to := quote(schema), quote(role)
	statements := []string{
		fmt.Sprintf("REVOKE ALL ON ALL TABLES IN SCHEMA %s FROM %s", in, to),
		fmt.Sprintf("REVOKE ALL ON ALL SEQUENCES IN SCHEMA %s FROM %s", in, to),
		fmt.Sprintf("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA %s FROM %s", in, to),
		fmt.Sprintf("REVOKE ALL ON SCHEMA %s FROM %s", in, to),
		fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", in, to),
		fmt.Sprintf("GRANT USAGE ON SEQUENCE %s.tokens TO %s", in, to),
	}
	var appends []string
	for _, component := range components {
		rights := componentRights[component]
		for _, g := range rights.tables {
			statements = append(statements, fmt.Sprintf("GRANT %s ON %s.%s TO %s", g.verbs, in, g.table, to))
		}
		for _, function := range rights.functions {
			statements = append(statements, fmt.Sprintf("GRANT EXECUTE ON FUNCTION %s.%s TO %s", in, function, to))
		}
		appends = append(appends, rights.appends...)
	}
	slices.Sort(appends)
	return append(statements, fmt.Sprintf(
		"INSERT INTO %s.appenders (role, types) VALUES (%s, '{%s}') ON CONFLICT (role) DO UPDATE SET types = excluded.types",
		in, literal(role), strings.Join(slices.Compact(appends), ",")))
}

// literal returns a text as a literal of SQL.
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// Grants returns the statements that Migrate runs for roles, to be read or run by hand. Without a
// file of a connection string the schema is the default one. It does not connect.
func Grants(ctx context.Context, options Options, roles Roles) ([]string, error) {
	schema := defaultSchema
	if options.DSNFile != "" {
		var err error
		if _, schema, err = readConfig(ctx, options.DSNFile); err != nil {
			return nil, err
		}
	}
	var statements []string
	byRole := roles.components()
	for _, role := range sortedRoles(byRole) {
		statements = append(statements, grantsTo(schema, role, byRole[role])...)
	}
	return statements, nil
}

func sortedRoles(byRole map[string][]string) []string {
	names := make([]string, 0, len(byRole))
	for role := range byRole {
		names = append(names, role)
	}
	slices.Sort(names)
	return names
}

// grant gives each role its rights.
func (m *migrator) grant(ctx context.Context, tx pgx.Tx) error {
	byRole := m.roles.components()
	for _, role := range sortedRoles(byRole) {
		owns, err := ownsTables(ctx, tx, role)
		if err != nil {
			return err
		}
		if owns {
			m.note("the role %s owns the tables, so it has all rights", role)
			continue
		}
		for _, statement := range grantsTo(m.schema, role, byRole[role]) {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("grant rights to the role %s: %w", role, err)
			}
		}
		m.note("granted the role %s the rights of %s", role, strings.Join(byRole[role], " and "))
	}
	return nil
}

// ownsTables reports whether a role has the rights of the tables' owner, which it must keep.
func ownsTables(ctx context.Context, tx pgx.Tx, role string) (owns bool, err error) {
	var exists bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, role).Scan(&exists); err != nil {
		return false, err
	}
	if !exists {
		return false, fmt.Errorf("there is no role %q: CREATE ROLE %s LOGIN PASSWORD '…' comes first", role, quote(role))
	}
	err = tx.QueryRow(ctx, `SELECT pg_has_role($1, relowner, 'MEMBER') FROM pg_class WHERE oid = 'events'::regclass`, role).Scan(&owns)
	return owns, err
}
