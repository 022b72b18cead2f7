package postgres

import (
	"strconv"
	"strings"

	"postbus.dev/postbus/internal/store"
)

const (
	// daysAhead is how many days after today have a partition already: the controller, which
	// makes them, may be away for a long weekend and more.
	daysAhead = 7
	// metaShortestRetention is the row of meta that bounds what drop_partition drops, in days.
	// It is the controller's least --retention.
	metaShortestRetention    = "shortest_retention_days"
	defaultShortestRetention = "6"
)

// today is the day by the server's clock.
const today = `(clock_timestamp() AT TIME ZONE 'UTC')::date`

// functions are what components may have done without a right to the tables. Each runs with the
// rights of the owner, does one thing, and checks what it is asked for. The unchecked ones, whose
// names begin with "_", are for the owner.
//
// They belong to the newest version of the schema and are replaced by each migration.
const functions = `
CREATE OR REPLACE FUNCTION _make_partition(wanted date) RETURNS boolean
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
DECLARE
  name text := 'events_' || to_char(wanted, 'YYYYMMDD');
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '/partitions', 0));
  IF EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'events'::regclass AND inhrelid = to_regclass(name)) THEN
    RETURN false;
  END IF;
  EXECUTE format('DROP TABLE IF EXISTS %I', name); -- it was detached by hand
  -- With the constraint, attaching need not look at rows. It blocks no writer and no reader.
  EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING ALL, CONSTRAINT %I CHECK (day >= %L AND day < %L))',
    name, name || '_day', wanted, wanted + 1);
  EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, wanted, wanted + 1);
  EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', name, name || '_day');
  RETURN true;
END $$;

CREATE OR REPLACE FUNCTION make_partitions() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
  made int := 0;
BEGIN
  FOR n IN 0..{days ahead} LOOP
    IF _make_partition({today} + n) THEN
      made := made + 1;
    END IF;
  END LOOP;
  RETURN made;
END $$;

-- To drop a partition locks the log. It waits for readers for an instant only, as others wait
-- behind it; the caller tries again.
CREATE OR REPLACE FUNCTION drop_partition(wanted date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp SET lock_timeout = '100ms' AS $$
BEGIN
  IF wanted > {today} - (SELECT value::int FROM meta WHERE name = '{shortest retention}') THEN
    RAISE EXCEPTION 'the events of % are too young to be removed: see {shortest retention} in the table meta', wanted
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  EXECUTE format('DROP TABLE IF EXISTS %I', 'events_' || to_char(wanted, 'YYYYMMDD'));
END $$;

-- forget_events removes the earlier events of addresses, each of which must have a Delete event at
-- its position. That event is looked up: a join may read the whole log.
CREATE OR REPLACE FUNCTION forget_events(namespaces text[], lists text[], addresses text[], positions bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM unnest(namespaces, lists, addresses, positions) AS k (namespace, list, address, position)
    WHERE (SELECT e.position FROM events e WHERE e.position = k.position AND e.namespace = k.namespace AND e.list = k.list
      AND e.address = k.address AND e.type = 'Delete' LIMIT 1) IS NULL) THEN
    RAISE EXCEPTION 'an address whose events are to be removed has no Delete event' USING ERRCODE = 'insufficient_privilege';
  END IF;
  DELETE FROM set_aside WHERE position IN (SELECT e.position FROM {earlier events});
  DELETE FROM events WHERE (position, day) IN (SELECT e.position, e.day FROM {earlier events});
END $$;

-- remove_events removes some events of a list that is removed; of all lists of the namespace if the
-- name is empty. It looks each event up by its key: a join may read the whole log.
CREATE OR REPLACE FUNCTION remove_events(of_namespace text, most int, of_list text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
  positions bigint[];
  days date[];
BEGIN
  IF of_list = '' THEN
    SELECT array_agg(old.position), array_agg(old.day) INTO positions, days FROM ({events of namespace}) AS old;
  ELSE
    SELECT array_agg(old.position), array_agg(old.day) INTO positions, days FROM ({events of list}) AS old;
  END IF;
  DELETE FROM set_aside WHERE position = ANY (positions);
  FOR n IN 1..coalesce(cardinality(positions), 0) LOOP
    DELETE FROM events WHERE position = positions[n] AND day = days[n];
  END LOOP;
  RETURN coalesce(cardinality(positions), 0);
END $$;

CREATE OR REPLACE FUNCTION scrub_forgotten() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
  scrubbed int;
BEGIN
  {scrub events};
  GET DIAGNOSTICS scrubbed = ROW_COUNT;
  {delete forgetting};
  RETURN scrubbed;
END $$;

-- rotate_link_key makes a link key that nobody but the database has seen: the secret has 244
-- random bits.
CREATE OR REPLACE FUNCTION rotate_link_key(overlap interval) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
  made text := left(replace(gen_random_uuid()::text, '-', ''), 6);
  planned boolean := overlap > interval '0';
BEGIN
  LOCK TABLE link_keys IN SHARE ROW EXCLUSIVE MODE;
  UPDATE link_keys SET expires_at = least(expires_at, clock_timestamp() + overlap);
  DELETE FROM link_keys WHERE expires_at <= clock_timestamp();
  IF (SELECT count(*) FROM link_keys) >= {most link keys} THEN
    RAISE EXCEPTION USING ERRCODE = '{too many link keys}', MESSAGE = 'the store has {most link keys} link keys';
  END IF;
  INSERT INTO link_keys (id, secret, starts_at) VALUES (made, replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''),
    clock_timestamp() + CASE WHEN planned THEN interval '{link key delay} s' ELSE interval '0' END);
  PERFORM pg_notify(current_schema() || '_links', '');
  RETURN made;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC`

// tooManyLinkKeys is the code of the error of a function that refuses another link key.
const tooManyLinkKeys = "PB001"

// functionsOf returns the statements that make the functions in a schema.
func functionsOf(schema string) string {
	return strings.NewReplacer(
		"{schema}", quote(schema), "{today}", today, "{days ahead}", strconv.Itoa(daysAhead), "{shortest retention}", metaShortestRetention,
		"{earlier events}", earlierEvents, "{events of namespace}", eventsOfNamespace, "{events of list}", eventsOfList,
		"{scrub events}", scrubEvents, "{delete forgetting}", deleteForgetting,
		"{most link keys}", strconv.Itoa(store.MaxLinkKeys), "{too many link keys}", tooManyLinkKeys,
		"{link key delay}", strconv.Itoa(int(store.LinkKeyDelay.Seconds())),
	).Replace(functions)
}
