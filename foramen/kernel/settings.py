"""Every setting of Foramen, read from `FORAMEN_*`; docs/environment-variables.md lists them and a test compares.

No secret has a default: secrets are files under `home/secrets`, made on first start (`foramen.kernel.secret_files`).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where things are and how long they wait."""

    model_config = SettingsConfigDict(env_prefix="FORAMEN_", extra="ignore")

    home: Path = Field(default=Path(".foramen"), description="Folder that holds all state of the embedded mode.")
    host: str = Field(default="127.0.0.1", description="Address the web server listens on.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port of the web server.")
    web_processes: int = Field(
        default=1, ge=1, le=64, description="Web processes that share the port; one uses at most one core."
    )
    public_url: str | None = Field(
        default=None, description="Origin as browsers see it, when a proxy stands in front; default http://host:port."
    )
    internal_url: str | None = Field(
        default=None, description="Origin at which our own processes reach the web server; default http://host:port."
    )
    database_url: str | None = Field(
        default=None, description="PostgreSQL URL; without it an embedded PostgreSQL runs under FORAMEN_HOME."
    )
    orthanc_url: str | None = Field(
        default=None, description="URL of an Orthanc of your own; without it a private Orthanc is started."
    )
    orthanc_http_port: int = Field(default=8142, ge=1, le=65535, description="HTTP port of the private Orthanc.")
    orthanc_username: str = Field(default="foramen", description="User name at Orthanc.")
    dicom_port: int = Field(default=4242, ge=1, le=65535, description="DIMSE port (C-STORE) of the private Orthanc.")
    dicom_aet: str = Field(default="FORAMEN", max_length=16, description="AE title of the archive.")
    dimse_port: int = Field(default=11112, ge=1, le=65535, description="Port of DIMSE for AE accounts (query, MWL, …).")
    dimse_host: str = Field(default="127.0.0.1", description="Address on which DIMSE for AE accounts listens.")
    dimse_aet: str = Field(default="FORAMEN_QR", max_length=16, description="AE title of DIMSE for AE accounts.")
    dimse_max_associations: int = Field(
        default=32, ge=1, le=1000, description="Associations that AE accounts may have at the same time."
    )
    dimse_idle_timeout_s: float = Field(
        default=60.0, gt=0, description="Seconds for which a peer of DIMSE may be silent before it is cut off."
    )
    dimse_connect_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds in which a called AE must accept an association."
    )
    dimse_max_instance_bytes: int = Field(
        default=4 * 1024**3, ge=1024, description="Largest instance (or other message) taken by DIMSE."
    )
    dimse_most_answers: int = Field(default=10_000, ge=1, description="Answers to one C-FIND; then it ends with A700H.")
    dimse_commit_wait_s: float = Field(
        default=30.0, ge=0, description="Seconds for which a commitment waits for instances that are not indexed yet."
    )
    dimse_forward_attempts: int = Field(
        default=20, ge=1, description="Times that forwarding tries one instance before it gives up."
    )
    dimse_tls_certificate: Path | None = Field(
        default=None, description="Certificate chain (PEM) of DIMSE; with it the DIMSE port speaks TLS only."
    )
    dimse_tls_key: Path | None = Field(default=None, description="Private key (PEM) of the certificate of DIMSE.")
    dimse_tls_ca: Path | None = Field(
        default=None, description="Certificates (PEM) that vouch for peers of DIMSE; with it every caller needs one."
    )
    stable_study_s: int = Field(
        default=3, ge=1, description="Seconds without a new instance after which a study counts as complete."
    )
    default_patient_id_issuer: str | None = Field(
        default=None, description="Issuer assumed when (0010,0021) is absent; without it such studies wait on hold."
    )
    reconcile_every_s: float = Field(
        default=20.0, gt=0, description="Pause between two looks for changed patients and images behind our back."
    )
    worker_poll_s: float = Field(default=0.5, gt=0, description="Pause between two looks for new AI tasks.")
    worker_threads: int = Field(default=2, ge=1, description="Threads at the models: slices side by side.")
    worker_processes: int = Field(default=1, ge=1, le=32, description="AI workers that `foramen up` starts.")
    worker_device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where models run; auto: CUDA where the installed ONNX Runtime offers it."
    )
    worker_queue: Literal["all", "live", "batch"] = Field(
        default="all", description="Which Tasks a worker takes: all, all but batches, or batches alone."
    )
    worker_runs: int = Field(
        default=2, ge=1, le=6, description="Analyses that a worker has in hand; one more where it is an emergency."
    )
    worker_spool_bytes: int = Field(
        default=4 * 1024**3, ge=1024, description="Space of series in work; beyond it a worker takes nothing more."
    )
    worker_lease_s: float = Field(
        default=30.0, ge=1, description="Seconds without a sign of life after which a worker's Tasks go to others."
    )
    worker_warm_up: bool = Field(
        default=False, description="Load the models at the start of a worker, and not with its first study."
    )
    tracking_uri: str | None = Field(
        default=None,
        description="MLflow store of trainings (sqlite:///FILE, postgresql://…, https://…) or none; default: SQLite "
        "under FORAMEN_HOME.",
    )
    access_token_s: int = Field(default=3600, ge=60, description="Lifetime of access tokens in seconds.")
    client_registration: bool = Field(
        default=True, description="Whether apps may apply for registration at /auth/register (RFC 7591)."
    )
    client_registrations_per_hour: int = Field(
        default=20, ge=1, description="Registrations accepted from one address in an hour."
    )
    client_registrations_pending: int = Field(
        default=200, ge=1, description="Registrations that may wait for approval at the same time."
    )
    client_registrations_pending_per_address: int = Field(
        default=20, ge=1, description="Registrations of one address (IPv6: network of /64) that may wait for approval."
    )
    client_jwks_networks: str = Field(
        default="",
        description="Networks that are not public and may hold a client's jwks_uri (CIDR, comma-separated), "
        "e.g. 10.0.0.0/8; http is accepted on loopback only.",
    )
    session_idle_s: int = Field(default=3600, ge=60, description="Idle time after which a sign-in session ends.")
    session_absolute_s: int = Field(
        default=43200, ge=60, description="Time after sign-in at which a session ends, however busy it is."
    )
    delegation_max_days: int = Field(
        default=30, ge=1, le=366, description="Longest time for which a permission is lent to another account, in days."
    )
    institutions: Literal["shared", "separate"] = Field(
        default="shared",
        description="separate: a person sees the patients whom their own institution manages, and no others.",
    )
    break_glass_s: int = Field(default=3600, ge=60, le=86400, description="Seconds that emergency access lasts.")
    break_glass_per_day: int = Field(
        default=10, ge=1, description="Occasions of emergency access that one account may start in 24 hours."
    )
    break_glass_review_h: int = Field(
        default=72, ge=1, description="Hours after which emergency access that nobody reviewed is shown as overdue."
    )
    break_glass_alert_url: str | None = Field(
        default=None, description="URL that is told (POST, JSON) of every start of emergency access; none without it."
    )
    second_factor_roles: str = Field(
        default="system-administrator,institution-administrator",
        description="Roles that need a second factor, separated by commas; it is set up at the next sign-in.",
    )
    sign_in_failures_per_address: int = Field(
        default=50, ge=1, description="Failed sign-ins that one client address may have before it has to wait."
    )
    sign_in_failures_everywhere: int = Field(
        default=500,
        ge=1,
        description="Failed sign-ins in ten minutes, all addresses together, after which each address may have few.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Networks of proxies whose X-Forwarded-For is believed, separated by commas (10.0.0.0/8,::1).",
    )
    data_keys_file: Path | None = Field(
        default=None,
        description="File of the keys that seal secrets in the database; default FORAMEN_HOME/secrets/data-keys.",
    )
    cipher: Literal["AES-256-GCM", "SM4-GCM"] = Field(
        default="AES-256-GCM",
        description="Cipher that seals secrets in the database: AES-256-GCM, or SM4-GCM (GB/T 32907).",
    )
    kms_command: str | None = Field(
        default=None,
        description="Command (no shell) that wraps and unwraps the data keys by a KMS; none: they lie in the file.",
    )
    kms_timeout_s: float = Field(default=10.0, gt=0, le=300, description="Seconds that the KMS command may take.")
    launcher: Literal["off", "on"] = Field(
        default="off",
        description="Page /apps/launcher, which tries launches and shows their tokens; `foramen demo` sets it on.",
    )
    demo: bool = Field(
        default=False, description="Set by `foramen demo`: pages name the demonstration's own accounts and password."
    )
    max_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1024, description="Largest FHIR request body.")
    orthanc_storage: Path | None = Field(
        default=None,
        description="Folder of Orthanc's files, read directly; default FORAMEN_HOME/orthanc/storage. "
        "Where it is not there, files are fetched from Orthanc by HTTP.",
    )
    fetched_files_bytes: int = Field(
        default=2 * 1024**3, ge=1024, description="Space for files fetched from an Orthanc whose folder is not here."
    )
    nginx_sendfile: bool = Field(
        default=False, description="Whole files are sent by nginx with deploy/nginx.conf, which stands in front."
    )
    codec_processes: int = Field(
        default=2, ge=1, le=64, description="Processes of each web process that decode and encode pixel data."
    )
    codec_memory_mib: int = Field(default=2048, ge=768, description="Address space of a codec process, in MiB.")
    codec_timeout_s: float = Field(default=30.0, gt=0, description="Seconds that one frame or picture may take.")
    upload_bytes: int = Field(
        default=2 * 1024**3, ge=1024, description="Largest upload on the page /apps/images/upload, all files together."
    )
    max_stow_bytes: int = Field(default=4 * 1024**3, ge=1024, description="Largest STOW-RS request body.")
    qido_longest_s: float = Field(
        default=10.0, gt=0, description="Seconds after which a DICOMweb search is given up as too broad (413)."
    )
    stow_idle_s: float = Field(
        default=60.0, gt=0, description="Seconds without a byte after which a STOW-RS request is given up (408)."
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    digest: Literal["SHA-256", "SM3"] = Field(
        default="SHA-256", description="Digest of the audit chain: SHA-256, or SM3 (GB/T 32905)."
    )
    audit_signature: Literal["ES256", "SM2"] = Field(
        default="ES256", description="Signature of audit checkpoints from now on: ES256, or SM2 with SM3 (GB/T 32918)."
    )
    audit_retention_days: int = Field(
        default=180, ge=180, description="Days for which no AuditEvent can be removed; 180 or more."
    )
    nearline_folder: Path | None = Field(
        default=None, description="Second, slower folder that old images move to; none: all stay where they are."
    )
    nearline_after_days: int = Field(
        default=365, ge=1, description="Days after its date at which a study's images move to the second folder."
    )
    nearline_unused_days: int = Field(
        default=90, ge=0, description="Days for which nobody read a study before its images move or are compressed."
    )
    nearline_states: str = Field(
        default="registered", description="States of studies whose images may move to the second folder, by commas."
    )
    nearline_compress_after_days: int | None = Field(
        default=None,
        ge=1,
        description="Days after its date at which moved images are compressed without loss; none: never.",
    )
    nearline_codec_timeout_s: float = Field(
        default=600.0, gt=0, description="Seconds that one file may take to be compressed or restored."
    )
    nearline_s3_bucket: str | None = Field(
        default=None, description="Bucket (S3) that files of the second folder move on to; none: they stay there."
    )
    nearline_s3_endpoint: str | None = Field(
        default=None, description="Address of the S3 server, https://… (http:// at a loopback address alone)."
    )
    nearline_s3_region: str = Field(default="us-east-1", description="Region of the bucket, as its server names it.")
    nearline_s3_prefix: str = Field(default="", max_length=200, description="Before the name of every object.")
    nearline_s3_key_id_file: Path | None = Field(default=None, description="File that holds the access key's id.")
    nearline_s3_key_file: Path | None = Field(default=None, description="File that holds the secret access key.")
    nearline_s3_ca_file: Path | None = Field(
        default=None, description="Certificates (PEM) to trust beside the system's, for a private server."
    )
    nearline_s3_after_days: int | None = Field(
        default=None, ge=1, description="Days after its date at which moved images go to the bucket; none: never."
    )
    nearline_s3_timeout_s: float = Field(
        default=300.0,
        gt=0,
        description="Seconds that one request to the bucket may take (16 MiB at most go up in one).",
    )
    retention_inpatient_years: int = Field(
        default=30, ge=1, description="Years that images of inpatients are kept (UNVERIFIED as law)."
    )
    retention_outpatient_years: int = Field(
        default=15, ge=1, description="Years that images of outpatients are kept (UNVERIFIED as law)."
    )
    retention_own_output_years: int = Field(
        default=30, ge=1, description="Years that what this installation made is kept (UNVERIFIED as law)."
    )
    test_data: Path = Field(default=Path("../shared/data"), description="Real data for tests and `demo --check`.")

    @property
    def origin(self) -> str:
        """Origin of every URL we publish, without a trailing slash."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def fhir_base(self) -> str:
        """Base URL of the FHIR API."""
        return f"{self.origin}/fhir"

    @property
    def dicom_web_base(self) -> str:
        """Base URL of the DICOMweb API."""
        return f"{self.origin}/dicom-web"

    @property
    def issuer(self) -> str:
        """OAuth 2.0 issuer identifier."""
        return self.origin

    @property
    def internal_origin(self) -> str:
        """Origin our own processes use to reach the web server, without passing a proxy."""
        if self.internal_url is not None:
            return self.internal_url.rstrip("/")
        return f"http://{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{self.port}"  # noqa: S104

    @property
    def archive_url(self) -> str:
        """Base URL of Orthanc's REST API."""
        return (self.orthanc_url or f"http://127.0.0.1:{self.orthanc_http_port}").rstrip("/")


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Read the settings of this process, once."""
    return Settings()
