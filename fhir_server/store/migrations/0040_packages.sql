-- Implementation guides installed at run time: their conformance resources, found by canonical URL.
CREATE TABLE fhir.package (
    name text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    canonical text COLLATE "C" NOT NULL,
    installed timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version)
);
CREATE TABLE fhir.package_resource (
    package text COLLATE "C" NOT NULL,
    package_version text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    url text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (package, package_version, type, url, version)
);
CREATE INDEX package_resource_url ON fhir.package_resource (url, type);
