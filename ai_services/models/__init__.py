"""Which pipelines and model weights exist, and proof that a weights file is the released one (stage 4).

Released weights are named by SHA-256 in each pipeline's manifest.yaml.
"""
