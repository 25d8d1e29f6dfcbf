"""What makes a resource valid beyond its structure: codes by form, narratives, invariants, profiles."""
