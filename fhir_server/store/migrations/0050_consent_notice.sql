-- Each committed change of a Consent is told to every process, so that none goes on with what it remembers of them.
-- The condition is looked at before the function is called: other resources pay next to nothing.
CREATE FUNCTION fhir.tell_consent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fhir_consent', '');
    RETURN NULL;
END $$;
CREATE TRIGGER consent_changed AFTER INSERT OR UPDATE ON fhir.resource
    FOR EACH ROW WHEN (NEW.type = 'Consent') EXECUTE FUNCTION fhir.tell_consent();
CREATE TRIGGER consent_removed AFTER DELETE ON fhir.resource
    FOR EACH ROW WHEN (OLD.type = 'Consent') EXECUTE FUNCTION fhir.tell_consent();
