-- Retired secrets are deleted some time after their end: found by it.
CREATE INDEX retired_secrets_end ON retired_secrets (expires_at);
