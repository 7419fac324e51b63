-- Replies to mutations that came with an Idempotency-Key, each written by the mutation's own transaction. A row tells
-- nothing by itself: it is found by a hash of the key, and sealed with another that is derived from the key.
CREATE TABLE idempotent_replies (
    lookup     bytea PRIMARY KEY CHECK (length(lookup) = 32),
    salt       bytea NOT NULL,
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX idempotent_replies_expires_at ON idempotent_replies (expires_at);
