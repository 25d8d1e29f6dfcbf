-- Blocks that tell of a break (ADR 0029): a head that was kept outside is not in the chain; and who acknowledged it.
-- Not validated: what is there was allowed by the narrower rule.
ALTER TABLE fhir.audit_block DROP CONSTRAINT audit_block_kind_check;
ALTER TABLE fhir.audit_block ADD CONSTRAINT audit_block_kind_check
    CHECK (kind IN ('genesis', 'events', 'removal', 'break', 'acknowledged')) NOT VALID;
CREATE INDEX audit_block_breaks ON fhir.audit_block (number) WHERE kind IN ('break', 'acknowledged');
