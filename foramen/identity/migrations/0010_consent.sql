-- What a person agreed to let an app do, until it asks for more; the encounter of a request; style and context of a launch.
CREATE TABLE identity.consent (
    account   text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    client_id text NOT NULL REFERENCES identity.client (client_id) ON DELETE CASCADE,
    asked     text NOT NULL,
    agreed    text NOT NULL,
    agreed_at timestamptz NOT NULL,
    PRIMARY KEY (account, client_id)
);
ALTER TABLE identity.authorization_request ADD COLUMN encounter text;
ALTER TABLE identity.launch ADD COLUMN smart_style_url text;
ALTER TABLE identity.launch ADD COLUMN fhir_context jsonb;
