-- Break-glass: emergency access to one patient's record, with its reason, its alert, its tokens and its review.
CREATE TABLE identity.break_glass (
    id             uuid PRIMARY KEY,
    account        text NOT NULL REFERENCES identity.account (name),
    institution    text,
    -- It lives in one session; when that is gone, no token carries it any more.
    session_digest text REFERENCES identity.session (session_digest) ON UPDATE CASCADE ON DELETE SET NULL,
    patient        text NOT NULL,
    reason_code    text NOT NULL,
    reason         text NOT NULL CHECK (char_length(reason) BETWEEN 10 AND 500),
    address        text,
    started_at     timestamptz NOT NULL,
    until          timestamptz NOT NULL,
    ended_at       timestamptz,
    ended_by       text,
    reviewed_at    timestamptz,
    reviewed_by    text CHECK (reviewed_by <> account),
    verdict        text CHECK (verdict IN ('justified', 'unjustified')),
    note           text,
    CHECK (num_nulls(reviewed_at, reviewed_by, verdict) IN (0, 3))
);
CREATE INDEX break_glass_account ON identity.break_glass (account, started_at);
CREATE INDEX break_glass_session ON identity.break_glass (session_digest) WHERE session_digest IS NOT NULL;
CREATE INDEX break_glass_unreviewed ON identity.break_glass (started_at) WHERE reviewed_at IS NULL;
-- The alert of each; `next_attempt_at` is empty when it was delivered or there is nobody to deliver it to.
CREATE TABLE identity.break_glass_alert (
    break_glass     uuid PRIMARY KEY REFERENCES identity.break_glass (id),
    created_at      timestamptz NOT NULL,
    attempts        integer NOT NULL,
    next_attempt_at timestamptz,
    delivered_at    timestamptz
);
CREATE INDEX break_glass_alert_due ON identity.break_glass_alert (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
-- Which access tokens carry it, so that its end revokes these and no others.
CREATE TABLE identity.break_glass_token (
    jti         text PRIMARY KEY REFERENCES identity.access_token (jti) ON DELETE CASCADE,
    break_glass uuid NOT NULL REFERENCES identity.break_glass (id)
);
CREATE INDEX break_glass_token_of ON identity.break_glass_token (break_glass);
