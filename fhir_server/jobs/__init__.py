"""Durable background jobs of the FHIR API (export, import, reindex, asynchronous requests). ADR 0018."""
