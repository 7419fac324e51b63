-- The audit trail: what the management API and the commands have changed, each event written by the change's own
-- transaction. Each holds the hash of the one before it, and `audit_head` that of the last, so that an event which was
-- altered, taken out or put in later is found (docs/api.md).

CREATE TABLE audit_events (
    id            bigint PRIMARY KEY, -- 1, 2, 3 ... in the order of commits, without a gap
    at            timestamptz NOT NULL,
    actor_kind    text NOT NULL CHECK (actor_kind IN ('admin_token', 'command', 'node')),
    actor_id      text NOT NULL,
    actor_name    text NOT NULL,
    address       text,
    action        text NOT NULL,
    target        text NOT NULL,
    tenant_id     text, -- names a tenant that may be gone: what is on record outlives it
    before        json, -- `json` and not `jsonb`: it is hashed, and must come back as it was written
    after         json,
    request_id    text,
    outcome       text NOT NULL CHECK (outcome IN ('changed', 'unchanged')),
    previous_hash bytea NOT NULL CHECK (length(previous_hash) = 32),
    hash          bytea NOT NULL CHECK (length(hash) = 32)
);
CREATE INDEX audit_events_at ON audit_events (at);
CREATE INDEX audit_events_tenant ON audit_events (tenant_id, id);
CREATE INDEX audit_events_target ON audit_events (target, id);
CREATE INDEX audit_events_actor ON audit_events (actor_id, id);

-- The end of the chain. Its row lock is taken after every other one but that on `revision`, which comes last.
CREATE TABLE audit_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id       bigint NOT NULL DEFAULT 0,
    hash     bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (length(hash) = 32)
);
INSERT INTO audit_head DEFAULT VALUES;

CREATE FUNCTION ostiary_audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is only ever appended to';
END $$;

CREATE TRIGGER ostiary_audit_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION ostiary_audit_stays();
CREATE TRIGGER ostiary_audit_stays BEFORE DELETE OR TRUNCATE ON audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION ostiary_audit_stays();
