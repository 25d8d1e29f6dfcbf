"""Which studies to annotate next: the unsure ones, and not all of one kind (stage 11; ADR 0053)."""
