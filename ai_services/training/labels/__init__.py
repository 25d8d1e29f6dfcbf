"""Decisions of physicians → labelled rows of a dataset version (stage 11; ADR 0053)."""
