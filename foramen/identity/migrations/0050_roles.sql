-- Institutions as tenants, single permissions granted or withdrawn, and what is lent (账号借用).
CREATE TABLE identity.institution (
    id         text PRIMARY KEY,
    name_zh    text NOT NULL,
    name_en    text NOT NULL,
    created_at timestamptz NOT NULL
);
INSERT INTO identity.institution
SELECT DISTINCT institution, institution, institution, now() FROM identity.account WHERE institution IS NOT NULL;
ALTER TABLE identity.account ADD CONSTRAINT account_institution
    FOREIGN KEY (institution) REFERENCES identity.institution (id);
CREATE INDEX account_institution ON identity.account (institution);
CREATE TABLE identity.permission_change (
    id         uuid PRIMARY KEY,
    account    text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    permission text NOT NULL,
    effect     text NOT NULL CHECK (effect IN ('grant', 'withdraw')),
    until      timestamptz,
    reason     text NOT NULL,
    decided_by text NOT NULL,
    created_at timestamptz NOT NULL,
    ended_at   timestamptz
);
-- One that counts for each account and permission; the others are history.
CREATE UNIQUE INDEX permission_change_current ON identity.permission_change (account, permission)
    WHERE ended_at IS NULL;
CREATE INDEX permission_change_account ON identity.permission_change (account, created_at);
CREATE TABLE identity.delegation (
    id         uuid PRIMARY KEY,
    lender     text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    borrower   text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    permission text NOT NULL,
    until      timestamptz NOT NULL,
    reason     text NOT NULL,
    created_at timestamptz NOT NULL,
    ended_at   timestamptz
);
CREATE INDEX delegation_borrower ON identity.delegation (borrower) WHERE ended_at IS NULL;
CREATE INDEX delegation_lender ON identity.delegation (lender) WHERE ended_at IS NULL;
