-- Failed passwords in a browser from which the account signed in before are counted there, apart from those elsewhere.
ALTER TABLE identity.known_device ADD COLUMN failed_attempts integer NOT NULL DEFAULT 0;
ALTER TABLE identity.known_device ADD COLUMN locked_until timestamptz;
ALTER TABLE identity.known_device ADD COLUMN locks integer NOT NULL DEFAULT 0;
