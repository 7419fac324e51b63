-- The truth: tenants, users, plans, entitlements, keys and their retired secrets, and the revision that orders
-- every change of what decides admission. See docs/consistency.md for the rule that rests on `revision`.

CREATE TABLE revision (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    value      bigint NOT NULL DEFAULT 1,
    -- Invalidations up to and including this revision have been pruned: a cursor below it has lost its place.
    pruned_to  bigint NOT NULL DEFAULT 1
);
INSERT INTO revision DEFAULT VALUES;

CREATE TABLE invalidations (
    revision   bigint NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('digest', 'key', 'user', 'tenant', 'plan', 'all')),
    subject    text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (revision, kind, subject)
);
CREATE INDEX invalidations_created_at ON invalidations (created_at);

-- What the statements of a transaction have changed, until its commit gives each its revision. No row outlives its
-- transaction.
CREATE UNLOGGED TABLE staged_changes (
    id       bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    subjects text[] NOT NULL
);

-- Facts of this deployment. `seal_key` authenticates what the nodes leave for each other in Redis.
CREATE TABLE deployment (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    seal_key bytea NOT NULL DEFAULT
        sha256(decode(replace(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'))
);
INSERT INTO deployment DEFAULT VALUES;

CREATE TABLE nodes (
    id               text PRIMARY KEY,
    environment      text NOT NULL,
    version          text NOT NULL,
    revision         bigint NOT NULL,
    view_age_seconds double precision,
    started_at       timestamptz NOT NULL DEFAULT now(),
    seen_at          timestamptz NOT NULL DEFAULT now()
);

-- The outbox of narrowing changes that are committed but not yet confirmed on every node. A row is written in the
-- change's own transaction and goes when the propagation is confirmed; relays finish what a dying writer left.
CREATE TABLE pending_propagations (
    target         text NOT NULL, -- what the call was about: `key:<id>`, `user:<id>` ...
    first_revision bigint NOT NULL, -- a transaction's revisions are contiguous: it holds the lock until it commits
    revision       bigint NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (target, revision)
);
CREATE INDEX pending_propagations_created_at ON pending_propagations (created_at);

CREATE TABLE tenants (
    id         text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$'),
    name       text NOT NULL,
    status     text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    id           text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$'),
    tenant_id    text NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    display_name text NOT NULL DEFAULT '',
    roles        text[] NOT NULL DEFAULT '{}',
    groups       text[] NOT NULL DEFAULT '{}',
    status       text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (id, tenant_id)
);
CREATE INDEX users_tenant ON users (tenant_id);

CREATE TABLE plans (
    name     text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    tier     integer NOT NULL DEFAULT 0 CHECK (tier >= 0),
    features jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(features) = 'object'),
    limits   jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(limits) = 'object')
);

-- A user without a row here has no entitlement. Features and limits override those of the plan, name by name.
CREATE TABLE entitlements (
    user_id     text PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    plan        text NOT NULL REFERENCES plans (name) ON UPDATE CASCADE,
    features    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(features) = 'object'),
    limits      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(limits) = 'object'),
    valid_until timestamptz,
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id             text PRIMARY KEY,
    tenant_id      text NOT NULL,
    user_id        text NOT NULL,
    kind           text NOT NULL DEFAULT 'user' CHECK (kind IN ('user', 'operator')),
    name           text NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    prefix         text NOT NULL,
    environment    text NOT NULL,
    scopes         text[] NOT NULL DEFAULT '{}',
    secret_id      text NOT NULL UNIQUE,
    digest         bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    created_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz,
    revoked_at     timestamptz,
    revoked_reason text,
    last_used_at   timestamptz,
    FOREIGN KEY (user_id, tenant_id) REFERENCES users (id, tenant_id) ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE INDEX api_keys_user ON api_keys (user_id, created_at);
CREATE INDEX api_keys_tenant ON api_keys (tenant_id, id);
-- A name may be used again once its key has been revoked.
CREATE UNIQUE INDEX api_keys_name ON api_keys (tenant_id, name) WHERE revoked_at IS NULL;

CREATE TABLE retired_secrets (
    id         text PRIMARY KEY,
    key_id     text NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    digest     bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    prefix     text NOT NULL,
    retired_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX retired_secrets_key ON retired_secrets (key_id, retired_at);

CREATE TABLE admin_tokens (
    id           text PRIMARY KEY,
    name         text NOT NULL,
    role         text NOT NULL CHECK (role IN ('operator', 'tenant-admin', 'auditor')),
    tenant_id    text REFERENCES tenants (id) ON DELETE CASCADE,
    prefix       text NOT NULL,
    digest       bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    CHECK ((role = 'tenant-admin') = (tenant_id IS NOT NULL))
);

-- The triggers. Statement level, one revision a statement; a statement that changed nothing that decides admission
-- takes none. The row lock on `revision` makes revision order equal commit order. It is taken by a deferred trigger,
-- at commit, when the transaction has every other lock it will ever want: whoever holds the row waits for nobody, so
-- that a slow transaction stops no other, and cascades that meet other writers cannot deadlock on it.
-- The functions keep the search path of the migration: they work for whoever edits a table, from wherever.

CREATE FUNCTION ostiary_stage(subjects text[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF cardinality(subjects) > 0 THEN
        INSERT INTO staged_changes (subjects) VALUES (ostiary_stage.subjects);
    END IF;
END $$;

CREATE FUNCTION ostiary_take_revision() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    taken bigint;
BEGIN
    DELETE FROM staged_changes WHERE id = NEW.id;
    UPDATE revision SET value = value + 1 RETURNING value INTO STRICT taken;
    INSERT INTO invalidations (revision, kind, subject)
    SELECT DISTINCT taken, split_part(s, ':', 1), substr(s, strpos(s, ':') + 1) FROM unnest(NEW.subjects) AS s;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER ostiary_take_revision AFTER INSERT ON staged_changes
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ostiary_take_revision();

-- The last statement of a transaction that wants to know what it has changed: gives the revisions now, writes a
-- narrowing change into the outbox, and returns the invalidations. The caller commits at once.
CREATE FUNCTION ostiary_seal(about text, is_narrowing boolean) RETURNS SETOF invalidations
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    before_us bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM staged_changes) THEN
        RETURN;
    END IF;
    SELECT value INTO STRICT before_us FROM revision FOR UPDATE;
    SET CONSTRAINTS ALL IMMEDIATE;
    IF is_narrowing THEN
        INSERT INTO pending_propagations (target, first_revision, revision)
        SELECT about, before_us + 1, value FROM revision;
    END IF;
    RETURN QUERY SELECT * FROM invalidations AS i WHERE i.revision > before_us ORDER BY i.revision, i.kind, i.subject;
END $$;

-- Arguments: the columns that decide admission, and an array expression over them that names the subjects of a row.
CREATE FUNCTION ostiary_rows_changed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    changed  text;
    subjects text[];
BEGIN
    changed := CASE TG_OP
        WHEN 'INSERT' THEN format('SELECT %s FROM new_rows', TG_ARGV[0])
        WHEN 'DELETE' THEN format('SELECT %s FROM old_rows', TG_ARGV[0])
        ELSE format('(SELECT %1$s FROM old_rows EXCEPT SELECT %1$s FROM new_rows)'
                    ' UNION ALL (SELECT %1$s FROM new_rows EXCEPT SELECT %1$s FROM old_rows)', TG_ARGV[0])
    END;
    EXECUTE format('SELECT array_agg(DISTINCT s) FROM (%s) AS changed, unnest(%s) AS s', changed, TG_ARGV[1])
        INTO subjects;
    PERFORM ostiary_stage(subjects);
    RETURN NULL;
END $$;

CREATE FUNCTION ostiary_truncated() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM ostiary_stage(ARRAY['all:']);
    RETURN NULL;
END $$;

-- Postgres wants one trigger per event where transition tables are named.
DO $$
DECLARE
    watched record;
BEGIN
    FOR watched IN SELECT * FROM (VALUES
        ('tenants', 'id, status', $a$ARRAY['tenant:' || id]$a$),
        ('users', 'id, tenant_id, status', $a$ARRAY['user:' || id]$a$),
        ('plans', 'name, tier, features, limits', $a$ARRAY['plan:' || name]$a$),
        ('entitlements', 'user_id, plan, features, limits, valid_until', $a$ARRAY['user:' || user_id]$a$),
        ('api_keys', 'id, tenant_id, user_id, kind, environment, scopes, secret_id, digest, expires_at, revoked_at',
            $a$ARRAY['key:' || id, 'digest:' || encode(digest, 'hex')]$a$),
        ('retired_secrets', 'id, key_id, digest, expires_at',
            $a$ARRAY['key:' || key_id, 'digest:' || encode(digest, 'hex')]$a$)
    ) AS w (relation, columns, subjects) LOOP
        EXECUTE format('CREATE TRIGGER ostiary_inserted AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows'
            ' FOR EACH STATEMENT EXECUTE FUNCTION ostiary_rows_changed(%L, %L)',
            watched.relation, watched.columns, watched.subjects);
        EXECUTE format('CREATE TRIGGER ostiary_updated AFTER UPDATE ON %I REFERENCING OLD TABLE AS old_rows'
            ' NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION ostiary_rows_changed(%L, %L)',
            watched.relation, watched.columns, watched.subjects);
        EXECUTE format('CREATE TRIGGER ostiary_deleted AFTER DELETE ON %I REFERENCING OLD TABLE AS old_rows'
            ' FOR EACH STATEMENT EXECUTE FUNCTION ostiary_rows_changed(%L, %L)',
            watched.relation, watched.columns, watched.subjects);
        EXECUTE format('CREATE TRIGGER ostiary_truncated AFTER TRUNCATE ON %I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION ostiary_truncated()', watched.relation);
    END LOOP;
END $$;
