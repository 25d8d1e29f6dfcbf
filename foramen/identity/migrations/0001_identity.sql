-- Accounts, clients, sessions, launches, codes, tokens and the audit outbox. Opaque tokens are kept as SHA-256 digests only.
CREATE TABLE identity.account (
    name            text PRIMARY KEY,
    password_hash   text NOT NULL,
    role            text NOT NULL,
    practitioner    text,
    patient         text,
    institution     text,
    disabled        boolean NOT NULL DEFAULT false,
    failed_attempts integer NOT NULL DEFAULT 0,
    locked_until    timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE identity.client (
    client_id     text PRIMARY KEY,
    auth_method   text NOT NULL CHECK (auth_method IN ('none', 'client_secret_basic', 'private_key_jwt')),
    secret_hash   text,
    jwks          jsonb,
    redirect_uris jsonb NOT NULL DEFAULT '[]',
    launch_url    text,
    scope         text NOT NULL,
    name_zh       text NOT NULL,
    name_en       text NOT NULL,
    first_party   boolean NOT NULL DEFAULT false,
    disabled      boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE identity.session (
    session_digest text PRIMARY KEY,
    account        text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    signed_in_at   timestamptz NOT NULL,
    last_seen_at   timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL
);
CREATE INDEX session_account ON identity.session (account);
CREATE TABLE identity.launch (
    launch_digest       text PRIMARY KEY,
    client_id           text NOT NULL REFERENCES identity.client (client_id) ON DELETE CASCADE,
    account             text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    patient             text NOT NULL,
    encounter           text,
    intent              text,
    need_patient_banner boolean NOT NULL DEFAULT true,
    expires_at          timestamptz NOT NULL,
    used_at             timestamptz
);
CREATE TABLE identity.authorization_request (
    request_digest text PRIMARY KEY,
    client_id      text NOT NULL REFERENCES identity.client (client_id) ON DELETE CASCADE,
    parameters     jsonb NOT NULL,
    session_digest text,
    patient        text,
    consented      jsonb,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL
);
CREATE TABLE identity.token_family (
    family         uuid PRIMARY KEY,
    client_id      text NOT NULL REFERENCES identity.client (client_id) ON DELETE CASCADE,
    account        text REFERENCES identity.account (name) ON DELETE CASCADE,
    session_digest text,
    scope          text NOT NULL,
    launch_context jsonb NOT NULL DEFAULT '{}',
    nonce          text,
    signed_in_at   timestamptz,
    expires_at     timestamptz NOT NULL,
    revoked_at     timestamptz
);
CREATE INDEX token_family_account ON identity.token_family (account);
CREATE TABLE identity.authorization_code (
    code_digest    text PRIMARY KEY,
    family         uuid NOT NULL REFERENCES identity.token_family (family) ON DELETE CASCADE,
    redirect_uri   text NOT NULL,
    code_challenge text NOT NULL,
    expires_at     timestamptz NOT NULL,
    used_at        timestamptz
);
CREATE TABLE identity.refresh_token (
    token_digest text PRIMARY KEY,
    family       uuid NOT NULL REFERENCES identity.token_family (family) ON DELETE CASCADE,
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz
);
CREATE TABLE identity.access_token (
    jti        text PRIMARY KEY,
    family     uuid NOT NULL REFERENCES identity.token_family (family) ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX access_token_family ON identity.access_token (family);
CREATE INDEX access_token_revoked ON identity.access_token (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE TABLE identity.used_assertion (
    client_id  text NOT NULL,
    jti        text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (client_id, jti)
);
CREATE TABLE identity.audit_outbox (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event           jsonb NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_outbox_due ON identity.audit_outbox (next_attempt_at);
