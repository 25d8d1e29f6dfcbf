"""Limits of the FHIR API, read from `FORAMEN_FHIR_*`; what every service shares is in `foramen.kernel.settings`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class FhirSettings(BaseSettings):
    """How much one request may ask for."""

    model_config = SettingsConfigDict(env_prefix="FORAMEN_FHIR_", extra="ignore")

    connections: int = Field(default=6, ge=2, description="Database connections of one web process for requests.")
    page_size: int = Field(default=50, ge=1, description="Resources in a search page when _count is not given.")
    max_page_size: int = Field(default=1000, ge=1, description="Largest _count; a larger one is lowered to it.")
    max_included: int = Field(default=2000, ge=1, description="Most resources that _include and _revinclude may add.")
    max_bundle_entries: int = Field(default=10_000, ge=1, description="Most entries of a batch or transaction.")
    max_values: int = Field(default=500, ge=1, description="Most comma-separated values of one search parameter.")
    max_parameters: int = Field(default=100, ge=1, description="Most search parameters of one request.")
    max_depth: int = Field(default=64, ge=8, description="Deepest nesting of a JSON body.")
    statement_timeout_s: float = Field(default=30.0, gt=0, description="Longest a database statement may run.")
