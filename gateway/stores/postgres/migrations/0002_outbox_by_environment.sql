-- A change is confirmed by the nodes of the environment that made it, on whose channel it is published. Environments that
-- share a database must not settle each other's changes, nor relay them where nobody listens.

ALTER TABLE pending_propagations ADD environment text NOT NULL DEFAULT '';
ALTER TABLE pending_propagations ALTER environment DROP DEFAULT;
UPDATE pending_propagations SET environment = coalesce((SELECT min(environment) FROM nodes), '');

DROP FUNCTION ostiary_seal(text, boolean);

-- The last statement of a transaction that wants to know what it has changed: gives the revisions now, writes a
-- narrowing change into the outbox, and returns the invalidations. The caller commits at once.
CREATE FUNCTION ostiary_seal(about text, by_environment text, is_narrowing boolean) RETURNS SETOF invalidations
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
        INSERT INTO pending_propagations (target, environment, first_revision, revision)
        SELECT about, by_environment, before_us + 1, value FROM revision;
    END IF;
    RETURN QUERY SELECT * FROM invalidations AS i WHERE i.revision > before_us ORDER BY i.revision, i.kind, i.subject;
END $$;
