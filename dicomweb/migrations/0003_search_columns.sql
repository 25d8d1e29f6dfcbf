-- What is searched often becomes a column; counts are kept here by triggers, whoever writes (ADR 0033).
CREATE SEQUENCE dicomweb.revision;
ALTER TABLE dicomweb.study
    ADD COLUMN patient_id        text COLLATE "C",
    ADD COLUMN patient_id_issuer text COLLATE "C",
    ADD COLUMN name_alphabetic   text COLLATE "C",
    ADD COLUMN name_ideographic  text COLLATE "C",
    ADD COLUMN name_phonetic     text COLLATE "C",
    ADD COLUMN name_words        tsvector,
    ADD COLUMN accession_number  text COLLATE "C",
    ADD COLUMN study_date        text COLLATE "C",
    ADD COLUMN study_time        text COLLATE "C",
    ADD COLUMN study_id          text COLLATE "C",
    ADD COLUMN description       text COLLATE "C",
    ADD COLUMN grams             text[],
    ADD COLUMN modalities        text[] NOT NULL DEFAULT '{}',
    ADD COLUMN series_count      integer NOT NULL DEFAULT 0,
    ADD COLUMN instance_count    integer NOT NULL DEFAULT 0;
-- Of a row over 2 KB what is only returned lies beside it.
ALTER TABLE dicomweb.study SET (toast_tuple_target = 512);
ALTER TABLE dicomweb.series SET (toast_tuple_target = 512);
ALTER TABLE dicomweb.series
    ADD COLUMN modality       text COLLATE "C",
    ADD COLUMN instance_count integer NOT NULL DEFAULT 0,
    ADD COLUMN revision       bigint NOT NULL DEFAULT nextval('dicomweb.revision'),
    ADD COLUMN stale_since    timestamptz;
ALTER TABLE dicomweb.instance
    ADD COLUMN sop_class_uid  text COLLATE "C",
    ADD COLUMN pixel_rows     integer,
    ADD COLUMN pixel_columns  integer,
    ADD COLUMN bits_allocated integer,
    ADD COLUMN index_version  smallint NOT NULL DEFAULT 0,
    DROP COLUMN keys;

CREATE FUNCTION dicomweb.count_studies(uids text[]) RETURNS void LANGUAGE sql AS $$
    UPDATE dicomweb.study s SET series_count = n.series, instance_count = n.instances, modalities = n.modalities
    FROM (SELECT u.uid, count(e.*) AS series, coalesce(sum(e.instance_count), 0) AS instances,
                 coalesce(array_agg(DISTINCT e.modality ORDER BY e.modality) FILTER (WHERE e.modality <> ''), '{}') AS modalities
          FROM unnest(uids) AS u(uid)
          LEFT JOIN dicomweb.series e ON e.study_instance_uid = u.uid AND e.instance_count > 0
          GROUP BY u.uid) n
    WHERE s.study_instance_uid = n.uid
$$;
CREATE FUNCTION dicomweb.count_instances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign integer := CASE TG_OP WHEN 'INSERT' THEN 1 WHEN 'DELETE' THEN -1 ELSE 0 END;
BEGIN
    UPDATE dicomweb.series e SET instance_count = e.instance_count + sign * n.count,
                                 revision = nextval('dicomweb.revision'), stale_since = now()
    FROM (SELECT study_instance_uid, series_instance_uid, count(*) FROM changed GROUP BY 1, 2) n
    WHERE e.study_instance_uid = n.study_instance_uid AND e.series_instance_uid = n.series_instance_uid;
    IF sign <> 0 THEN
        PERFORM dicomweb.count_studies((SELECT array_agg(DISTINCT study_instance_uid) FROM changed));
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER instance_inserted AFTER INSERT ON dicomweb.instance REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION dicomweb.count_instances();
CREATE TRIGGER instance_deleted AFTER DELETE ON dicomweb.instance REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION dicomweb.count_instances();
CREATE TRIGGER instance_updated AFTER UPDATE ON dicomweb.instance REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION dicomweb.count_instances();

UPDATE dicomweb.series e SET modality = e.keys->'00080060'->>0, stale_since = now(), instance_count = n.count
FROM (SELECT study_instance_uid, series_instance_uid, count(*) FROM dicomweb.instance GROUP BY 1, 2) n
WHERE e.study_instance_uid = n.study_instance_uid AND e.series_instance_uid = n.series_instance_uid;
SELECT dicomweb.count_studies((SELECT array_agg(study_instance_uid) FROM dicomweb.study));

CREATE INDEX study_order ON dicomweb.study (study_date DESC NULLS LAST, study_instance_uid);
CREATE INDEX study_patient_id ON dicomweb.study (patient_id, patient_id_issuer);
CREATE INDEX study_accession ON dicomweb.study (accession_number);
CREATE INDEX study_alphabetic ON dicomweb.study (name_alphabetic);
CREATE INDEX study_ideographic ON dicomweb.study (name_ideographic);
CREATE INDEX study_phonetic ON dicomweb.study (name_phonetic);
CREATE INDEX study_description ON dicomweb.study (description);
CREATE INDEX study_words ON dicomweb.study USING gin (name_words);
CREATE INDEX study_grams ON dicomweb.study USING gin (grams);
CREATE INDEX study_modalities ON dicomweb.study USING gin (modalities);
CREATE INDEX study_institution ON dicomweb.study (institution, study_date DESC NULLS LAST, study_instance_uid);
CREATE INDEX study_keys ON dicomweb.study USING gin (keys jsonb_path_ops);
CREATE INDEX series_keys ON dicomweb.series USING gin (keys jsonb_path_ops);
CREATE INDEX series_stale ON dicomweb.series (stale_since) WHERE stale_since IS NOT NULL;
CREATE INDEX instance_order ON dicomweb.instance (study_instance_uid, series_instance_uid, instance_number, sop_instance_uid);
CREATE INDEX instance_class ON dicomweb.instance (sop_class_uid);
CREATE INDEX instance_old ON dicomweb.instance (study_instance_uid) WHERE index_version < 1;
