"""FHIRPath N1 with the R4 additions: text → typed Python closures over plain JSON. Knows no HTTP and no SQL."""
