-- Whether new API keys are made for a tenant's users; null: as configured (`keys.issuance`). Nothing that is admitted
-- depends on it: no revision counts it, and the triggers do not look at this column.
ALTER TABLE tenants ADD COLUMN issuance text CHECK (issuance IN ('open', 'closed'));
