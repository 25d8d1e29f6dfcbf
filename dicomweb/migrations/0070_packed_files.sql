-- Files of the nearline folder whose pixel data lies there as HTJ2K (ADR 0039). `size` and `sha256` stay those of the
-- file as it was received; form: plain, as it was; incompressible, tried and left as it was; or the codec.
ALTER TABLE dicomweb.nearline_file
    ADD COLUMN form          text NOT NULL DEFAULT 'plain' CHECK (form IN ('plain', 'incompressible', 'htj2k', 'j2k')),
    ADD COLUMN packed_size   bigint,
    ADD COLUMN packed_sha256 bytea,
    ADD COLUMN unpacked_at   timestamptz,  -- a plain copy was made again, to be read; NULL: there is none
    ADD CONSTRAINT nearline_packed
        CHECK ((form IN ('htj2k', 'j2k')) = (packed_size IS NOT NULL AND packed_sha256 IS NOT NULL));
CREATE INDEX nearline_to_pack ON dicomweb.nearline_file (study_instance_uid)
    WHERE form = 'plain' OR unpacked_at IS NOT NULL;
