-- What the launcher has sent and received for one person (sealed: tokens are in it); it ends with the session.
CREATE TABLE identity.launch_trial (
    id             text PRIMARY KEY,
    session_digest text NOT NULL REFERENCES identity.session (session_digest) ON DELETE CASCADE,
    state_digest   text NOT NULL UNIQUE,
    sealed         text NOT NULL,
    revision       integer NOT NULL,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL
);
CREATE INDEX launch_trial_session ON identity.launch_trial (session_digest, created_at);
CREATE INDEX launch_trial_expires ON identity.launch_trial (expires_at);
