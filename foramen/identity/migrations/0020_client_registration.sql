-- Dynamic registration with approval (RFC 7591, RFC 7592), keys by URL, pushed authorization requests (RFC 9126),
-- how a person signed in (amr) for id_tokens.
ALTER TABLE identity.client
    ADD COLUMN jwks_uri            text,
    ADD COLUMN grant_types         jsonb,
    ADD COLUMN require_pushed      boolean NOT NULL DEFAULT false,
    ADD COLUMN status              text NOT NULL DEFAULT 'approved'
        CHECK (status IN ('pending', 'approved', 'rejected', 'withdrawn')),
    ADD COLUMN metadata            jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN registration_digest text,
    ADD COLUMN registered_from     text,
    ADD COLUMN decided_by          text,
    ADD COLUMN decided_at          timestamptz;
CREATE INDEX client_registered ON identity.client (created_at) WHERE registration_digest IS NOT NULL;
CREATE TABLE identity.pushed_request (
    request_uri_digest text PRIMARY KEY,
    client_id          text NOT NULL REFERENCES identity.client (client_id) ON DELETE CASCADE,
    parameters         jsonb NOT NULL,
    expires_at         timestamptz NOT NULL
);
ALTER TABLE identity.token_family ADD COLUMN factors jsonb;
CREATE INDEX token_family_client ON identity.token_family (client_id);
