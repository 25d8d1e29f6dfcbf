-- Rows that live for minutes are looked for each minute.
CREATE INDEX authorization_request_expiry ON identity.authorization_request (expires_at);
CREATE INDEX pushed_request_expiry ON identity.pushed_request (expires_at);
CREATE INDEX passkey_challenge_expiry ON identity.passkey_challenge (expires_at);
CREATE INDEX partial_sign_in_expiry ON identity.partial_sign_in (expires_at);
CREATE INDEX launch_expiry ON identity.launch (expires_at);
CREATE INDEX used_assertion_expiry ON identity.used_assertion (expires_at);
CREATE INDEX failure_budget_expiry ON identity.failure_budget (expires_at);
CREATE INDEX known_device_expiry ON identity.known_device (expires_at);
