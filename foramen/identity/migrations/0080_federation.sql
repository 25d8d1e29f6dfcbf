-- Sign-in through outside identity providers (OpenID Connect, CAS).
CREATE TABLE identity.identity_provider (
    id            text PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('oidc', 'cas')),
    issuer        text NOT NULL UNIQUE,
    client_id     text,
    sealed_secret text,
    name_zh       text NOT NULL,
    name_en       text NOT NULL,
    enabled       boolean NOT NULL,
    settings      jsonb NOT NULL,
    created_at    timestamptz NOT NULL
);
-- Who somebody out there is here: by issuer and subject, never by name or mail. Survives the removal of a provider.
CREATE TABLE identity.federated_account (
    issuer          text NOT NULL,
    subject         text NOT NULL,
    account         text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    managed         boolean NOT NULL,
    linked_at       timestamptz NOT NULL,
    last_sign_in_at timestamptz,
    PRIMARY KEY (issuer, subject),
    UNIQUE (issuer, account)
);
CREATE INDEX federated_account_account ON identity.federated_account (account);
-- A browser on its way to a provider and back. State and browser are digests, where it leads is sealed.
CREATE TABLE identity.federation_request (
    state_digest       text PRIMARY KEY,
    provider           text NOT NULL REFERENCES identity.identity_provider (id) ON DELETE CASCADE,
    browser_digest     text NOT NULL,
    purpose            text NOT NULL CHECK (purpose IN ('sign-in', 'link', 'sign-out')),
    session_digest     text,
    fresh              boolean NOT NULL,
    sealed_destination text NOT NULL,
    created_at         timestamptz NOT NULL,
    expires_at         timestamptz NOT NULL
);
CREATE INDEX federation_request_expiry ON identity.federation_request (expires_at);
-- Which session (or, by its digest, sign-in still waiting for its second factor) came from which session out there.
CREATE TABLE identity.federated_session (
    session_digest   text PRIMARY KEY,
    provider         text NOT NULL REFERENCES identity.identity_provider (id) ON DELETE CASCADE,
    account          text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    issuer           text NOT NULL,
    subject          text NOT NULL,
    sid              text,
    sealed_id_token  text,
    factors          jsonb NOT NULL,
    authenticated_at timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL
);
CREATE INDEX federated_session_subject ON identity.federated_session (issuer, subject);
CREATE INDEX federated_session_sid ON identity.federated_session (issuer, sid);
-- Sign-outs that were told to us: against their replay, and against a sign-in that was under way meanwhile.
CREATE TABLE identity.federation_logout (
    issuer        text NOT NULL,
    jti           text NOT NULL,
    subject       text,
    sid           text,
    logged_out_at timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (issuer, jti)
);
