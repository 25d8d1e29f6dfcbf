"""Generator of `terminology/content/core.json.gz`."""
