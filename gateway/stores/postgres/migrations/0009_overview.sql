-- What people look for and at: users by how their id or name begins, in the order of bytes; a tenant's users in the
-- order of pages; and the vital signs of each node, as it last told them (`NodeSigns` in gateway.telemetry.signs).
CREATE INDEX users_id_start ON users (id text_pattern_ops);
CREATE INDEX users_name_start ON users (lower(display_name) text_pattern_ops);
CREATE INDEX users_tenant_page ON users (tenant_id, id);
DROP INDEX users_tenant;
ALTER TABLE nodes ADD COLUMN signs json NOT NULL DEFAULT '{}';
