-- Who has signed in to the portal, by the hash of what their browser holds. `subject` is the id of a user, or of the
-- admin token that somebody has signed in by; `facts` is what the sign-in said beside that, and holds until it ends.
CREATE TABLE portal_sessions (
    digest     bytea PRIMARY KEY CHECK (length(digest) = 32),
    kind       text NOT NULL CHECK (kind IN ('user', 'admin_token')),
    subject    text NOT NULL,
    facts      json NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    ends_at    timestamptz NOT NULL
);
CREATE INDEX portal_sessions_subject ON portal_sessions (kind, subject);
CREATE INDEX portal_sessions_ends_at ON portal_sessions (ends_at);
CREATE INDEX portal_sessions_seen_at ON portal_sessions (seen_at);

-- Which secret of a key is in use: who rotates wants to know when the old one is left and the new one has arrived.
-- Bookkeeping as `last_used_at` is: no revision counts it, and the triggers do not look at these columns.
ALTER TABLE api_keys ADD COLUMN secret_first_used_at timestamptz;
ALTER TABLE api_keys ADD COLUMN secret_last_used_at timestamptz;
ALTER TABLE retired_secrets ADD COLUMN last_used_at timestamptz;
