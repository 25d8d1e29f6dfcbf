"""Consents and restrictions of the record, kept so that they hide the pixels too (ADR 0040)."""
