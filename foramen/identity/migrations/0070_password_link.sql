-- Links with which a person sets the first or a new password; an administrator hands them over (docs/how-to/administer.md).
CREATE TABLE identity.password_link (
    account text PRIMARY KEY REFERENCES identity.account (name) ON DELETE CASCADE,
    token_digest text NOT NULL UNIQUE,
    made_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
