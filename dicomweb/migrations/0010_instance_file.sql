CREATE TABLE dicomweb.instance_file (
    orthanc_id   text PRIMARY KEY,
    attachment   text NOT NULL,
    size         bigint NOT NULL,
    layout       bytea
);
