-- People: second factors (TOTP, passkeys, recovery codes), sign-ins under way, budgets of failed sign-ins, facts of sessions.
-- Secrets of TOTP are sealed (AES-256-GCM, key id inside the value); recovery codes and challenges are digests only.
ALTER TABLE identity.account ADD COLUMN user_handle text UNIQUE;
ALTER TABLE identity.account ADD COLUMN code_failures integer NOT NULL DEFAULT 0;
ALTER TABLE identity.account ADD COLUMN codes_locked_until timestamptz;
ALTER TABLE identity.account ADD COLUMN password_changed_at timestamptz;
ALTER TABLE identity.session ADD COLUMN factors jsonb NOT NULL DEFAULT '["password"]';
ALTER TABLE identity.session ADD COLUMN authenticated_at timestamptz;
ALTER TABLE identity.session ADD COLUMN address text;
ALTER TABLE identity.session ADD COLUMN device text;
CREATE TABLE identity.partial_sign_in (
    sign_in_digest text PRIMARY KEY,
    account        text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL
);
CREATE INDEX partial_sign_in_account ON identity.partial_sign_in (account);
CREATE TABLE identity.totp_device (
    id            uuid PRIMARY KEY,
    account       text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    name          text NOT NULL,
    sealed_secret text NOT NULL,
    last_step     bigint NOT NULL,
    created_at    timestamptz NOT NULL,
    last_used_at  timestamptz
);
CREATE INDEX totp_device_account ON identity.totp_device (account);
CREATE TABLE identity.passkey (
    credential_id   text PRIMARY KEY,
    account         text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    name            text NOT NULL,
    public_key      bytea NOT NULL,
    sign_count      bigint NOT NULL,
    transports      jsonb NOT NULL,
    aaguid          text NOT NULL,
    backup_eligible boolean NOT NULL,
    backed_up       boolean NOT NULL,
    created_at      timestamptz NOT NULL,
    last_used_at    timestamptz
);
CREATE INDEX passkey_account ON identity.passkey (account);
CREATE TABLE identity.passkey_challenge (
    challenge_digest text PRIMARY KEY,
    browser_digest   text NOT NULL,
    account          text REFERENCES identity.account (name) ON DELETE CASCADE,
    ceremony         text NOT NULL CHECK (ceremony IN ('create', 'get')),
    expires_at       timestamptz NOT NULL
);
CREATE TABLE identity.recovery_code (
    account     text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    code_digest text NOT NULL,
    used_at     timestamptz,
    PRIMARY KEY (account, code_digest)
);
CREATE TABLE identity.failure_budget (
    budget        text PRIMARY KEY,
    level         double precision NOT NULL,
    counted_at    timestamptz NOT NULL,
    blocked_until timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL
);
