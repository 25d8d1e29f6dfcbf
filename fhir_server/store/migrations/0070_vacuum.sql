-- Index-only reads look into the table as well until a vacuum has marked its pages as all visible. By default that waits
-- until a fifth of the table is new: 2.5 million entries at 10^6 resources. A vacuum of pages that were only added to
-- reads those pages and no index, so it may come often.
ALTER TABLE fhir.posting SET (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE fhir.date_value SET (autovacuum_vacuum_insert_scale_factor = 0.02);
ALTER TABLE fhir.string_value SET (autovacuum_vacuum_insert_scale_factor = 0.02);
ALTER TABLE fhir.number_value SET (autovacuum_vacuum_insert_scale_factor = 0.02);
