"""Limits of the FHIR API, read from `FORAMEN_FHIR_*`; what every service shares is in `foramen.kernel.settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fhir_server.search.blind import parse_systems


class FhirSettings(BaseSettings):
    """How much one request may ask for."""

    model_config = SettingsConfigDict(env_prefix="FORAMEN_FHIR_", extra="ignore")

    national_identifiers: str = Field(
        default="urn:oid:2.16.156.10011.1.3 urn:oid:2.16.156.10011.1.15 http://hl7.org/fhir/sid/passport-*"
        " urn:oid:2.16.840.1.113883.4.330.* http://hl7.org/fhir/sid/us-ssn urn:oid:2.16.840.1.113883.4.1"
        " http://hl7.org/fhir/sid/us-mbi",
        description="Systems of identifiers whose values are sealed in the database (identity card, insurance card, "
        "passport, …), separated by white space or commas; * at the end stands for any rest. What was here once stays.",
    )
    sealing_batch: int = Field(default=2000, ge=1, description="Rows that one step of sealing what is stored reads.")
    connections: int = Field(default=6, ge=2, description="Database connections of one web process for requests.")
    connection_wait_s: float = Field(
        default=10.0, gt=0, description="Longest a request waits for a free database connection before it gets 503."
    )
    page_size: int = Field(default=50, ge=1, description="Resources in a search page when _count is not given.")
    max_page_size: int = Field(default=1000, ge=1, description="Largest _count; a larger one is lowered to it.")
    max_included: int = Field(default=2000, ge=1, description="Most resources that _include and _revinclude may add.")
    max_bundle_entries: int = Field(default=10_000, ge=1, description="Most entries of a batch or transaction.")
    max_values: int = Field(default=500, ge=1, description="Most comma-separated values of one search parameter.")
    max_parameters: int = Field(default=100, ge=1, description="Most search parameters of one request.")
    max_depth: int = Field(default=64, ge=8, description="Deepest nesting of a JSON body.")
    max_contained: int = Field(default=1000, ge=0, description="Most contained resources of one resource.")
    max_resource_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, description="Largest single resource but a Binary or Bundle, in JSON."
    )
    statement_timeout_s: float = Field(default=30.0, gt=0, description="Longest a database statement may run.")
    max_xml_elements: int = Field(default=500_000, ge=1, description="Most tags of an XML body.")
    max_patch_operations: int = Field(default=1000, ge=1, description="Most operations of one PATCH.")
    max_patch_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1024, description="Most bytes that one PATCH may copy, look at or add."
    )
    max_conditional_delete: int = Field(
        default=1, ge=1, description="Most resources that one conditional delete removes; more matches are refused."
    )
    require_if_match: bool = Field(
        default=False, description="Whether an update or PATCH of what exists needs If-Match (else 400)."
    )
    job_connections: int = Field(default=4, ge=2, description="Database connections of one web process for jobs.")
    job_statement_timeout_s: float = Field(default=600.0, gt=0, description="Longest a statement of a job may run.")
    job_poll_s: float = Field(default=1.0, gt=0, description="Pause between two looks for waiting jobs.")
    job_lease_s: float = Field(
        default=6.0, gt=0, description="After this time without a sign of life a job passes to another process."
    )
    job_attempts: int = Field(default=5, ge=1, description="Attempts without a checkpoint after which a job fails.")
    job_lifetime_s: float = Field(
        default=86_400.0, gt=0, description="Time for which a finished job, its answer and its files are kept."
    )
    jobs_per_client: int = Field(default=10, ge=1, description="Unfinished jobs of one kind a client may have.")
    audit_index_delay_s: float = Field(
        default=10.0, ge=0, description="How long audit records may wait for their index while the server is busy."
    )
    audit_ai_clients: str = Field(
        default="foramen-worker", description="OAuth clients that are AI services, for audit reports; joined by commas."
    )
    consent: bool = Field(default=False, description="Whether patients' Consents hide resources from those they name.")
    max_history_scan: int = Field(
        default=10_000,
        ge=100,
        description="Most versions that a page of a history looks at for a granular scope or a patient.",
    )
    retention_outpatient_years: int = Field(
        default=15,
        ge=0,
        description="Years for which an outpatient record is kept after the last visit; $erase then only closes it.",
    )
    retention_inpatient_years: int = Field(
        default=30,
        ge=0,
        description="Years for which a record with an inpatient stay, or an unknown one, is kept after the last visit.",
    )
    erasure_record_years: int = Field(
        default=3, ge=3, description="Years for which a request to erase, and what became of it, is kept; 3 or more."
    )
    subject_summary_rows: int = Field(
        default=500, ge=1, description="Most rows of one kind on the page that $subject-export makes for people."
    )
    max_meta_scan: int = Field(default=100_000, ge=1, description="Most resources that $meta reads for their labels.")
    max_expunge: int = Field(default=10_000, ge=1, description="Most versions that one $expunge removes.")
    reindex_at_start: int = Field(
        default=2000, ge=0, description="Most resources whose index is rebuilt before the first request, not by a job."
    )
    reindex_batch: int = Field(default=200, ge=1, le=5000, description="Resources of one step of a reindex job.")
    reindex_pause: float = Field(
        default=1.0, ge=0, description="Pause of a reindex job after each step, as a multiple of the step's time."
    )
    max_custom_parameters: int = Field(default=200, ge=0, description="Most search parameters added at run time.")
    max_parameter_expression: int = Field(
        default=1000, ge=1, description="Longest FHIRPath expression of a search parameter added at run time."
    )
    bulk_folder: Path | None = Field(
        default=None, description="Folder of export files and import uploads, shared in a cluster; FORAMEN_HOME/bulk."
    )
    export_parallel: int = Field(default=1, ge=1, description="Exports that one web process runs at a time.")
    export_segment: int = Field(default=20_000, ge=1, description="Resources between two checkpoints of an export.")
    export_file_bytes: int = Field(
        default=256 * 1024 * 1024, ge=1, description="Size at which an export goes on in another file."
    )
    export_settle_s: float = Field(
        default=1.0, ge=0, description="Longest gap between a write's time and its commit; clocks differ by less."
    )
    export_members: int = Field(default=100_000, ge=1, description="Most patients a Group or patient list may name.")
    export_polls_per_s: int = Field(default=10, ge=1, description="Most questions for one job's status in a second.")
    replica_urls: str = Field(
        default="", description="PostgreSQL URLs of streaming replicas that serve searches, joined by commas."
    )
    replica_connections: int = Field(default=6, ge=1, description="Connections of one web process to each replica.")
    replica_wait_s: float = Field(
        default=0.02, ge=0, description="Longest a search waits for a replica before it goes to the primary."
    )
    max_sort_keys: int = Field(default=8, ge=1, le=11, description="Most keys of one _sort.")
    max_sorted_by_content: int = Field(
        default=50_000, ge=0, description="Most matches of a search with _sort by a token or reference parameter."
    )
    max_includes: int = Field(default=30, ge=1, description="Most _include and _revinclude of one search.")
    max_include_rounds: int = Field(default=5, ge=1, description="Most rounds of :iterate.")
    max_chain_depth: int = Field(default=8, ge=1, description="Most steps of a chained search, _has included.")
    max_expansion: int = Field(default=5000, ge=1, description="Most codes or resources one search value stands for.")
    max_filter_length: int = Field(default=4000, ge=1, description="Longest _filter, in characters.")
    max_filter_depth: int = Field(default=20, ge=1, description="Deepest nesting of parentheses in a _filter.")
    full_text: bool = Field(default=False, description="Whether _text and _content are indexed and can be searched.")
    max_value_set_codes: int = Field(default=10_000, ge=1, description="Most codes in one answer of $expand.")
    import_folder: Path | None = Field(
        default=None, description="Folder below which $import may read file: URLs; none without it."
    )
    import_max_bytes: int = Field(
        default=64 * 1024**3, ge=1, description="Largest input of $import, as sent and decompressed."
    )
    import_batch: int = Field(default=5000, ge=1, description="Lines that $import writes in one database transaction.")
    import_batch_bytes: int = Field(default=8 * 1024 * 1024, ge=1, description="Bytes after which a batch ends early.")
    import_validation: Literal["full", "structure"] = Field(
        default="full", description="What $import checks: everything, or structure and data types only."
    )
    unknown_profile: Literal["warn", "refuse"] = Field(
        default="warn", description="A write that claims a profile not known here: warn, or refuse it with 422."
    )
    max_package_bytes: int = Field(default=64 * 1024 * 1024, ge=1024, description="Largest package, packed.")
    max_package_unpacked_bytes: int = Field(
        default=512 * 1024 * 1024, ge=1024, description="Largest package, unpacked; a zip bomb is stopped there."
    )
    max_package_entries: int = Field(default=50_000, ge=1, description="Most files of a package.")

    @field_validator("national_identifiers")
    @classmethod
    def _systems(cls, text: str) -> str:
        parse_systems(text)
        return text
