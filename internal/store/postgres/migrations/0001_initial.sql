CREATE TABLE meta (
  name  text PRIMARY KEY,
  value text NOT NULL
);

-- What links in mails are signed with. The newest key that has started signs, all that have not
-- expired verify.
CREATE TABLE link_keys (
  id         text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{6}$'), -- link.KeyID
  secret     text NOT NULL CHECK (length(secret) >= 26),
  starts_at  timestamptz NOT NULL,
  expires_at timestamptz NOT NULL DEFAULT 'infinity'
);

-- What rises one by one, in the order of commits: whoever makes one rise locks its
-- row until the commit. log is the last position, contacts the last number of a
-- contact, deliveries the last revision.
CREATE TABLE counters (
  name   text PRIMARY KEY,
  value  bigint NOT NULL,
  server bigint NOT NULL DEFAULT 0 -- which server made it rise last, see lockCounter
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
INSERT INTO counters (name, value) VALUES ('log', 0), ('contacts', 0), ('deliveries', 0);

CREATE TABLE namespaces ( -- whose data the store holds under a namespace's name
  name   text COLLATE "C" PRIMARY KEY,
  uid    text NOT NULL,            -- of the Namespace object
  begins bigint NOT NULL DEFAULT 0 -- its events are behind this position
);

CREATE TABLE bound_objects ( -- lists and subscriptions that may use their namespace's data
  uid       text COLLATE "C" PRIMARY KEY,
  namespace text COLLATE "C" NOT NULL
);

CREATE TABLE lists ( -- counters, kept with each change so that counting is free
  namespace  text NOT NULL,
  name       text NOT NULL,
  contacts   bigint NOT NULL,
  subscribed bigint NOT NULL,
  PRIMARY KEY (namespace, name)
) WITH (fillfactor = 50);

CREATE TABLE contacts (
  id          bigint PRIMARY KEY,
  namespace   text COLLATE "C" NOT NULL,
  list        text COLLATE "C" NOT NULL,
  address     text COLLATE "C" NOT NULL, -- as addresses are compared
  external_id text COLLATE "C",          -- NULL when there is none
  revision    bigint NOT NULL,
  state       json NOT NULL              -- contact.Contact
);
CREATE UNIQUE INDEX contacts_address ON contacts (namespace, list, address);
CREATE UNIQUE INDEX contacts_external_id ON contacts (namespace, list, external_id)
  WHERE external_id IS NOT NULL;

CREATE TABLE events ( -- the log, append only, a partition for each day
  position  bigint NOT NULL,
  day       date NOT NULL, -- when it was appended; never before the day of an earlier event
  id        text NOT NULL,
  namespace text COLLATE "C" NOT NULL,
  list      text COLLATE "C" NOT NULL,
  address   text COLLATE "C" NOT NULL, -- as addresses are compared; empty in a tombstone
  type      text COLLATE "C" NOT NULL,
  source    text COLLATE "C" NOT NULL,
  time      timestamptz NOT NULL,
  payload   json NOT NULL, -- the rest, see encoding.Payload
  size      integer NOT NULL, -- contact.Event.Size, so that a page can end before it is read
  PRIMARY KEY (position, day)
) PARTITION BY RANGE (day);
CREATE INDEX events_address ON events (namespace, list, address, position);
CREATE INDEX events_time ON events USING brin (time) WITH (autosummarize = on);

-- Which types of events each role may append, see grants.go. The owner may append all.
CREATE TABLE appenders (
  role  name PRIMARY KEY,
  types text[] NOT NULL
);
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
CREATE POLICY read ON events FOR SELECT USING (true);
CREATE POLICY append ON events FOR INSERT
  WITH CHECK (type = ANY ((SELECT a.types FROM appenders a WHERE a.role = current_user)::text[]));

CREATE TABLE log_days ( -- where in the log each day begins
  day            date PRIMARY KEY,
  first_position bigint NOT NULL
);

CREATE TABLE forgetting ( -- events that become tombstones once all have them
  position bigint PRIMARY KEY
);

CREATE TABLE idempotency ( -- changes of which a repeat is recognised
  key         text COLLATE "C" PRIMARY KEY,
  fingerprint text NOT NULL,
  decision    json NOT NULL, -- see encoding.Decision
  until       timestamptz NOT NULL
);
CREATE INDEX idempotency_until ON idempotency (until);

CREATE SEQUENCE tokens;

CREATE TABLE dispatchers (
  name       text PRIMARY KEY,
  id         bigint NOT NULL DEFAULT nextval('tokens'), -- another one each time it joins after it has left
  expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE deliveries (
  namespace text COLLATE "C" NOT NULL,
  name      text COLLATE "C" NOT NULL,
  token     bigint NOT NULL DEFAULT nextval('tokens'),
  owner     bigint, -- the id of a dispatcher, which may have left or be dead
  cursor    bigint NOT NULL,
  open      json NOT NULL DEFAULT '[]', -- open events, see internal/store/encoding
  behind    bigint NOT NULL DEFAULT 0,
  health    json NOT NULL DEFAULT '{}', -- store.Health
  life      json NOT NULL DEFAULT '{}', -- store.Life
  operations bigint NOT NULL DEFAULT 0, -- operational events raised so far
  revision  bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (namespace, name)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX deliveries_revision ON deliveries (revision);

CREATE TABLE set_aside ( -- events that a subscription could not be sent
  namespace text COLLATE "C" NOT NULL,
  name      text COLLATE "C" NOT NULL,
  position  bigint NOT NULL,
  PRIMARY KEY (namespace, name, position)
);
CREATE INDEX set_aside_position ON set_aside (position);

CREATE TABLE requests ( -- the last of each type that somebody asked of a subscription
  namespace text COLLATE "C" NOT NULL,
  name      text COLLATE "C" NOT NULL,
  type      text NOT NULL,
  value     text NOT NULL,
  details   json NOT NULL, -- the rest of store.Request
  revision  bigint NOT NULL,
  PRIMARY KEY (namespace, name, type)
);
CREATE INDEX requests_revision ON requests (revision);

CREATE TABLE attempts ( -- the last ones of each subscription
  namespace text COLLATE "C" NOT NULL,
  name      text COLLATE "C" NOT NULL,
  attempts  text NOT NULL, -- store.Attempt as JSON, a line each
  PRIMARY KEY (namespace, name)
);

CREATE TABLE key_usage ( -- when each API key was last used
  namespace text NOT NULL,
  name      text NOT NULL,
  last_used timestamptz NOT NULL,
  PRIMARY KEY (namespace, name)
);

CREATE TABLE log_usage ( -- bytes that namespaces have appended to the log in a day, where they are limited
  namespace text COLLATE "C" NOT NULL,
  day       date NOT NULL,
  bytes     bigint NOT NULL,
  PRIMARY KEY (namespace, day)
);

CREATE TABLE texts ( -- checked templates of lists
  namespace text NOT NULL,
  list      text NOT NULL,
  texts     json NOT NULL, -- store.ListTexts
  PRIMARY KEY (namespace, list)
);
