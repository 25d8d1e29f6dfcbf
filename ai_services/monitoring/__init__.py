"""What a model version said in use, what people made of it, and whether either changes (stage 11)."""
