-- Usage: what each key did on each route in each minute, and how it ended, as all nodes have counted it (docs/metering.md).
-- No foreign keys: what was used outlives keys, users and tenants.

CREATE TABLE usage (
    minute         timestamptz NOT NULL, -- its beginning
    key_id         text NOT NULL, -- empty where nobody is known: no credential, an unknown one, an open route
    tenant_id      text NOT NULL,
    user_id        text NOT NULL,
    route          text NOT NULL,
    outcome        text NOT NULL,
    code           text NOT NULL, -- the class of a status, the code of a problem, or how far it had come
    requests       bigint NOT NULL,
    received_bytes bigint NOT NULL,
    sent_bytes     bigint NOT NULL,
    PRIMARY KEY (key_id, minute, route, outcome, code)
) PARTITION BY RANGE (minute); -- a month each, made and dropped by the nodes
CREATE INDEX usage_tenant ON usage (tenant_id, minute);
CREATE INDEX usage_user ON usage (user_id, minute);

-- How far each node has come: the number of the last batch that was added. One that comes again changes nothing.
CREATE TABLE usage_writers (
    node_id    text PRIMARY KEY,
    batch      bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now()
);
