-- Apps that want to know when a person signs out (OpenID Connect Back-Channel Logout 1.0).
-- Which of them a session was opened in, under which `sid`; it goes with the session.
CREATE TABLE identity.app_session (
    sid            uuid PRIMARY KEY,
    session_digest text NOT NULL REFERENCES identity.session (session_digest) ON UPDATE CASCADE ON DELETE CASCADE,
    client_id      text NOT NULL,
    account        text NOT NULL,
    UNIQUE (session_digest, client_id)
);
CREATE INDEX app_session_account ON identity.app_session (account);
-- What is still to be told; written in the transaction that ends the session.
CREATE TABLE identity.logout_notice (
    jti             uuid PRIMARY KEY,
    sid             uuid NOT NULL,
    client_id       text NOT NULL,
    account         text NOT NULL,
    created_at      timestamptz NOT NULL,
    attempts        integer NOT NULL,
    next_attempt_at timestamptz NOT NULL
);
CREATE INDEX logout_notice_due ON identity.logout_notice (next_attempt_at);
ALTER TABLE identity.token_family ADD COLUMN sid uuid;
