"""What a resource is: bytes, references, rules. Knows no HTTP and no SQL."""
