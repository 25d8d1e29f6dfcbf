-- Account names and client ids share one namespace: both are `sub` of tokens, and the audit would not tell them apart.
-- A primary key keeps it so, also between two transactions that make the same name at the same moment.
CREATE TABLE identity.subject (
    name text PRIMARY KEY,
    kind text NOT NULL
);
INSERT INTO identity.subject (name, kind) SELECT name, 'account' FROM identity.account;
-- Names that both had before stay as they are; they cannot be made any more.
INSERT INTO identity.subject (name, kind) SELECT client_id, 'client' FROM identity.client ON CONFLICT DO NOTHING;

CREATE FUNCTION identity.claim_subject() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted text := to_jsonb(NEW) ->> TG_ARGV[1];
    known boolean;
BEGIN
    EXECUTE 'SELECT EXISTS (SELECT 1 FROM identity.' || quote_ident(TG_TABLE_NAME)
        || ' WHERE ' || quote_ident(TG_ARGV[1]) || ' = $1)' INTO known USING wanted;
    IF known THEN  -- the INSERT will become an UPDATE, or fail by itself
        RETURN NEW;
    END IF;
    INSERT INTO identity.subject (name, kind) VALUES (wanted, TG_ARGV[0]) ON CONFLICT DO NOTHING;
    IF NOT EXISTS (SELECT 1 FROM identity.subject WHERE name = wanted AND kind = TG_ARGV[0]) THEN
        RAISE unique_violation USING CONSTRAINT = 'one_subject', MESSAGE = 'an account or a client has this name';
    END IF;
    RETURN NEW;
END
$$;
CREATE FUNCTION identity.free_subject() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM identity.subject WHERE name = to_jsonb(OLD) ->> TG_ARGV[1] AND kind = TG_ARGV[0];
    RETURN NULL;
END
$$;
CREATE TRIGGER account_subject BEFORE INSERT ON identity.account
    FOR EACH ROW EXECUTE FUNCTION identity.claim_subject('account', 'name');
CREATE TRIGGER client_subject BEFORE INSERT ON identity.client
    FOR EACH ROW EXECUTE FUNCTION identity.claim_subject('client', 'client_id');
CREATE TRIGGER account_gone AFTER DELETE ON identity.account
    FOR EACH ROW EXECUTE FUNCTION identity.free_subject('account', 'name');
CREATE TRIGGER client_gone AFTER DELETE ON identity.client
    FOR EACH ROW EXECUTE FUNCTION identity.free_subject('client', 'client_id');
