"""One truth of a study in archive, index and record after any change, and what was found out of line (ADR 0041)."""
