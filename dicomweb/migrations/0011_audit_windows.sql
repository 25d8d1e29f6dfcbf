-- An event that covers requests still to come is durable at once and sent when they are counted, or when its time is up.
ALTER TABLE dicomweb.audit_outbox ADD COLUMN held_as text, ADD COLUMN held_until timestamptz;
CREATE UNIQUE INDEX audit_outbox_held ON dicomweb.audit_outbox (held_as) WHERE held_as IS NOT NULL;
