-- Files of the nearline folder that lie in a bucket (S3; ADR 0055). NULL: not there; begun: an upload was begun, there
-- may be something; there: all of it is, read back and compared, and what lies in the folder is a copy for readers.
ALTER TABLE dicomweb.nearline_file ADD COLUMN remote text CHECK (remote IN ('begun', 'there'));
CREATE INDEX nearline_remote ON dicomweb.nearline_file (study_instance_uid) WHERE remote IS NOT NULL;
