-- Who arranged an account's access: whoever did does not review the emergency access that it was used for.
ALTER TABLE identity.account ADD COLUMN created_by text, ADD COLUMN link_made_by text;
