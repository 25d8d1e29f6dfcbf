"""Importers of licensed code systems, run by a hospital with its own files; nothing licensed is shipped (ADR 0008)."""
