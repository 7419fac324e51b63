-- Access tokens that are for one request, and have met it. A row is needed until its token has ended.
CREATE TABLE used_tokens (
    id         text PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX used_tokens_end ON used_tokens (expires_at);
