-- Repeated locks last longer; browsers a person signed in from; refusals counted by network and minute; what an app was
-- when a person agreed to it; registrations waiting, by network.
ALTER TABLE identity.account ADD COLUMN locks integer NOT NULL DEFAULT 0;
ALTER TABLE identity.account ADD COLUMN code_locks integer NOT NULL DEFAULT 0;
ALTER TABLE identity.consent ADD COLUMN client_digest text;
CREATE TABLE identity.known_device (
    device_digest text NOT NULL,
    account       text NOT NULL REFERENCES identity.account (name) ON DELETE CASCADE,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (device_digest, account)
);
CREATE INDEX known_device_account ON identity.known_device (account);
CREATE TABLE identity.refusal_count (
    network  text NOT NULL,
    minute   timestamptz NOT NULL,
    refusals integer NOT NULL,
    PRIMARY KEY (network, minute)
);
CREATE INDEX client_registered_from ON identity.client (registered_from, created_at)
    WHERE registration_digest IS NOT NULL;
