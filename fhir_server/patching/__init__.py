"""PATCH documents: JSON Patch (RFC 6902) and FHIRPath Patch, read and applied. Knows no HTTP and no store."""
