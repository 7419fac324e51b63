-- Users who sign in look after their own keys: they are actors of the audit trail, too.
ALTER TABLE audit_events DROP CONSTRAINT audit_events_actor_kind_check;
ALTER TABLE audit_events ADD CONSTRAINT audit_events_actor_kind_check
    CHECK (actor_kind IN ('admin_token', 'command', 'node', 'user'));
