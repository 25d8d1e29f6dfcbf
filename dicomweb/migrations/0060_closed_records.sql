-- Whose studies the record closes, and to whom: what ImagingStudy/$closed-records says, kept current by dicomweb/consents.
CREATE TABLE dicomweb.closed_record (
    rule        integer PRIMARY KEY,
    patient_ref text NOT NULL,
    studies     text[],               -- these alone; NULL: all of the patient
    actors      text[],               -- to these alone; NULL: to everybody
    begins      bigint NOT NULL,      -- microseconds since 1970
    ends        bigint NOT NULL
);
CREATE INDEX closed_record_patient ON dicomweb.closed_record (patient_ref);
CREATE TABLE dicomweb.closed_record_permit (
    rule   integer NOT NULL REFERENCES dicomweb.closed_record ON DELETE CASCADE,
    actors text[],
    begins bigint NOT NULL,
    ends   bigint NOT NULL
);
CREATE INDEX closed_record_permit_rule ON dicomweb.closed_record_permit (rule);
CREATE TABLE dicomweb.restricted_record (
    patient_ref text PRIMARY KEY,
    state       text NOT NULL
);
CREATE TABLE dicomweb.closed_records_read (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    tag text NOT NULL
);
