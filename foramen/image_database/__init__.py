"""The image database under `/apps/images`: search, studies with labels, upload (contract module 1; ADR 0037)."""
