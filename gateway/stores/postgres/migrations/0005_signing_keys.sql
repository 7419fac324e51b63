-- The keys that sign access tokens. `next` is published before it signs, `current` signs, `previous` has signed what may
-- still be in use, and what a `retired` one has signed is believed by nobody. Private parts are sealed, and go with the
-- last moment in which they may sign.

CREATE TABLE signing_keys (
    id           text PRIMARY KEY,
    environment  text NOT NULL,
    state        text NOT NULL CHECK (state IN ('next', 'current', 'previous', 'retired')),
    public_key   bytea NOT NULL CHECK (length(public_key) = 32),
    sealed_key   bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    activated_at timestamptz,
    replaced_at  timestamptz, -- when it signed for the last time
    retired_at   timestamptz,
    CHECK ((sealed_key IS NULL) = (state IN ('previous', 'retired')))
);
CREATE UNIQUE INDEX signing_keys_one_next ON signing_keys (environment) WHERE state = 'next';
CREATE UNIQUE INDEX signing_keys_one_current ON signing_keys (environment) WHERE state = 'current';

ALTER TABLE invalidations DROP CONSTRAINT invalidations_kind_check;
ALTER TABLE invalidations ADD CONSTRAINT invalidations_kind_check
    CHECK (kind IN ('digest', 'key', 'user', 'tenant', 'plan', 'signer', 'all'));

-- Whether a key is believed decides admission; which of those that are believed signs next does not.
DO $$
DECLARE
    columns  text := 'id, environment, public_key, state = ''retired'' AS is_retired';
    subjects text := 'ARRAY[''signer:'' || id]';
BEGIN
    EXECUTE format('CREATE TRIGGER ostiary_inserted AFTER INSERT ON signing_keys REFERENCING NEW TABLE AS new_rows'
        ' FOR EACH STATEMENT EXECUTE FUNCTION ostiary_rows_changed(%L, %L)', columns, subjects);
    EXECUTE format('CREATE TRIGGER ostiary_updated AFTER UPDATE ON signing_keys REFERENCING OLD TABLE AS old_rows'
        ' NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION ostiary_rows_changed(%L, %L)', columns, subjects);
    EXECUTE format('CREATE TRIGGER ostiary_deleted AFTER DELETE ON signing_keys REFERENCING OLD TABLE AS old_rows'
        ' FOR EACH STATEMENT EXECUTE FUNCTION ostiary_rows_changed(%L, %L)', columns, subjects);
    CREATE TRIGGER ostiary_truncated AFTER TRUNCATE ON signing_keys
        FOR EACH STATEMENT EXECUTE FUNCTION ostiary_truncated();
END $$;
