-- DICOM JSON of whole series, compressed once; `revision` tells of which state of the series.
CREATE TABLE dicomweb.series_metadata (
    study_instance_uid  text NOT NULL,
    series_instance_uid text NOT NULL,
    revision            bigint NOT NULL,
    base                text NOT NULL,
    size                bigint NOT NULL,
    crc32               bigint NOT NULL,
    zstd                bytea NOT NULL,
    deflate             bytea NOT NULL,
    PRIMARY KEY (study_instance_uid, series_instance_uid),
    FOREIGN KEY (study_instance_uid, series_instance_uid) REFERENCES dicomweb.series ON DELETE CASCADE
);
ALTER TABLE dicomweb.series_metadata ALTER COLUMN zstd SET STORAGE EXTERNAL, ALTER COLUMN deflate SET STORAGE EXTERNAL;
