-- What is rejected leaves dicomweb.instance, so that no statement can show it by mistake (ADR 0042).
CREATE TABLE dicomweb.rejection (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_instance_uid text NOT NULL,
    code               text NOT NULL CHECK (code IN ('113001', '113037', '113038', '113039')),
    reason             text NOT NULL DEFAULT '',
    rejected_by        text NOT NULL,
    rejected_at        timestamptz NOT NULL DEFAULT now(),
    instances          integer NOT NULL,
    note_uid           text NOT NULL UNIQUE,
    note               bytea,               -- the rejection note, until the archive holds it
    restored_by        text,
    restored_at        timestamptz
);
CREATE INDEX rejection_study ON dicomweb.rejection (study_instance_uid);
CREATE INDEX rejection_note_waits ON dicomweb.rejection (id) WHERE note IS NOT NULL;
CREATE INDEX rejection_recent ON dicomweb.rejection (rejected_at);
CREATE TABLE dicomweb.deletion (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_instance_uid text NOT NULL,
    requested_by       text NOT NULL,
    requested_at       timestamptz NOT NULL DEFAULT now(),
    trace_id           text NOT NULL,
    attempts           integer NOT NULL DEFAULT 0,
    due_at             timestamptz NOT NULL DEFAULT now(),
    last_fault         text,
    finished_at        timestamptz
);
CREATE INDEX deletion_due ON dicomweb.deletion (due_at) WHERE finished_at IS NULL;
CREATE TABLE dicomweb.rejected_instance (
    sop_instance_uid    text PRIMARY KEY,
    study_instance_uid  text NOT NULL,
    series_instance_uid text NOT NULL,
    rejection           bigint NOT NULL REFERENCES dicomweb.rejection,
    code                text NOT NULL,
    is_note             boolean NOT NULL DEFAULT false,
    goes_back           boolean NOT NULL DEFAULT false,
    deletion            bigint REFERENCES dicomweb.deletion,
    deleted_at          timestamptz,
    orthanc_id          text,               -- NULL: a note announced it and it has not come, or it is deleted
    instance_number     integer,
    transfer_syntax_uid text,
    frames              integer,
    attributes          jsonb,
    metadata            bytea,
    sop_class_uid       text COLLATE "C",
    pixel_rows          integer,
    pixel_columns       integer,
    bits_allocated      integer,
    index_version       smallint,
    correction          text
);
CREATE INDEX rejected_instance_study ON dicomweb.rejected_instance (study_instance_uid, series_instance_uid);
CREATE INDEX rejected_instance_rejection ON dicomweb.rejected_instance (rejection);
CREATE INDEX rejected_instance_deletion ON dicomweb.rejected_instance (deletion) WHERE deletion IS NOT NULL;

-- Whoever indexes: what is rejected stays rejected. What was deleted for its quality or age alone may come anew.
CREATE FUNCTION dicomweb.keep_rejected() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    known dicomweb.rejected_instance;
BEGIN
    -- Nearly always: and cheaper without a lock.
    IF NOT EXISTS (SELECT 1 FROM dicomweb.rejected_instance WHERE sop_instance_uid = NEW.sop_instance_uid) THEN
        RETURN NEW;
    END IF;
    SELECT * INTO known FROM dicomweb.rejected_instance WHERE sop_instance_uid = NEW.sop_instance_uid FOR UPDATE;
    IF NOT FOUND OR known.goes_back THEN
        RETURN NEW;
    END IF;
    IF known.deleted_at IS NOT NULL AND known.code IN ('113001', '113039') AND NOT known.is_note THEN
        DELETE FROM dicomweb.rejected_instance WHERE sop_instance_uid = NEW.sop_instance_uid;
        RETURN NEW;
    END IF;
    UPDATE dicomweb.rejected_instance SET
        study_instance_uid = NEW.study_instance_uid, series_instance_uid = NEW.series_instance_uid,
        orthanc_id = NEW.orthanc_id, instance_number = NEW.instance_number,
        transfer_syntax_uid = NEW.transfer_syntax_uid, frames = NEW.frames, attributes = NEW.attributes,
        metadata = NEW.metadata, sop_class_uid = NEW.sop_class_uid, pixel_rows = NEW.pixel_rows,
        pixel_columns = NEW.pixel_columns, bits_allocated = NEW.bits_allocated, index_version = NEW.index_version,
        correction = NEW.correction,
        deleted_at = NULL, deletion = CASE WHEN deleted_at IS NULL THEN deletion END
    WHERE sop_instance_uid = NEW.sop_instance_uid;
    RETURN NULL;
END
$$;
CREATE TRIGGER instance_rejected BEFORE INSERT ON dicomweb.instance
    FOR EACH ROW EXECUTE FUNCTION dicomweb.keep_rejected();

-- For whoever compares the archive with the index: files that rightly have no row there.
CREATE OR REPLACE VIEW dicomweb.withdrawn_instance AS
    SELECT study_instance_uid, sop_instance_uid, orthanc_id FROM dicomweb.rejected_instance
    WHERE NOT (deleted_at IS NOT NULL AND code IN ('113001', '113039') AND NOT is_note);

-- The same three levels over what was rejected for quality reasons: shown on an explicit query alone.
CREATE VIEW dicomweb.quality_instance AS
    SELECT study_instance_uid, series_instance_uid, sop_instance_uid, orthanc_id, instance_number, transfer_syntax_uid,
           frames, attributes, metadata, sop_class_uid, pixel_rows, pixel_columns, bits_allocated
    FROM dicomweb.rejected_instance
    WHERE code = '113001' AND orthanc_id IS NOT NULL AND deletion IS NULL AND NOT is_note;
CREATE VIEW dicomweb.quality_series AS
    SELECT e.study_instance_uid, e.series_instance_uid, e.own_output, e.attributes, e.keys, e.modality, e.revision,
           (SELECT count(*)::integer FROM dicomweb.quality_instance q
            WHERE (q.study_instance_uid, q.series_instance_uid) = (e.study_instance_uid, e.series_instance_uid))
           AS instance_count
    FROM dicomweb.series e;
CREATE VIEW dicomweb.quality_study AS
    SELECT s.study_instance_uid, s.patient_ref, s.institution, s.state, s.patient_conflict, s.attributes, s.keys,
           s.updated_at, s.patient_id, s.patient_id_issuer, s.name_alphabetic, s.name_ideographic, s.name_phonetic,
           s.name_words, s.accession_number, s.study_date, s.study_time, s.study_id, s.description, s.grams,
           n.series_count, n.instance_count, n.modalities
    FROM dicomweb.study s CROSS JOIN LATERAL (
        SELECT count(*)::integer AS series_count, coalesce(sum(e.instance_count), 0)::integer AS instance_count,
               coalesce(array_agg(DISTINCT e.modality ORDER BY e.modality) FILTER (WHERE e.modality <> ''), '{}')
               AS modalities
        FROM dicomweb.quality_series e
        WHERE e.study_instance_uid = s.study_instance_uid AND e.instance_count > 0) n;
